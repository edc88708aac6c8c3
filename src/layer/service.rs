//! The Tower service.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::BoxError;
use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use super::policy::Guard;

/// The service that [`InngestAuth`](crate::InngestAuth) makes of an inner one.
#[derive(Clone, Debug)]
pub struct InngestAuthService<S> {
    inner: S,
    guard: Arc<Guard>,
}

impl<S> InngestAuthService<S> {
    pub(super) fn new(inner: S, guard: Arc<Guard>) -> Self {
        Self { inner, guard }
    }
}

impl<S, B, R> Service<Request<B>> for InngestAuthService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R>;

    /// Always ready: strangers wait for nothing of the inner service, and hold nothing of it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S, B, R> {
        ResponseFuture::new(self.inner.clone(), Arc::clone(&self.guard), request)
    }
}
