//! The layer, which is its own builder.

use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderValue;
use tower_layer::Layer;

use super::bearer::Credentials;
use super::origin::{ApiBaseError, Origin};
use super::service::{InngestApiAuthService, Outbound, SingleAttempt, WithFallback};
use crate::config::{Config, ConfigError, Mode};
use crate::keyring::KeyRing;

/// A layer that authenticates an HTTP client's calls to Inngest's API. See the [module's
/// page](crate::api) for its steps.
///
/// Build it and [`InngestAuth`](crate::InngestAuth) from one [`Config`], or from clones of one
/// [`KeyRing`], so that both follow a rotation. Each `from_env()` creates a ring of its own. Clones
/// of the layer share what they learn about the keys.
#[derive(Clone, Debug)]
#[must_use]
pub struct InngestApiAuth<A = WithFallback> {
    outbound: Arc<Outbound>,
    attempts: PhantomData<A>,
}

impl InngestApiAuth {
    /// Creates the layer from environment variables. [`Config`] lists them.
    ///
    /// Always returns a layer. If the configuration cannot be used, it logs an ERROR that says what
    /// to set, and every call fails with [`ApiAuthError::Unconfigured`](crate::ApiAuthError).
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(Self::unusable)
    }

    /// Creates the layer from environment variables, or returns the error.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that says what to set.
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().and_then(|config| Self::try_from_config(&config))
    }

    /// Creates the layer from a [`Config`], and shares its [`KeyRing`].
    ///
    /// If the configuration's [`api_base`](Config::api_base) or
    /// [`environment`](Config::environment) is an error, it is logged, and every call fails with
    /// it.
    pub fn from_config(config: &Config) -> Self {
        Self::try_from_config(config).unwrap_or_else(Self::unusable)
    }

    /// Creates the layer from a [`Config`], and shares its [`KeyRing`], or returns the error.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if the configuration's [`api_base`](Config::api_base) or
    /// [`environment`](Config::environment) is one.
    #[expect(
        clippy::missing_panics_doc,
        reason = "`Config` has checked both values"
    )]
    pub fn try_from_config(config: &Config) -> Result<Self, ConfigError> {
        let api = Origin::parse(config.api_base()?).expect("`Config` accepts only such URLs");
        let environment = config.environment()?.map(|name| {
            HeaderValue::from_bytes(name.as_bytes()).expect("`Config` accepts no controls")
        });
        let mode = match config.mode() {
            Mode::Cloud(keys) => Mode::Cloud(Credentials::new(keys)),
            Mode::Dev { key_set } => Mode::Dev { key_set },
            Mode::Unusable(error) => return Err(error),
        };
        Ok(Self::with(Outbound::new(mode, api, environment)))
    }

    fn unusable(error: ConfigError) -> Self {
        tracing::error!("cannot authenticate calls to Inngest's API: {error}");
        Self::with(Outbound::unusable(error))
    }

    /// Creates the layer with these keys, for the API at `api_base`, such as
    /// `https://api.inngest.com`. It does not read environment variables.
    ///
    /// Pass a clone of a [`KeyRing`] to share the keys with
    /// [`InngestAuth::new`](crate::InngestAuth::new):
    ///
    /// ```
    /// use inngest_auth::{ApiBaseError, InngestApiAuth, InngestAuth, KeyRing, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ring = KeyRing::from("signkey-prod-12345678".parse::<SigningKey>()?);
    /// let inbound = InngestAuth::new(ring.clone());
    /// let outbound = InngestApiAuth::new(ring.clone(), "https://api.inngest.com")?;
    ///
    /// // Both follow.
    /// ring.rotate("signkey-prod-87654321".parse()?);
    /// # for keys in [inbound.keys(), outbound.keys()] {
    /// #     assert_eq!(keys.map(KeyRing::snapshot), Some(ring.snapshot()));
    /// # }
    ///
    /// let error = InngestApiAuth::new(ring, "localhost:8288").unwrap_err();
    /// assert_eq!(error, ApiBaseError::Scheme);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// With a key that all branch environments share (`signkey-branch-…`), each request must name
    /// its environment in `X-Inngest-Env`.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiBaseError`] that says what is wrong with the URL.
    pub fn new(keys: impl Into<KeyRing>, api_base: &str) -> Result<Self, ApiBaseError> {
        let api = Origin::parse(api_base)?;
        let mode = Mode::Cloud(Credentials::new(keys.into()));
        Ok(Self::with(Outbound::new(mode, api, None)))
    }

    fn with(outbound: Outbound) -> Self {
        Self {
            outbound: Arc::new(outbound),
            attempts: PhantomData,
        }
    }

    /// Sends every request only once, so that its body need not be `Clone`: it may be a stream.
    ///
    /// The request is sent with the key that the API accepted last. A 401 or 403 is returned to the
    /// caller, and the next call begins with the other key, if there is one. So when the API
    /// switches keys, a call fails that would have succeeded with the other key; call again. If
    /// several calls are in flight when the first 401 or 403 arrives, each of them may fail.
    ///
    /// The returned layer shares what it learns with this layer and its clones. A call through this
    /// layer, which tries both keys, therefore prevents that failure.
    ///
    /// `axum::body::Body` may be a stream, and is not `Clone`:
    ///
    /// ```
    /// # use http::Request;
    /// # use hyper_util::client::legacy::{Client, connect::HttpConnector};
    /// # use inngest_auth::InngestApiAuth;
    /// # use tower::{Layer, Service};
    /// use axum::body::Body;
    ///
    /// async fn publish(auth: InngestApiAuth, client: Client<HttpConnector, Body>) {
    ///     let mut api = auth.single_attempt().layer(client);
    ///     let _response = api.call(Request::new(Body::empty())).await;
    /// }
    /// ```
    ///
    /// Without `single_attempt` the same code does not compile, because `Body: Clone` is not
    /// satisfied. (For `oneshot`, the compiler only reports that its trait bounds are not
    /// satisfied.)
    ///
    /// ```compile_fail,E0599
    /// # use http::Request;
    /// # use hyper_util::client::legacy::{Client, connect::HttpConnector};
    /// # use inngest_auth::InngestApiAuth;
    /// # use tower::{Layer, Service};
    /// use axum::body::Body;
    ///
    /// async fn publish(auth: InngestApiAuth, client: Client<HttpConnector, Body>) {
    ///     let mut api = auth.layer(client);
    ///     let _response = api.call(Request::new(Body::empty())).await;
    /// }
    /// ```
    ///
    /// A body that is `Clone` does not need `single_attempt`:
    ///
    /// ```
    /// # use http::Request;
    /// # use hyper_util::client::legacy::{Client, connect::HttpConnector};
    /// # use inngest_auth::InngestApiAuth;
    /// # use tower::{Layer, Service};
    /// async fn publish(auth: InngestApiAuth, client: Client<HttpConnector, String>) {
    ///     let mut api = auth.layer(client);
    ///     let _response = api.call(Request::new(String::new())).await;
    /// }
    /// ```
    pub fn single_attempt(self) -> InngestApiAuth<SingleAttempt> {
        InngestApiAuth {
            outbound: self.outbound,
            attempts: PhantomData,
        }
    }
}

impl<A> InngestApiAuth<A> {
    /// Returns the ring whose keys are used, or `None` in dev mode or if the configuration cannot
    /// be used.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        self.outbound.keys()
    }
}

/// The bounds are repeated here so that the compiler reports a missing bound where the layer is
/// added.
impl<S, A> Layer<S> for InngestApiAuth<A>
where
    S: Clone + Send + 'static,
{
    type Service = InngestApiAuthService<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        InngestApiAuthService::new(inner, Arc::clone(&self.outbound))
    }
}
