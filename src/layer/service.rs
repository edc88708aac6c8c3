//! The Tower service: one request, from its headers to its response.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::BoxError;
use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::policy::{Admission, Policy};
use super::response;

/// The service that [`InngestAuth`](crate::InngestAuth) wraps around an inner one.
#[derive(Clone, Debug)]
pub struct InngestAuthService<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S> InngestAuthService<S> {
    pub(super) fn new(inner: S, policy: Arc<Policy>) -> Self {
        Self { inner, policy }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, R> Service<Request<B>> for InngestAuthService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Error>;

    /// Always ready: a stranger waits for nothing of the inner service, and holds nothing of it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Error> {
        let inner = self.inner.clone();
        let policy = Arc::clone(&self.policy);
        ResponseFuture(Box::pin(respond(inner, policy, request.map(Body::new))))
    }
}

/// Handles one request. The numbers are those of the [layer's page](crate::InngestAuth).
async fn respond<S, R>(
    mut inner: S,
    policy: Arc<Policy>,
    mut request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    // Steps 1 to 11.
    let (admitted, mut response) = match policy.admit(&mut request).await {
        Admission::Forward(admitted) => {
            // Step 12: only now does the inner service exist for this request.
            match policy.wait(&admitted, poll_fn(|cx| inner.poll_ready(cx))).await {
                Ok(ready) => ready?,
                Err(response) => return Ok(response),
            }
            (admitted, inner.call(request).await?.map(Body::new))
        }
        Admission::TrustProbe(admitted) => (admitted, response::trust_probe()),
        Admission::Reject(response) => return Ok(response),
    };
    // Step 13.
    policy.finish(&mut response, admitted).await;
    Ok(response)
}

/// The future of an [`InngestAuthService`]'s response.
pub struct ResponseFuture<E>(Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>);

impl<E> Future for ResponseFuture<E> {
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<E> fmt::Debug for ResponseFuture<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
