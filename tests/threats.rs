//! What unauthenticated clients can try, each threat by its name.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode, Version};
use axum::routing::any;
use common::{CALL, NOW, Seen, ask, head, hear, inngest, key, say, send, serve};
use http_body::Frame;
use http_body_util::Full;
use inngest_auth::testing::TestClock;
use inngest_auth::{
    InngestAuth, Rejection, RejectionKind, SIGNATURE_HEADER, SignResponses, Signature, Tolerance,
    verify,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceExt, service_fn};

fn kind_of(response: &common::Reply) -> Option<RejectionKind> {
    response.extensions.get::<Rejection>().map(Rejection::kind)
}

/// A body that counts how often it is polled, and yields what the closure returns.
struct Asked<F>(Arc<AtomicUsize>, F);

impl<F: FnMut(usize, &mut Context<'_>) -> Poll<Option<Bytes>> + Unpin> http_body::Body
    for Asked<F>
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let asked = self.0.fetch_add(1, Ordering::SeqCst);
        self.1(asked, cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn asked<F>(next: F) -> (Arc<AtomicUsize>, Body)
where
    F: FnMut(usize, &mut Context<'_>) -> Poll<Option<Bytes>> + Unpin + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    (Arc::clone(&count), Body::new(Asked(count, next)))
}

/// Returns a request signed now over another body: everything but the MAC is right.
fn forged(body: Body) -> Request<Body> {
    let header = key("signkey-test-00")
        .sign(b"something else", NOW)
        .to_string();
    Request::post(CALL)
        .header(SIGNATURE_HEADER, header)
        .body(body)
        .unwrap()
}

#[test]
fn digits_moved_between_body_and_time_are_rejected() {
    let key = key("signkey-test-12345678");
    let signature = key.sign(b"{\"n\":1", NOW);
    let mac = signature
        .to_string()
        .split_once("&s=")
        .unwrap()
        .1
        .to_owned();
    let keys = key.into();
    let check = |body: &[u8], time: &str, now: u64| {
        let signature = Signature::parse(format!("t={time}&s={mac}").as_bytes()).ok()?;
        verify(body, &signature, &keys, now, Tolerance::default())
            .ok()
            .map(drop)
    };
    assert!(check(b"{\"n\":1", "1700000000", NOW).is_some());
    // The same signed bytes, divided differently between body and time.
    for (body, time) in [
        ("{\"n\":", "11700000000"),
        ("{\"n\":11", "700000000"),
        ("{\"n\":117", "00000000"),
    ] {
        for now in [NOW, time.parse().unwrap()] {
            assert!(check(body.as_bytes(), time, now).is_none(), "{body} {time}");
        }
    }
}

#[tokio::test]
async fn a_dribbling_client_does_not_delay_a_genuine_call() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen
        .unguarded()
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(it.auth());
    let server = serve(app).await;
    let header = key("signkey-test-00").sign(b"", NOW).to_string();
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(server).await.unwrap();
        let head = head(
            "POST",
            &[(SIGNATURE_HEADER, &header), ("Content-Length", "1000")],
        );
        socket.write_all(&head).await.unwrap();
        socket.write_all(b"dribble").await.unwrap();
        strangers.push(socket);
    }
    for _ in 0..5 {
        let request = it.call(CALL, "{}").map(|_| Full::from("{}"));
        assert_eq!(send(server, request).await.status, StatusCode::OK);
    }
    assert_eq!(seen.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_holds_no_permit_of_the_inner_service() {
    let it = inngest();
    let handler = |_: Request<Body>| ready(Ok::<_, Infallible>(Response::<Body>::default()));
    let inner = ConcurrencyLimitLayer::new(1).layer(service_fn(handler));
    let mut service = it.auth().layer(inner);
    let (count, stalled) = asked(|_, _| Poll::Pending);
    tokio::spawn(service.call(forged(stalled)));
    while count.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let genuine = service.call(it.call(CALL, "{}"));
    let response = timeout(Duration::from_secs(1), genuine).await;
    let response = response.expect("it has the permit").unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Panics if it is called without having reported that it is ready.
#[derive(Default)]
struct Probe(AtomicBool);

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<B> Service<Request<B>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.0.swap(true, Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(self.0.swap(false, Ordering::SeqCst), "called unready");
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn readiness_of_the_inner_service_is_honoured() {
    let it = inngest();
    for auth in [it.auth(), InngestAuth::insecure_unverified_dev()] {
        let mut service = auth.layer(Probe::default());
        for _ in 0..3 {
            let response = ServiceExt::<Request<Body>>::ready(&mut service)
                .await
                .unwrap()
                .call(it.call(CALL, "{}"));
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_rejected_before_it_sends() {
    let it = inngest();
    let (count, body) = asked(|_, _| Poll::Pending);
    let mut request = it.unsigned(CALL, "").map(|_| body);
    request
        .headers_mut()
        .insert("expect", "100-Continue".parse().unwrap());
    let response = ask(&Seen::default().app(it.auth()), request).await;
    assert_eq!(
        (response.status, response.header("connection")),
        (StatusCode::UNAUTHORIZED, Some("close"))
    );
    assert_eq!(count.load(Ordering::SeqCst), 0, "the body was polled");

    let server = serve(Seen::default().app(it.auth())).await;
    let waiting = head(
        "POST",
        &[("Expect", "100-continue"), ("Content-Length", "3000000")],
    );
    let heard = say(server, &waiting).await;
    assert!(
        heard.starts_with("HTTP/1.1 401 ") && !heard.contains("100 Continue"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_client_still_writing_3_9_mb_sees_its_rejection() {
    let server = serve(Seen::default().app(inngest().auth())).await;
    for length in [
        ("Content-Length", "3901000"),
        ("Transfer-Encoding", "chunked"),
    ] {
        let mut socket = TcpStream::connect(server).await.unwrap();
        socket.write_all(&head("POST", &[length])).await.unwrap();
        let body = vec![b'x'; 3_901_000];
        if length.0 == "Content-Length" {
            socket.write_all(&body).await.unwrap();
        } else {
            socket.write_all(b"3b8648\r\n").await.unwrap();
            socket.write_all(&body).await.unwrap();
            socket.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        }
        // Its body was read whole, so the connection can be reused.
        socket
            .write_all(&head("GET", &[("Connection", "close")]))
            .await
            .unwrap();
        let heard = hear(&mut socket).await;
        assert_eq!(heard.matches("HTTP/1.1 401 ").count(), 2, "{heard}");
    }
}

/// On HTTP/2 a header that was sent before takes one byte on the wire.
#[tokio::test]
async fn more_than_64_headers_count_in_the_memory_budget() {
    let it = inngest();
    for (headers, budget, kind) in [
        (64, 1, RejectionKind::WrongSignature),
        (65, 65 * 128, RejectionKind::WrongSignature),
        (65, 65 * 128 - 1, RejectionKind::OverBudget),
    ] {
        let app = Seen::default().app(it.auth().body_budget(budget));
        let mut request = forged(Body::from("{}"));
        while request.headers().len() < headers {
            request.headers_mut().append("x", "".parse().unwrap());
        }
        let response = ask(&app, request).await;
        assert_eq!(kind_of(&response), Some(kind), "{headers} and {budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_client_with_a_slow_body_is_held_for_at_most_three_seconds() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    let slow = || asked(|_, _| Poll::Pending).1;
    // Rejected by its headers: nothing is kept, and the client is not held for long.
    for (version, seconds) in [
        (Version::HTTP_11, 3),
        (Version::HTTP_10, 3),
        (Version::HTTP_2, 1),
    ] {
        let began = tokio::time::Instant::now();
        let mut request = it.unsigned(CALL, "").map(|_| slow());
        *request.version_mut() = version;
        let response = ask(&app, request).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        assert_eq!(began.elapsed().as_secs(), seconds, "{version:?}");
        assert_eq!(
            response.header("connection").is_some(),
            version < Version::HTTP_2,
            "{version:?}"
        );
    }
    // With a fresh signature, a client has the body's deadline.
    let began = tokio::time::Instant::now();
    let response = ask(&app, forged(slow())).await;
    assert_eq!(
        (response.status, began.elapsed().as_secs()),
        (StatusCode::REQUEST_TIMEOUT, 30)
    );
    // An unsigned sync gets no more time than a rejection does.
    let began = tokio::time::Instant::now();
    let app = Seen::default().app(it.auth().insecure_unsigned_sync(true));
    ask(&app, Request::put("/").body(slow()).unwrap()).await;
    assert_eq!(began.elapsed().as_secs(), 3);
}

/// So that a client that is still sending sees the rejection.
#[tokio::test(start_paused = true)]
async fn a_rejected_body_is_drained_up_to_its_limit_and_for_three_seconds() {
    let it = inngest();
    let app = Seen::default().app(it.auth().body_limit(100).body_budget(100));
    let rejected = |kind, body| match kind {
        RejectionKind::Missing => it.unsigned(CALL, "").map(|_| body),
        _ => forged(body),
    };
    for (kind, frames) in [
        // Ten are within the limit, and one more is read.
        (RejectionKind::Missing, 11),
        // The budget has no room for the seventh. Three more are within the limit, and one more is
        // read.
        (RejectionKind::OverBudget, 11),
    ] {
        let (count, body) = asked(|asked, _| {
            Poll::Ready((asked < 100).then_some(Bytes::from_static(b"0123456789")))
        });
        let mut request = rejected(kind, body);
        request.headers_mut().remove("content-length");
        let response = ask(&app, request).await;
        assert_eq!(
            (kind_of(&response), response.header("connection")),
            (Some(kind), Some("close"))
        );
        assert_eq!(count.load(Ordering::SeqCst), frames, "{kind:?}");

        let began = tokio::time::Instant::now();
        let (_, slow) = asked(|asked, _| match asked {
            ..7 => Poll::Ready(Some(Bytes::from_static(b"0123456789"))),
            _ => Poll::Pending,
        });
        let mut request = rejected(kind, slow);
        request.headers_mut().remove("content-length");
        assert_eq!(kind_of(&ask(&app, request).await), Some(kind));
        assert_eq!(began.elapsed().as_secs(), 3, "{kind:?}");
    }
    // On HTTP/2 at most 64 KiB is drained, and nothing if more was announced.
    let app = Seen::default().app(it.auth());
    for (announced, frames) in [(None, 65), (Some(64 * 1024 + 1), 0)] {
        let (count, body) = asked(|_, _| Poll::Ready(Some(vec![b'x'; 1024].into())));
        let mut request = it.unsigned(CALL, "").map(|_| body);
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove("content-length");
        if let Some(len) = announced {
            request.headers_mut().insert("content-length", len.into());
        }
        assert_eq!(
            kind_of(&ask(&app, request).await),
            Some(RejectionKind::Missing)
        );
        assert_eq!(
            count.load(Ordering::SeqCst),
            frames,
            "announced: {announced:?}"
        );
    }
}

/// There is nothing left to drain, whatever was wrong with it.
#[tokio::test]
async fn a_rejected_body_that_has_ended_leaves_its_connection_open() {
    let it = inngest();
    let app = Seen::default().app(it.auth().body_limit(100));
    let mut waits = it.unsigned(CALL, "");
    waits
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    for (request, kind) in [
        (forged("x".repeat(101).into()), RejectionKind::BodyTooLarge),
        (waits, RejectionKind::Missing),
    ] {
        let answer = ask(&app, request).await;
        assert_eq!(
            (kind_of(&answer), answer.header("connection")),
            (Some(kind), None)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_extend_the_deadline() {
    let it = inngest();
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        // A byte a second, for ever.
        let mut second = tokio::time::interval(Duration::from_secs(1));
        while sender.send(()).await.is_ok() {
            second.tick().await;
        }
    });
    let (_, trickle) = asked(move |_, cx| receiver.poll_recv(cx).map(|_| Some("x".into())));
    let began = tokio::time::Instant::now();
    let app = Seen::default().app(it.auth().body_deadline(Duration::from_secs(10)));
    let response = ask(&app, forged(trickle)).await;
    assert_eq!(
        (response.status, began.elapsed().as_secs()),
        (StatusCode::REQUEST_TIMEOUT, 10)
    );
}

#[tokio::test]
async fn frames_without_end_and_without_bytes_meet_the_deadline() {
    let (count, endless) = asked(|_, _| Poll::Ready(Some(Bytes::new())));
    // The deadline is never checked unless the read yields to other tasks.
    let app = Seen::default().app(inngest().auth().body_deadline(Duration::from_millis(1)));
    let response = ask(&app, forged(endless)).await;
    assert_eq!(response.status, StatusCode::REQUEST_TIMEOUT);
    assert!(count.load(Ordering::SeqCst) >= 64);
}

#[tokio::test]
async fn a_length_over_the_limit_is_rejected_unread() {
    let it = inngest();
    let (count, body) = asked(|_, _| Poll::Ready(Some("x".into())));
    let mut request = forged(body);
    request
        .headers_mut()
        .insert("content-length", (8 * 1024 * 1024 + 1).into());
    let response = ask(&Seen::default().app(it.auth()), request).await;
    assert_eq!(
        (response.status, kind_of(&response)),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            Some(RejectionKind::BodyTooLarge)
        )
    );
    assert_eq!(count.load(Ordering::SeqCst), 0, "the body was polled");

    let server = serve(Seen::default().app(it.auth())).await;
    let header = key("signkey-test-00").sign(b"", NOW).to_string();
    let heard = say(
        server,
        &head(
            "POST",
            &[
                (SIGNATURE_HEADER, &header),
                ("Content-Length", "18446744073709551615"),
            ],
        ),
    )
    .await;
    assert!(heard.starts_with("HTTP/1.1 4"), "{heard}");
}

#[tokio::test]
async fn more_bytes_than_the_limit_are_rejected_whatever_was_announced() {
    let it = inngest();
    let app = Seen::default().app(it.auth().body_limit(100));
    for frame in [1, 7, 99, 100, 101, 1000] {
        let (count, body) = asked(move |_, _| Poll::Ready(Some(Bytes::from(vec![b'x'; frame]))));
        let response = ask(&app, forged(body)).await;
        assert_eq!(
            kind_of(&response),
            Some(RejectionKind::BodyTooLarge),
            "{frame}"
        );
        assert_eq!(
            count.load(Ordering::SeqCst),
            100 / frame + 1,
            "it went on reading frames of {frame}"
        );
        assert_eq!(response.header("connection"), Some("close"));
    }
    // HTTP/2 ends a stream and keeps its connection.
    let mut request = forged(asked(|_, _| Poll::Ready(Some("x".into()))).1);
    *request.version_mut() = Version::HTTP_2;
    let response = ask(&app, request).await;
    assert_eq!(
        (kind_of(&response), response.header("connection")),
        (Some(RejectionKind::BodyTooLarge), None)
    );
    // A body of exactly the limit is accepted.
    let body = "x".repeat(100);
    assert_eq!(ask(&app, it.call(CALL, body)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_behind() {
    let it = inngest();
    let seen = Seen::default();
    // A budget for one body: anything that is not released is missed.
    let server = serve(seen.app(it.auth().body_budget(2500))).await;
    let header = key("signkey-test-12345678").sign(b"x", NOW).to_string();
    for sent in [&b""[..], b"half of it"] {
        for length in [("Content-Length", "2000"), ("Transfer-Encoding", "chunked")] {
            let mut socket = TcpStream::connect(server).await.unwrap();
            socket
                .write_all(&head("POST", &[(SIGNATURE_HEADER, &header), length]))
                .await
                .unwrap();
            socket.write_all(sent).await.unwrap();
            // The server sees the end before it can have responded.
            socket.shutdown().await.unwrap();
            let mut heard = Vec::new();
            let _ = socket.read_to_end(&mut heard).await;
            assert!(!String::from_utf8_lossy(&heard).contains(" 200 "));
        }
    }
    let body = "x".repeat(2500);
    let request = it.call(CALL, body.clone()).map(|_| Full::from(body));
    assert_eq!(send(server, request).await.status, StatusCode::OK);
    assert_eq!(seen.count(), 1);
}

/// Returns a body that yields `first`, then waits until it is released, then ends.
fn half(first: Bytes) -> (tokio::sync::oneshot::Sender<()>, Arc<AtomicUsize>, Body) {
    let (go, mut wait) = tokio::sync::oneshot::channel();
    let (count, body) = asked(move |asked, cx| match asked {
        0 => Poll::Ready(Some(first.clone())),
        _ => Pin::new(&mut wait).poll(cx).map(|_| None),
    });
    (go, count, body)
}

#[tokio::test]
async fn many_bodies_share_one_budget_and_the_oldest_stalled_one_makes_room() {
    let it = inngest();
    // Room for two bodies, in pieces of 64 KiB.
    let app = Seen::default().app(it.auth().body_budget(4 * 64 * 1024));
    let body = Bytes::from(vec![b'x'; 100_000]);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (go, count, half) = half(body.clone());
        let (app, request) = (app.clone(), it.call(CALL, body.clone()).map(|_| half));
        let response = tokio::spawn(async move { ask(&app, request).await });
        while count.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        waiting.push((go, response));
    }
    // The first was dropped. The others are whole.
    let mut waiting = waiting.into_iter();
    let (_go, response) = waiting.next().unwrap();
    let rejected = response.await.unwrap();
    assert_eq!(rejected.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(kind_of(&rejected), Some(RejectionKind::OverBudget));
    for (go, response) in waiting {
        go.send(()).unwrap();
        assert_eq!(response.await.unwrap().status, StatusCode::OK);
    }
    // A body that arrives in one frame needs no room.
    let tight = Seen::default().app(it.auth().body_budget(1));
    assert_eq!(
        ask(&tight, it.call(CALL, body)).await.status,
        StatusCode::OK
    );
}

/// A verified body's frame does not count against the budget while its handler runs.
#[tokio::test]
async fn verified_bodies_are_not_counted() {
    let it = inngest();
    let (entered, mut inside) = tokio::sync::mpsc::channel::<()>(2);
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let handler = any(move |body: Bytes| {
        let (entered, gate) = (entered.clone(), Arc::clone(&gate));
        async move {
            entered.send(()).await.unwrap();
            gate.acquire().await.unwrap().forget();
            body.len().to_string()
        }
    });
    let app = Router::new()
        .fallback_service(handler)
        .layer(it.auth().body_budget(1000));
    let calls = [(); 2].map(|()| {
        let (app, request) = (app.clone(), it.call(CALL, "x".repeat(900)));
        tokio::spawn(async move { ask(&app, request).await.status })
    });
    inside.recv().await.unwrap();
    inside.recv().await.unwrap();
    release.add_permits(2);
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_header_that_is_not_ascii_or_far_too_long_is_rejected() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    let genuine = it.call(CALL, "{}").headers()[SIGNATURE_HEADER]
        .to_str()
        .unwrap()
        .to_owned();
    let long = format!("{genuine}{}", "&x=y".repeat(4000));
    for (header, status) in [
        (genuine.as_bytes(), 200),
        (&[genuine.as_bytes(), b"&\xff=1"].concat(), 401),
        (long.as_bytes(), 200),
        (&b"&".repeat(10_000), 401),
        (&b"t=1&".repeat(10_000), 401),
    ] {
        let value = axum::http::HeaderValue::from_bytes(header).unwrap();
        let request = Request::post(CALL)
            .header(SIGNATURE_HEADER, value)
            .body("{}".into())
            .unwrap();
        assert_eq!(ask(&app, request).await.status, status);
    }
}

#[tokio::test]
async fn hostile_json_is_not_verified() {
    let app = Seen::default().app(inngest().auth());
    let deep = "[".repeat(32_000) + &"]".repeat(32_000);
    let repeated = |item: &str| format!("[{}]", vec![item; 65_000 / (item.len() + 1)].join(","));
    for body in [
        String::new(),
        deep,
        repeated("0"),
        repeated("[]"),
        repeated(r#"{"":0}"#),
        repeated("1e308"),
        r#"{"a":"\ud800"}"#.into(),
        "1e400".into(),
        format!("{{\"a\":{}}}", "9".repeat(60_000)),
    ] {
        let response = ask(&app, forged(Body::from(body))).await;
        assert_eq!(kind_of(&response), Some(RejectionKind::WrongSignature));
    }
}

/// No body may be taken for an empty one: the signature is over the empty string.
#[tokio::test]
async fn a_body_without_a_canonical_form_is_not_the_empty_body() {
    let app = Seen::default().app(inngest().auth());
    let empty = key("signkey-test-12345678").sign(b"", NOW).to_string();
    let long = format!("\"{}\"", "x".repeat(70_000));
    for body in ["not json", "{", r#""\ud800""#, "1e400", &long] {
        let request = Request::post(CALL)
            .header(SIGNATURE_HEADER, &empty)
            .body(Body::from(body.to_owned()));
        assert_eq!(
            ask(&app, request.unwrap()).await.status,
            StatusCode::UNAUTHORIZED,
            "{}",
            &body[..4]
        );
    }
}

/// A canonical form is computed only up to 64 KiB.
#[tokio::test]
async fn a_long_body_is_verified_by_its_bytes_alone() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    for (len, status) in [(64 * 1024 - 1, 200), (64 * 1024, 401)] {
        let json = format!("\"{}\"", "x".repeat(len - 2));
        assert_eq!(
            ask(&app, it.call_in_canonical_form(CALL, json.clone()))
                .await
                .status,
            status,
            "{len}"
        );
        assert_eq!(
            ask(&app, it.call(CALL, json)).await.status,
            StatusCode::OK,
            "{len}"
        );
    }
}

#[tokio::test]
async fn no_header_decides_whether_to_verify() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    for (name, value) in [
        ("x-inngest-server-kind", "dev"),
        ("x-inngest-server-kind", "cloud"),
        ("x-inngest-sync-kind", "in_band"),
        ("user-agent", "Inngest"),
        ("host", "localhost"),
    ] {
        let mut request = it.unsigned(CALL, "{}");
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(
            ask(&app, request).await.status,
            StatusCode::UNAUTHORIZED,
            "{name}: {value}"
        );
    }
}

/// Signed responses that are sent back as requests must not extend any window.
#[tokio::test]
async fn a_response_sent_back_does_not_extend_the_window() {
    let it = inngest();
    let app = Seen::default().app(it.auth().sign_responses(SignResponses::All));
    it.clock().set(Some(NOW + 299));
    let header = key("signkey-test-12345678").sign(b"{}", NOW).to_string();
    let response = ask(
        &app,
        Request::post(CALL)
            .header(SIGNATURE_HEADER, header)
            .body("{}".into())
            .unwrap(),
    )
    .await;
    let replayed = |header: &str| {
        Request::post(CALL)
            .header(SIGNATURE_HEADER, header)
            .body(Body::from(response.body.clone()))
            .unwrap()
    };
    let header = response.header(SIGNATURE_HEADER).unwrap();
    assert!(header.starts_with(&format!("t={NOW}&s=")));
    it.clock().set(Some(NOW + 300));
    assert_eq!(ask(&app, replayed(header)).await.status, StatusCode::OK);
    it.clock().set(Some(NOW + 301));
    assert_eq!(
        ask(&app, replayed(header)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_clock_that_runs_away_overflows_nothing() {
    let key = key("signkey-test-12345678");
    for now in [0, 1, u64::MAX - 1, i64::MAX as u64, i64::MAX as u64 + 1] {
        let app = Seen::default().app(InngestAuth::new(key.clone()).clock(TestClock::at(now)));
        for header in [
            key.sign(b"", 0),
            key.sign(b"", NOW),
            key.sign(b"", u64::MAX),
        ] {
            let request = Request::post(CALL)
                .header(SIGNATURE_HEADER, header.to_string())
                .body(Body::empty());
            assert_eq!(
                ask(&app, request.unwrap()).await.status,
                StatusCode::UNAUTHORIZED
            );
        }
    }
}
