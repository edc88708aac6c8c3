//! Functions whose instructions `run` counts, and takes from each other so that SHA-256 cancels out.
//!
//! Each is run a few times before it is counted: what happens once in a process is no cost of a call.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, Request, Response};
use axum::routing::any;
use gungraun::{library_benchmark, library_benchmark_group, main};
use hmac::{Hmac, KeyInit, Mac};
use inngest_auth::testing::TestClock;
use inngest_auth::{
    InngestAuth, Keys, SIGNATURE_HEADER, SignResponses, Signature, SigningKey, Tolerance, verify,
};
use sha2::Sha256;
use tower::{Layer, Service};

const NOW: u64 = 1_700_000_000;

fn key(text: &str) -> SigningKey {
    text.parse().expect("a key")
}

fn keys() -> Keys {
    Keys::new(
        key("signkey-test-12345678"),
        Some(key("signkey-test-87654321")),
    )
}

fn auth() -> InngestAuth {
    InngestAuth::new(keys()).clock(TestClock::at(NOW))
}

/// A real call, signed anew.
fn call(at: u64) -> Request<Body> {
    let line = include_str!("../../../tests/vectors/server_requests.jsonl")
        .lines()
        .find(|line| line.contains("\"calls_old-9\""));
    let call: serde_json::Value = serde_json::from_str(line.expect("the request")).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let body = text(&call["body"]);
    let signature = keys().current().sign(body.as_bytes(), at).to_string();
    let mut request = Request::post(text(&call["target"]))
        .body(Body::from(body))
        .expect("a request");
    for header in call["headers"].as_array().expect("headers") {
        let name: HeaderName = text(&header[0]).parse().expect("a name");
        request
            .headers_mut()
            .insert(name, text(&header[1]).parse().expect("a value"));
    }
    request
        .headers_mut()
        .insert(SIGNATURE_HEADER, signature.parse().expect("a value"));
    // As Axum hands a call on: something is in there already.
    request.extensions_mut().insert(());
    request
}

fn body() -> Bytes {
    let mut body = pin!(call(NOW).into_body());
    let mut cx = Context::from_waker(Waker::noop());
    match axum::body::HttpBody::poll_frame(body.as_mut(), &mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("data"),
        _ => unreachable!("it is there at once, in one piece"),
    }
}

/// Everything here is ready at once.
fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("nothing is waited for"),
    }
}

/// Drops its request, answers with what it was given.
#[derive(Clone)]
struct Bare(Bytes);

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

fn route() -> Router {
    let answer = body();
    let handler = move |body: Bytes| async move {
        drop(body);
        answer
    };
    Router::new().route("/api/inngest", any(handler))
}

/// A service that has answered before, and the next call, as of `at`.
fn warm<S>(mut service: S, at: u64, status: u16) -> (S, Request<Body>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    for _ in 0..3 {
        let response = run(service.call(call(at))).expect("infallible");
        assert_eq!(response.status(), status);
    }
    (service, call(at))
}

fn ready_hmac() -> (Hmac<Sha256>, Bytes) {
    (Hmac::new_from_slice(b"12345678").expect("any key"), body())
}

#[library_benchmark]
#[bench::call(ready_hmac())]
fn bare_hmac((ready, body): (Hmac<Sha256>, Bytes)) -> (Hmac<Sha256>, Bytes) {
    let mut mac = ready.clone();
    mac.update(black_box(&body));
    mac.update(b"1700000000");
    black_box(mac.finalize().into_bytes());
    (ready, body)
}

fn ready_verify() -> (String, Keys, Bytes) {
    let body = body();
    (keys().current().sign(&body, NOW).to_string(), keys(), body)
}

#[library_benchmark]
#[bench::call(ready_verify())]
fn parse_and_verify((header, keys, body): (String, Keys, Bytes)) -> (String, Keys, Bytes) {
    let signature: Signature = black_box(&*header).parse().expect("grammatical");
    black_box(verify(&body, &signature, &keys, NOW, Tolerance::default()).expect("genuine"));
    (header, keys, body)
}

#[library_benchmark]
#[bench::bare(warm(Bare(body()), NOW, 200))]
#[bench::unsigned(warm(auth().sign_responses(SignResponses::Never).layer(Bare(body())), NOW, 200))]
#[bench::signed(warm(auth().sign_responses(SignResponses::All).layer(Bare(body())), NOW, 200))]
#[bench::refused(warm(auth().layer(Bare(body())), NOW - 301, 401))]
#[bench::route(warm(route(), NOW, 200))]
#[bench::route_signed(warm(route().layer(auth().sign_responses(SignResponses::All)), NOW, 200))]
fn serve<S>((mut service, request): (S, Request<Body>)) -> S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    drop(black_box(run(service.call(request))));
    service
}

library_benchmark_group!(
    name = calls,
    benchmarks = [bare_hmac, parse_and_verify, serve]
);

main!(library_benchmark_groups = calls);
