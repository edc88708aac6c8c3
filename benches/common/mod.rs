//! What the benches share: keys, a real call, and the services that the layer is compared with.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod alloc;
pub(crate) mod timing;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue, Request, Response};
use axum::routing::any;
use hmac::{Hmac, KeyInit, Mac};
use inngest_auth::testing::TestClock;
use inngest_auth::{
    InngestAuth, Keys, SIGNATURE_HEADER, Signature, SigningKey, Tolerance, Verified, verify,
};
use sha2::Sha256;
use tower::{Layer, Service};

/// The time of every clock, in Unix seconds.
pub(crate) const NOW: u64 = 1_700_000_000;
const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);
pub(crate) const CURRENT: &str = "signkey-test-12345678";
pub(crate) const FALLBACK: &str = "signkey-test-87654321";

pub(crate) fn key(text: &str) -> SigningKey {
    text.parse().expect("a key")
}

pub(crate) fn keys() -> Keys {
    Keys::new(key(CURRENT), Some(key(FALLBACK)))
}

/// Returns the layer with its default settings, and a clock at [`NOW`].
pub(crate) fn auth() -> InngestAuth {
    InngestAuth::new(keys()).clock(TestClock::at(NOW))
}

/// Returns a real call of 1 KB without its signature, and its body.
pub(crate) fn captured_call() -> (Request<()>, Bytes) {
    let line = include_str!("../../tests/vectors/server_requests.jsonl")
        .lines()
        .find(|line| line.contains("\"calls_old-9\""));
    let call: serde_json::Value = serde_json::from_str(line.expect("the request")).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut request = Request::post(text(&call["target"]))
        .body(())
        .expect("a request");
    for header in call["headers"].as_array().expect("headers") {
        let name: HeaderName = text(&header[0]).parse().expect("a name");
        let value = text(&header[1]).parse().expect("a value");
        request.headers_mut().insert(name, value);
    }
    request.headers_mut().remove(SIGNATURE_HEADER);
    (request, Bytes::from(text(&call["body"])))
}

/// Returns the head of a call as Axum hands it on, with `signature` and the length of its body.
pub(crate) fn head(signature: &str, len: usize) -> Request<()> {
    let (mut request, _) = captured_call();
    let signature = signature.parse().expect("a value");
    request.headers_mut().insert(SIGNATURE_HEADER, signature);
    request.headers_mut().insert(CONTENT_LENGTH, len.into());
    // Axum always puts something there.
    request.extensions_mut().insert(());
    request
}

/// Returns `len` bytes of what could be JSON.
pub(crate) fn filled(len: usize) -> Bytes {
    (0..len)
        .map(|at| b"{\"key\": 0123456789}"[at % 19])
        .collect()
}

/// Returns the key state of [`CURRENT`], ready to be cloned.
pub(crate) fn ready_hmac() -> Hmac<Sha256> {
    Hmac::new_from_slice(b"12345678").expect("any key")
}

/// Computes the MAC of a body from a ready key state, which is the least that verifying costs.
pub(crate) fn bare_hmac(ready: &Hmac<Sha256>, body: &[u8]) {
    let mut mac = ready.clone();
    mac.update(black_box(body));
    mac.update(b"1700000000");
    black_box(mac.finalize().into_bytes());
}

/// Runs a future that is ready at once.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
}

/// The service behind the layer: drops its request and responds with what it was given.
#[derive(Clone)]
pub(crate) struct Bare(pub(crate) Bytes);

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(Body::from(self.0.clone()))))
    }
}

/// Returns an Axum route that reads its body and responds with `response`.
pub(crate) fn route(response: Bytes) -> Router<()> {
    let handler = move |body: Bytes| async move {
        drop(body);
        response
    };
    Router::new().route("/api/inngest", any(handler))
}

/// A layer that does nothing.
#[derive(Clone, Copy)]
pub(crate) struct NoOpLayer;

impl<S> Layer<S> for NoOpLayer {
    type Service = NoOp<S>;

    fn layer(&self, inner: S) -> NoOp<S> {
        NoOp(inner)
    }
}

#[derive(Clone)]
pub(crate) struct NoOp<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for NoOp<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}

/// The floor: what every layer with the same contract must do for a genuine call that arrives in
/// one frame, and nothing else. It parses, verifies, leaves the same marks, and signs if told to.
#[derive(Clone)]
pub(crate) struct MinimalLayer {
    pub(crate) sign: bool,
}

impl<S> Layer<S> for MinimalLayer {
    type Service = Minimal<S>;

    fn layer(&self, inner: S) -> Minimal<S> {
        Minimal {
            inner,
            keys: Arc::new(keys()),
            sign: self.sign,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Minimal<S> {
    inner: S,
    keys: Arc<Keys>,
    sign: bool,
}

/// Stands for the layer's `Caller`, which only the layer can make.
#[derive(Clone)]
struct Mark(#[expect(dead_code, reason = "a mark is only as large as the layer's")] Verified);

impl<S, R> Service<Request<Body>> for Minimal<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    R: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let keys = Arc::clone(&self.keys);
        let sign = self.sign;
        Box::pin(async move {
            let header = &request.headers()[SIGNATURE];
            let signature = Signature::parse(header.as_bytes()).expect("grammatical");
            let body = only_frame(request.body_mut()).await;
            let verified = verify(&body, &signature, &keys, NOW, Tolerance::default())
                .expect("genuine")
                .verified();
            *request.body_mut() = Body::from(body);
            DefaultBodyLimit::disable().apply(&mut request);
            request.extensions_mut().insert(Mark(verified));
            request.extensions_mut().insert(verified);
            let mut response = inner.call(request).await?.map(Body::new);
            response.extensions_mut().insert(Mark(verified));
            response.extensions_mut().insert(verified);
            if sign {
                let body = only_frame(response.body_mut()).await;
                let signature = keys.current().sign(&body, signature.signed_at());
                let value = HeaderValue::from_str(&signature.to_string()).expect("ASCII");
                response.headers_mut().insert(SIGNATURE, value);
                *response.body_mut() = Body::from(body);
            }
            Ok(response)
        })
    }
}

async fn only_frame(body: &mut Body) -> Bytes {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    let frame = frame.expect("a frame").expect("infallible");
    frame.into_data().expect("data")
}
