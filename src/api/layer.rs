//! The layer, which is its own builder.

use std::sync::Arc;

use http::HeaderValue;
use tower_layer::Layer;

use super::origin::{ApiBaseError, Origin};
use super::service::{InngestApiAuthService, Outbound};
use crate::config::{Config, ConfigError, Mode};
use crate::keyring::KeyRing;

/// A layer that authenticates an HTTP client's calls to Inngest's API. See the
/// [module's page](crate::api) for the rules.
///
/// Build it and [`InngestAuth`](crate::InngestAuth) from one [`Config`], or from clones of one
/// [`KeyRing`], so that both follow a rotation: each `from_env()` makes a ring of its own.
#[derive(Clone, Debug)]
#[must_use]
pub struct InngestApiAuth(Arc<Outbound>);

impl InngestApiAuth {
    /// Creates the layer from the environment ([`Config`] lists the variables).
    ///
    /// This never fails: if the environment cannot be used, an ERROR is logged that says what to
    /// set, and every call fails with [`ApiAuthError::Unconfigured`](crate::ApiAuthError).
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| {
            tracing::error!("cannot authenticate calls to Inngest's API: {error}");
            Self::with(Outbound::unusable(error))
        })
    }

    /// Creates the layer from the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to set.
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| Self::from_config(&config))
    }

    /// Creates the layer from a configuration, whose [`KeyRing`] it shares.
    ///
    /// # Panics
    ///
    /// Never: a `Config` accepts only base URLs that this crate can read.
    pub fn from_config(config: &Config) -> Self {
        Self::checked(config).unwrap_or_else(|error| {
            tracing::error!("no call to Inngest's API can be authenticated: {error}");
            Self::with(Outbound::unusable(error))
        })
    }

    fn checked(config: &Config) -> Result<Self, ConfigError> {
        let (base, environment) = (config.api_base()?, config.environment()?);
        let api = Origin::parse(base).expect("`Config` accepts only such URLs");
        let environment = environment
            .map(|name| HeaderValue::from_bytes(name.as_bytes()).expect("`Config` accepts no control characters"));
        Ok(Self::with(Outbound::new(config.mode().clone(), api, environment)))
    }

    /// Creates the layer with these keys, for the API at `api_base`, like
    /// `https://api.inngest.com`. The environment is not read.
    ///
    /// Give it a clone of a [`KeyRing`] to share the keys with
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
    /// its own environment in `X-Inngest-Env`.
    ///
    /// # Errors
    ///
    /// [`ApiBaseError`] says what is wrong with the URL.
    pub fn new(keys: impl Into<KeyRing>, api_base: &str) -> Result<Self, ApiBaseError> {
        let api = Origin::parse(api_base)?;
        Ok(Self::with(Outbound::new(Mode::Cloud(keys.into()), api, None)))
    }

    fn with(outbound: Outbound) -> Self {
        Self(Arc::new(outbound))
    }

    /// Returns the ring whose keys the API is called with, or `None` in dev mode and if the
    /// configuration cannot be used.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        self.0.keys()
    }
}

impl<S> Layer<S> for InngestApiAuth {
    type Service = InngestApiAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InngestApiAuthService::new(inner, Arc::clone(&self.0))
    }
}
