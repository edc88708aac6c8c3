//! One call to the API, from checking its URI to learning from its status.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::BoxError;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use thiserror::Error;
use tower_service::Service;

use super::bearer::{Bearer, Credentials};
use super::origin::Origin;
use crate::config::{ConfigError, Mode};
use crate::keyring::KeyRing;
use crate::sdk::SDK;

const ENVIRONMENT: HeaderName = HeaderName::from_static("x-inngest-env");
const SDK_HEADER: HeaderName = HeaderName::from_static("x-inngest-sdk");
const REQ_VERSION: HeaderName = HeaderName::from_static("x-inngest-req-version");
/// The prefix of the key that all branch environments of an account share.
const BRANCH_KEY: &str = "signkey-branch-";

/// The service that [`InngestApiAuth`](crate::InngestApiAuth) wraps around an HTTP client.
///
/// `A` says how often it sends a request: [`WithFallback`] or [`SingleAttempt`].
#[derive(Clone, Debug)]
pub struct InngestApiAuthService<S, A = WithFallback> {
    inner: S,
    outbound: Arc<Outbound>,
    attempts: PhantomData<A>,
}

/// Sends a request again with the other key if the API rejects the first key (the default).
#[derive(Clone, Copy, Debug)]
pub enum WithFallback {}

/// Sends a request only once. See [`single_attempt`](crate::InngestApiAuth::single_attempt).
#[derive(Clone, Copy, Debug)]
pub enum SingleAttempt {}

