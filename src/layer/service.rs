//! The Tower service, which takes one request from its headers to its response.

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

use super::policy::Policy;
use super::response;

/// The service that [`InngestAuth`](crate::InngestAuth) wraps around an inner service.
#[derive(Clone, Debug)]
pub struct InngestAuthService<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S> InngestAuthService<S> {
    pub(super) fn new(inner: S, policy: Arc<Policy>) -> Self {
        Self { inner, policy }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
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

    /// Returns ready at once. An unverified request must neither wait for the inner service nor
    /// occupy its readiness.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Error> {
        let future = respond(
            self.inner.clone(),
            Arc::clone(&self.policy),
            request.map(Body::new),
        );
        ResponseFuture(Box::pin(future))
    }
}

/// Handles one request in the steps listed on [`InngestAuth`](crate::InngestAuth).
///
/// This is a block and not an `async fn`, which would store its arguments twice.
#[expect(clippy::manual_async_fn, reason = "an `async fn` takes 256 bytes more")]
fn respond<S, R>(
    mut inner: S,
    policy: Arc<Policy>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, S::Error>>
where
    S: Service<Request<Body>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async move {
        // Steps 1 to 10.
        let admitted = match policy.admit(&mut request).await {
            Ok(admitted) => admitted,
            Err(rejected) => return Ok(policy.reject(rejected, &mut request).await),
        };
        let mut response = if admitted.is_trust_probe() {
            // Step 11.
            response::trust_probe()
        } else {
            // Step 12. The inner service is first used here, so unverified requests cannot occupy
            // its capacity.
            poll_fn(|cx| inner.poll_ready(cx)).await?;
            inner.call(request).await?.map(Body::new)
        };
        // Step 13.
        policy.finish(&mut response, &admitted).await;
        Ok(response)
    }
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use axum::Router;
    use axum::routing::any;
    use tower::Layer;

    use super::*;
    use crate::layer::InngestAuth;
    use crate::testing::TestClock;

    /// Unauthenticated clients can complete thousands of bodies at once. Genuine calls must not wait
    /// for all of them.
    #[test]
    fn one_large_body_is_canonicalized_at_a_time() {
        const NOW: u64 = 1_700_000_000;
        let key: crate::SigningKey = "signkey-test-12345678".parse().unwrap();
        let header = key.sign(b"something else", NOW).to_string();
        let service = InngestAuth::new(key)
            .clock(TestClock::at(NOW))
            .layer(Router::<()>::new());
        let policy = Arc::clone(&service.policy);
        let turn = policy.canonicalizing.try_acquire().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        for (len, waits) in [
            (511, false),
            (512, true),
            (64 * 1024, true),
            (64 * 1024 + 1, false),
        ] {
            let request = Request::post("/")
                .header(crate::SIGNATURE_HEADER, &header)
                .body(Body::from("0".repeat(len)))
                .unwrap();
            let mut future = service.clone().call(request);
            let response = Pin::new(&mut future).poll(&mut cx);
            assert_eq!(response.is_pending(), waits, "{len}");
            waiting.extend(waits.then_some(future));
        }
        drop(turn);
        // Their turns come in order, and each ends with its request.
        for mut future in waiting {
            assert!(
                Pin::new(&mut future).poll(&mut cx).is_pending(),
                "it lets others run first"
            );
            let Poll::Ready(response) = Pin::new(&mut future).poll(&mut cx) else {
                panic!("its turn has come");
            };
            assert_eq!(response.unwrap().status(), http::StatusCode::UNAUTHORIZED);
        }
        assert_eq!(policy.canonicalizing.available_permits(), 1);
    }

    /// Above 1,032 bytes the allocator's fast path is lost.
    #[test]
    fn the_future_around_a_route_is_small() {
        let key: crate::SigningKey = "signkey-test-12345678".parse().unwrap();
        let service = InngestAuth::new(key).layer(Router::<()>::new().fallback(any(|| async {})));
        let future = respond(service.inner, service.policy, Request::new(Body::empty()));
        let size = size_of_val(&future);
        assert!(size <= 1000, "{size} bytes");
    }

    /// A body that never comes.
    struct Never;

    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_are_dropped_before_a_rejected_body_is_drained() {
        let key: crate::SigningKey = "signkey-test-12345678".parse().unwrap();
        let service = InngestAuth::new(key).layer(Router::<()>::new());
        let request = Request::post("/").header("a", "b").body(Body::new(Never));
        let mut request = request.unwrap();
        let Err(rejected) = service.policy.admit(&mut request).await else {
            panic!("it has no signature");
        };
        let mut response = Box::pin(service.policy.reject(rejected, &mut request));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(response.as_mut().poll(&mut cx).is_pending());
        drop(response);
        assert!(request.headers().is_empty());
    }
}
