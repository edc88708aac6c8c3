//! One call to the API: with the current key, and once more with the fallback.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use thiserror::Error;
use tower_service::Service;

use super::bearers;
use super::layer::{Origin, Outbound, Stance};
use crate::config::ConfigError;
use crate::keyring::KeyRing;
use crate::keyring::KeyRole;

const ENVIRONMENT: HeaderName = HeaderName::from_static("x-inngest-env");
/// Prefix of the key that all branch environments of an account share.
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

    /// Always ready: which requests reach the client, and how often, is known only when they are there.
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

/// A request, and the tokens to try on it. None in dev mode.
struct Prepared<B> {
    request: Request<B>,
    tokens: Vec<(KeyRole, HeaderValue)>,
}

impl Outbound {
    fn prepare<B, E>(&self, mut request: Request<B>) -> Result<Prepared<B>, ApiAuthError<E>> {
        let (keys, api) = match &self.stance {
            Stance::Authenticate { keys, api } => (Some(keys), api),
            Stance::Dev { api } => (None, api),
            Stance::Refuse(error) => return Err(ApiAuthError::Unconfigured(*error)),
        };
        if Origin::of(request.uri()).as_ref() != Some(api) {
            return Err(ApiAuthError::NotTheApi);
        }
        let keys = keys.map(KeyRing::snapshot);
        let named = request.headers().contains_key(ENVIRONMENT);
        match (&self.environment, &keys) {
            (Some(name), _) if !named => {
                request.headers_mut().insert(ENVIRONMENT, name.clone());
            }
            (None, Some(keys)) if !named && keys.current().prefix() == BRANCH_KEY => {
                return Err(ApiAuthError::NoEnvironment);
            }
            _ => {}
        }
        let tokens = keys.map_or_else(Vec::new, |keys| bearers(&keys));
        Ok(Prepared { request, tokens })
    }
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
        tracing::info!(status = %response.status(), "the API refused the current key: once more, with the fallback");
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

/// Why a call to the API did not come to an answer. `E` is the client's own error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApiAuthError<E> {
    /// The URI is not absolute, or not the API's scheme, host and port. Nothing was sent.
    #[error("the request's URI is not Inngest's API: the token stays here (is INNGEST_API_BASE_URL right?)")]
    NotTheApi,
    /// All branch environments share this key, and none is named. Nothing was sent.
    #[error("a branch key (signkey-branch-…) needs a branch environment's name: set INNGEST_ENV")]
    NoEnvironment,
    /// The environment cannot be used. Nothing was sent.
    #[error(transparent)]
    Unconfigured(ConfigError),
    /// The client's error.
    #[error("the call to Inngest's API failed")]
    Client(#[source] E),
}