impl<S, A> InngestApiAuthService<S, A> {
    pub(super) fn new(inner: S, outbound: Arc<Outbound>) -> Self {
        Self {
            inner,
            outbound,
            attempts: PhantomData,
        }
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

/// The future of an [`InngestApiAuthService`]'s response.
pub struct ResponseFuture<R>(Pin<Box<dyn Future<Output = Outcome<R>> + Send>>);

type Outcome<R> = Result<Response<R>, ApiAuthError>;

impl<R> ResponseFuture<R> {
    fn new(future: impl Future<Output = Outcome<R>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<R> Future for ResponseFuture<R> {
    type Output = Outcome<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<R>> {
        self.0.as_mut().poll(cx)
    }
}

impl<R> fmt::Debug for ResponseFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for InngestApiAuthService<S, WithFallback>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Clone + Send + 'static,
    R: Send,
{
    type Response = Response<R>;
    type Error = ApiAuthError;
    type Future = ResponseFuture<R>;

    /// Returns ready at once. Only `call` knows whether and how often the client is needed, so
    /// `call` waits for it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (client, outbound) = (self.inner.clone(), Arc::clone(&self.outbound));
        ResponseFuture::new(async move {
            let Some(credentials) = outbound.prepare(&mut request)? else {
                return send(client, request).await;
            };
            let (first, second) = credentials.choose();
            let again = second.map(|second| (second, request.clone()));
            let response = send_with(&first, client.clone(), request).await?;
            if !is_rejected(&response) {
                return Ok(response);
            }
            let Some((second, request)) = again else {
                credentials.warn(&first, response.status());
                return Ok(response);
            };
            let rejected = response.status();
            // The caller never reads this body, and an unread body would occupy a connection.
            drop(response);
            let response = send_with(&second, client, request).await?;
            if is_rejected(&response) {
                credentials.warn(&second, response.status());
            } else {
                credentials.prefer(&second, rejected);
            }
            Ok(response)
        })
    }
}

impl<S, B, R> Service<Request<B>> for InngestApiAuthService<S, SingleAttempt>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Send,
{
    type Response = Response<R>;
    type Error = ApiAuthError;
    type Future = ResponseFuture<R>;

    /// Returns ready at once, because `call` waits for the client.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (client, outbound) = (self.inner.clone(), Arc::clone(&self.outbound));
        ResponseFuture::new(async move {
            let Some(credentials) = outbound.prepare(&mut request)? else {
                return send(client, request).await;
            };
            let (first, second) = credentials.choose();
            let response = send_with(&first, client, request).await?;
            if is_rejected(&response) {
                match second {
                    Some(second) => credentials.prefer(&second, response.status()),
                    None => credentials.warn(&first, response.status()),
                }
            }
            Ok(response)
        })
    }
}

/// The API's origin, and what is added to every request.
#[derive(Debug)]
pub(super) struct Outbound {
    mode: Mode<Credentials>,
    /// `None` only if the configuration cannot be used.
    api: Option<Origin>,
    environment: Option<HeaderValue>,
}

impl Outbound {
    pub(super) fn new(
        mode: Mode<Credentials>,
        api: Origin,
        environment: Option<HeaderValue>,
    ) -> Self {
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
            Mode::Cloud(credentials) => Some(credentials.ring()),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Checks the request's URI, and adds everything but the token. Returns the credentials to use,
    /// or `None` in dev mode.
    fn prepare<B>(&self, request: &mut Request<B>) -> Result<Option<&Credentials>, ApiAuthError> {
        let credentials = match &self.mode {
            Mode::Cloud(credentials) => Some(credentials),
            Mode::Dev { .. } => None,
            Mode::Unusable(error) => return Err(ApiAuthError::Unconfigured(*error)),
        };
        // Before everything else, so that neither a token nor a request leaves for another host.
        match (Origin::of(request.uri()), &self.api) {
            (Some(origin), Some(api)) if origin == *api => {}
            _ => return Err(ApiAuthError::WrongOrigin),
        }
        let headers = request.headers_mut();
        if let Some(environment) = &self.environment {
            headers
                .entry(ENVIRONMENT)
                .or_insert_with(|| environment.clone());
        }
        let is_branch_key =
            |keys: &Credentials| keys.ring().snapshot().current().prefix() == BRANCH_KEY;
        if !headers.contains_key(ENVIRONMENT) && credentials.is_some_and(is_branch_key) {
            return Err(ApiAuthError::MissingEnvironment);
        }
        headers
            .entry(SDK_HEADER)
            .or_insert(HeaderValue::from_static(SDK));
        headers
            .entry(REQ_VERSION)
            .or_insert(HeaderValue::from_static("2"));
        Ok(credentials)
    }
}

/// Sends the request with this token, and adds the role of its key to the response.
async fn send_with<S, B, R>(
    bearer: &Bearer,
    client: S,
    mut request: Request<B>,
) -> Result<Response<R>, ApiAuthError>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    request
        .headers_mut()
        .insert(AUTHORIZATION, bearer.value.clone());
    let mut response = send(client, request).await?;
    response.extensions_mut().insert(bearer.role);
    Ok(response)
}

/// Sends the request as soon as the client is ready.
async fn send<S, B, R>(mut client: S, request: Request<B>) -> Result<R, ApiAuthError>
where
    S: Service<Request<B>, Response = R>,
    S::Error: Into<BoxError>,
{
    let failed = |error: S::Error| ApiAuthError::Client(error.into());
    poll_fn(|cx| client.poll_ready(cx)).await.map_err(failed)?;
    client.call(request).await.map_err(failed)
}

/// Returns `true` if the status may mean that the API does not know the key.
fn is_rejected<R>(response: &Response<R>) -> bool {
    matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// An error returned when a call to the API has no response.
///
/// Except for [`Client`](Self::Client), nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApiAuthError {
    /// The URI is not absolute, or does not have the API's scheme, host and port.
    #[error(
        "request URI does not match the API's origin; request not sent (check \
        INNGEST_API_BASE_URL)"
    )]
    WrongOrigin,
    /// All branch environments share this key, and no environment was named.
    #[error("a branch key (signkey-branch-…) needs a branch environment: set INNGEST_ENV")]
    MissingEnvironment,
    /// The configuration cannot be used.
    #[error(transparent)]
    Unconfigured(ConfigError),
    /// The HTTP client failed, with this error of its own.
    #[error("the call to Inngest's API failed")]
    Client(#[source] BoxError),
}
