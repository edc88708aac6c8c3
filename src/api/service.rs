//! One call to the API: with the current key, and once more with the fallback.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use thiserror::Error;
use tower_service::Service;

use super::bearer::bearers;
use super::origin::Origin;
use crate::config::{ConfigError, Mode};
use crate::keyring::{KeyRing, KeyRole};

const ENVIRONMENT: HeaderName = HeaderName::from_static("x-inngest-env");
/// The prefix of the key that all branch environments of an account share.
const BRANCH_KEY: &str = "signkey-branch-";

/// The service that [`InngestApiAuth`](crate::InngestApiAuth) makes of an HTTP client.
#[derive(Clone, Debug)]
pub struct InngestApiAuthService<S> {
    inner: S,
    outbound: Arc<Outbound>,
}

impl<S> InngestApiAuthService<S> {
    pub(super) fn new(inner: S, outbound: Arc<Outbound>) -> Self {
        Self { inner, outbound }
    }

    /// Returns a reference to the HTTP client.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the HTTP client.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the HTTP client.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for InngestApiAuthService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Clone + Send + 'static,
    R: Send,
{
    type Response = Response<R>;
    type Error = ApiAuthError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, Self::Error>> + Send>>;

    /// Always ready: how many requests the client gets is known only in `call`, which waits for it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let outbound = Arc::clone(&self.outbound);
        Box::pin(async move {
            let prepared = outbound.prepare(request)?;
            send(inner, prepared).await
        })
    }
}

/// What every call is authenticated by.
#[derive(Debug)]
pub(super) struct Outbound {
    /// An error if the configuration cannot be used: then every call fails.
    mode: Mode,
    /// `None` only with such an error.
    api: Option<Origin>,
    environment: Option<HeaderValue>,
}

impl Outbound {
    pub(super) fn new(mode: Mode, api: Origin, environment: Option<HeaderValue>) -> Self {
        if matches!(mode, Mode::Cloud(_)) && api.is_exposed() {
            tracing::warn!(%api, "the API token crosses the network over plain http; use https");
        }
        Self {
            mode,
            api: Some(api),
            environment,
        }
    }

    pub(super) fn unusable(error: ConfigError) -> Self {
        Self {
            mode: Mode::Unusable(error),
            api: None,
            environment: None,
        }
    }

    pub(super) fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Cloud(keys) => Some(keys),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    fn prepare<B, E>(&self, mut request: Request<B>) -> Result<Prepared<B>, ApiAuthError<E>> {
        if let Mode::Unusable(error) = &self.mode {
            return Err(ApiAuthError::Unconfigured(*error));
        }
        let origin = Origin::of(request.uri());
        if origin.is_none() || origin != self.api {
            return Err(ApiAuthError::WrongOrigin);
        }
        let keys = self.keys().map(KeyRing::snapshot);
        let named = request.headers().contains_key(ENVIRONMENT);
        match (&self.environment, &keys) {
            (Some(name), _) if !named => {
                request.headers_mut().insert(ENVIRONMENT, name.clone());
            }
            (None, Some(keys)) if !named && keys.current().prefix() == BRANCH_KEY => {
                return Err(ApiAuthError::MissingEnvironment);
            }
            _ => {}
        }
        let tokens = keys.map_or_else(Vec::new, |keys| bearers(&keys));
        Ok(Prepared { request, tokens })
    }
}

/// A request, and the tokens to try on it. None in dev mode.
struct Prepared<B> {
    request: Request<B>,
    tokens: Vec<(KeyRole, HeaderValue)>,
}

async fn send<S, B, R>(inner: S, prepared: Prepared<B>) -> Result<Response<R>, ApiAuthError<S::Error>>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Clone,
{
    let Prepared { mut request, tokens } = prepared;
    let mut tokens = tokens.into_iter().peekable();
    while let Some((role, token)) = tokens.next() {
        request.headers_mut().insert(AUTHORIZATION, token);
        if tokens.peek().is_none() {
            let mut response = ask(inner, request).await?;
            response.extensions_mut().insert(role);
            return Ok(response);
        }
        let mut response = ask(inner.clone(), request.clone()).await?;
        if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            response.extensions_mut().insert(role);
            return Ok(response);
        }
        tracing::info!(status = %response.status(), "Inngest's API rejected the current key; retrying with the fallback");
    }
    ask(inner, request).await
}

/// Once, when the client is ready for it.
async fn ask<S, B>(mut client: S, request: Request<B>) -> Result<S::Response, ApiAuthError<S::Error>>
where
    S: Service<Request<B>>,
{
    poll_fn(|cx| client.poll_ready(cx))
        .await
        .map_err(ApiAuthError::Client)?;
    client.call(request).await.map_err(ApiAuthError::Client)
}

/// An error returned when a call to the API has no response. `E` is the HTTP client's own error.
///
/// Unless it is [`Client`](Self::Client), nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApiAuthError<E> {
    /// The URI is not absolute, or does not have the API's scheme, host and port.
    #[error("request URI is not on the API's origin; nothing sent (check INNGEST_API_BASE_URL)")]
    WrongOrigin,
    /// All branch environments share this key, and none is named.
    #[error("a branch key (signkey-branch-…) needs a branch environment: set INNGEST_ENV")]
    MissingEnvironment,
    /// The configuration cannot be used.
    #[error(transparent)]
    Unconfigured(ConfigError),
    /// The HTTP client's error.
    #[error("the call to Inngest's API failed")]
    Client(#[source] E),
}
