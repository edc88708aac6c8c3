//! What one client can use up, and what others notice of it: time, and the backlog.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use common::{CALL, NOW, Reply, Seen, ask, inngest, key};
use http_body::Frame;
use inngest_auth::{Caller, InngestAuth, Rejection, RejectionKind, SIGNATURE_HEADER, Verified};
use tokio::task::coop;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, ServiceExt};

fn kind_of(response: &Reply) -> Option<RejectionKind> {
    response.extensions.get::<Rejection>().map(Rejection::kind)
}

/// A body on a connection that always has bytes ready. In each poll it uses up the cooperative
/// budget of its task, as hyper does while it looks for the end of a chunk-size line. It yields a
/// byte once in the given number of polls; 0 means never.
struct Flood {
    every: u32,
    turns: u32,
}

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.turns += 1;
        if self.every > 0 && self.turns.is_multiple_of(self.every) {
            return Poll::Ready(Some(Ok(Frame::data("x".into()))));
        }
        while pin!(coop::consume_budget()).poll(cx).is_ready() {}
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_ended_although_no_timer_fires_during_it() {
    let it = inngest();
    let app = Seen::default().app(it.auth().body_deadline(Duration::from_secs(10)));
    let forged = key("signkey-test-00").sign(b"", NOW).to_string();
    let flood = |signature: Option<&str>, every| {
        let body = Body::new(Flood { every, turns: 0 });
        let mut request = Request::post(CALL);
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        request.body(body).unwrap()
    };
    for (what, request, kind, ended) in [
        // If bytes arrive, it has its deadline, or the time of a drain.
        (
            "a frame in each second turn",
            flood(Some(&forged), 2),
            RejectionKind::BodyTooSlow,
            10_000,
        ),
        (
            "the same, to be drained",
            flood(None, 2),
            RejectionKind::Missing,
            3_000,
        ),
        // If no bytes arrive, it is not a body.
        (
            "no frame",
            flood(Some(&forged), 0),
            RejectionKind::BodyTooSlow,
            500,
        ),
        (
            "no frame, to be drained",
            flood(None, 0),
            RejectionKind::Missing,
            500,
        ),
    ] {
        let began = tokio::time::Instant::now();
        let mut response = pin!(ask(&app, request));
        // A poll, and then 100 ms in which nothing else happens.
        let response = loop {
            if let Poll::Ready(response) = poll_once(response.as_mut()).await {
                break response;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{what}: it never ends"
            );
            tokio::time::advance(Duration::from_millis(100)).await;
        };
        assert_eq!(kind_of(&response), Some(kind), "{what}");
        assert_eq!(began.elapsed().as_millis(), ended, "{what}");
    }
}

/// Only a client that always has bytes ready is a flood.
#[tokio::test(start_paused = true)]
async fn a_slow_sender_has_all_of_its_deadline() {
    struct Slow(Option<Pin<Box<tokio::time::Sleep>>>);
    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(sleep) = &mut self.0 else {
                return Poll::Ready(None);
            };
            std::task::ready!(sleep.as_mut().poll(cx));
            self.0 = None;
            Poll::Ready(Some(Ok(Frame::data("{}".into()))))
        }
    }
    let it = inngest();
    let app = Seen::default().app(it.auth());
    for (seconds, status) in [(29, StatusCode::OK), (31, StatusCode::REQUEST_TIMEOUT)] {
        let sleep = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
        let request = it.call(CALL, "{}").map(|_| Body::new(Slow(Some(sleep))));
        assert_eq!(ask(&app, request).await.status, status, "{seconds} s");
    }
}

/// Holds for any inner layers: a queue that is not ready, or one that waits within a call.
#[tokio::test]
async fn verified_bodies_that_wait_for_the_handler_have_a_backlog_of_their_own() {
    for hides_readiness in [false, true] {
        let it = inngest();
        let limit = GlobalConcurrencyLimitLayer::new(1);
        let seen = Seen::default();
        // No budget for unverified bodies: a body in one frame needs none.
        let auth = it.auth().body_budget(0).verified_backlog(250_000);
        let app = if hides_readiness {
            seen.unguarded().layer(limit.clone()).layer(auth)
        } else {
            seen.unguarded().layer((auth, limit.clone()))
        };
        // The only permit is taken.
        let mut holder = limit.layer(tower::service_fn(|()| async { Ok::<_, Infallible>(()) }));
        holder.ready().await.unwrap();
        let call = |len| it.call(CALL, "x".repeat(len));
        // Calls that wait for the permit.
        let mut waiting = Vec::new();
        let mut begin = async |len| {
            let (app, request) = (app.clone(), call(len));
            let mut response = Box::pin(async move { ask(&app, request).await });
            assert!(poll_once(response.as_mut()).await.is_pending());
            waiting.push(response);
        };
        begin(100_000).await;
        begin(100_000).await;
        // The backlog is full: the next call is rejected at once, and its connection can be reused.
        let Poll::Ready(turned_away) = poll_once(pin!(ask(&app, call(100_000)))).await else {
            panic!("it waits");
        };
        assert_eq!(turned_away.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(kind_of(&turned_away), Some(RejectionKind::BacklogFull));
        assert_eq!(turned_away.header("connection"), None);
        assert_eq!(turned_away.header("retry-after"), None);
        // Small bodies, and bodies that do not wait for the handler, are not rejected.
        begin(60_000).await;
        let probe = ask(&app, it.call("/?probe=trust", "x".repeat(100_000))).await;
        assert_eq!(probe.status, StatusCode::OK);
        // A client that vanishes frees its place.
        drop(waiting.remove(0));
        let (other, request) = (app.clone(), call(100_000));
        let mut last = pin!(ask(&other, request));
        assert!(poll_once(last.as_mut()).await.is_pending());
        assert_eq!(seen.count(), 0);
        drop(holder);
        for response in waiting {
            assert_eq!(response.await.status, StatusCode::OK);
        }
        assert_eq!(last.await.status, StatusCode::OK);
        // So does a body that was read, before its handler is done.
        assert_eq!(ask(&app, call(250_000)).await.status, StatusCode::OK);
        assert_eq!(seen.count(), 4);
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// The response carries the mark of another request, which was verified.
#[tokio::test]
async fn a_handler_cannot_mark_a_response_as_verified() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    let foreign = *ask(&app, it.call(CALL, ""))
        .await
        .extensions
        .get::<Verified>()
        .unwrap();
    let stamped = move || {
        axum::Router::new().fallback(move || async move {
            let mut response = axum::response::Response::new(Body::empty());
            response.extensions_mut().insert(foreign);
            response.extensions_mut().insert(Caller::Verified(foreign));
            response
        })
    };
    let unsigned_sync = Request::put("/").body(Body::empty()).unwrap();
    for (auth, request, caller) in [
        (
            InngestAuth::insecure_unverified_dev(),
            it.unsigned(CALL, ""),
            Caller::Dev,
        ),
        (
            it.auth().insecure_unsigned_sync(true),
            unsigned_sync,
            Caller::UnsignedSync,
        ),
    ] {
        let response = ask(&stamped().layer(auth), request).await;
        assert_eq!(response.extensions.get::<Verified>(), None, "{caller:?}");
        assert_eq!(response.extensions.get::<Caller>(), Some(&caller));
    }
    // A rejected request is not marked as verified either, whatever a closure or a handler does.
    let closure = it.auth().on_rejection(move |_, mut response| {
        response.extensions_mut().insert(foreign);
        response.extensions_mut().insert(Caller::Verified(foreign));
        response
    });
    let rejected = ask(&stamped().layer(closure), it.unsigned(CALL, "")).await;
    let rejection = rejected.extensions.get::<Rejection>().unwrap().clone();
    assert_eq!(rejected.extensions.get::<Verified>(), None);
    assert_eq!(rejected.extensions.get::<Caller>(), None);
    let both = axum::Router::new().fallback(move || async move {
        let mut response = axum::response::Response::new(Body::empty());
        response.extensions_mut().insert(foreign);
        response.extensions_mut().insert(Caller::Verified(foreign));
        response.extensions_mut().insert(rejection);
        response
    });
    let response = ask(&both.layer(it.auth()), it.call(CALL, "")).await;
    assert_eq!(response.extensions.get::<Verified>(), None);
    assert_eq!(response.extensions.get::<Caller>(), None);
}
