//! Which responses are signed, and with what.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::{Router, routing::any};
use common::{CALL, NOW, Reply, ask, inngest, key};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use inngest_auth::testing::TestInngest;
use inngest_auth::{InngestAuth, SIGNATURE_HEADER};
use tower::ServiceExt;

/// Returns an app that always gives this response.
fn responding(
    auth: InngestAuth,
    response: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .fallback_service(any(move || std::future::ready(response())))
        .layer(auth)
}

fn signature(body: &str) -> String {
    key("signkey-test-12345678")
        .sign(body.as_bytes(), NOW)
        .to_string()
}

async fn respond(
    it: &TestInngest,
    response: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> Reply {
    ask(
        &responding(
            it.auth().sign_responses(inngest_auth::SignResponses::All),
            response,
        ),
        it.call(CALL, "{}"),
    )
    .await
}

/// Frames, trailers, and the size that the body declares.
struct Odd {
    frames: Vec<Result<Frame<Bytes>, &'static str>>,
    says: Option<u64>,
}

impl http_body::Body for Odd {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.frames.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Ready(Some(self.frames.remove(0)))
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.says
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a body gives it")]
fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(text.into()))
}

#[tokio::test]
async fn the_handlers_bytes_are_signed_without_one_trailing_newline() {
    let it = inngest();
    for (body, signed) in [
        ("{}", Some("{}")),
        ("{\"b\":1, \"a\":2}", Some("{\"b\":1, \"a\":2}")),
        ("x\n", Some("x")),
        ("x\n\n", Some("x\n")),
        ("x\r\n", Some("x\r")),
        ("", None),
        // Without its newline it is empty, and a signature of it would be valid for every empty
        // request.
        ("\n", None),
    ] {
        let response = respond(&it, move || Response::new(body.into())).await;
        assert_eq!(response.body, body, "unchanged");
        assert_eq!(
            response.header(SIGNATURE_HEADER),
            signed.map(signature).as_deref(),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn every_success_with_a_body_is_signed_with_the_key_that_verified() {
    let it = inngest();
    for (status, signed) in [
        (200, true),
        (206, true),
        (400, false),
        (404, false),
        (500, false),
    ] {
        let response = move || {
            Response::builder()
                .status(status)
                .body("{}".into())
                .unwrap()
        };
        let expected = signed.then(|| signature("{}"));
        assert_eq!(
            respond(&it, response).await.header(SIGNATURE_HEADER),
            expected.as_deref(),
            "{status}"
        );
    }
    let app = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::All),
        || Response::new("{}".into()),
    );
    let response = ask(&app, it.call_with_fallback(CALL, "")).await;
    let expected = key("signkey-test-87654321").sign(b"{}", NOW).to_string();
    assert_eq!(response.header(SIGNATURE_HEADER), Some(&*expected));
}

#[tokio::test]
async fn several_frames_are_signed_as_one_body() {
    let it = inngest();
    let make = || {
        let frames = vec![data("ab"), data(""), data("c"), data("\n")];
        Response::new(Body::new(Odd {
            frames,
            says: Some(4),
        }))
    };
    let response = respond(&it, make).await;
    assert_eq!(
        (&response.body[..], response.header(SIGNATURE_HEADER)),
        (&b"abc\n"[..], Some(&*signature("abc")))
    );
    // Large frames are not copied together. The newline is the end of the last frame, or all of it.
    let large = "x".repeat(16 * 1024);
    for last in ["y\n", "\n"] {
        let (frame, says) = (Bytes::from(large.clone()), large.len() + last.len());
        let make = move || {
            let frames = vec![Ok(Frame::data(frame.clone())), data(last)];
            let says = Some(says as u64);
            Response::new(Body::new(Odd { frames, says }))
        };
        let signed = format!("{large}{}", last.trim_end());
        let response = respond(&it, make).await;
        assert_eq!(
            response.header(SIGNATURE_HEADER),
            Some(&*signature(&signed)),
            "{last:?}"
        );
    }
}

#[tokio::test]
async fn a_response_that_declares_itself_empty_is_not_read() {
    let make = || {
        let frames = vec![Err("broken")];
        Response::new(Body::new(Odd {
            frames,
            says: Some(0),
        }))
    };
    let it = inngest();
    let response = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::All),
        make,
    )
    .oneshot(it.call(CALL, "{}"))
    .await
    .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn what_cannot_be_signed_is_sent_unchanged() {
    let it = inngest();
    let with = |status: u16, name: &'static str, value: &'static str| {
        move || {
            Response::builder()
                .status(status)
                .header(name, value)
                .body(Body::from("{}"))
                .unwrap()
        }
    };
    for (status, name, value) in [
        (204, "x-a", "b"),
        (304, "x-a", "b"),
        (200, "content-encoding", "gzip"),
    ] {
        let response = respond(&it, with(status, name, value)).await;
        assert_eq!(
            (response.status.as_u16(), response.header(SIGNATURE_HEADER)),
            (status, None)
        );
    }
    let own = respond(&it, with(200, SIGNATURE_HEADER, "mine")).await;
    assert_eq!(own.header(SIGNATURE_HEADER), Some("mine"));
    let app = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::All),
        || Response::new("{}".into()),
    );
    for body in ["", "{}"] {
        let head = Request::head(CALL)
            .header(SIGNATURE_HEADER, signature(body))
            .body(Body::from(body))
            .unwrap();
        assert_eq!(
            ask(&app, head).await.header(SIGNATURE_HEADER),
            None,
            "{body:?}"
        );
    }
    let (longest, too_long) = (8 * 1024 * 1024, 8 * 1024 * 1024 + 1);
    for (len, signed) in [(longest, true), (too_long, false)] {
        let text = Bytes::from(vec![b'x'; len]);
        let response = respond(&it, move || Response::new(text.clone().into())).await;
        assert_eq!(
            (
                response.body.len(),
                response.headers.contains_key(SIGNATURE_HEADER)
            ),
            (len, signed)
        );
    }
    let app = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::Never),
        || Response::new("{}".into()),
    );
    assert_eq!(
        ask(&app, it.call(CALL, "{}"))
            .await
            .header(SIGNATURE_HEADER),
        None
    );
}

/// A body that never ends: a response that was read first would never arrive.
struct Endless(Option<u64>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data("tick".into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[tokio::test]
async fn a_stream_stays_a_stream_and_is_not_signed() {
    let it = inngest();
    let app = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::All),
        || Response::new(Body::new(Endless(None))),
    );
    let mut response = app.oneshot(it.call(CALL, "{}")).await.unwrap();
    assert!(!response.headers().contains_key(SIGNATURE_HEADER));
    assert_eq!(
        response
            .body_mut()
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap(),
        "tick"
    );
}

#[tokio::test]
async fn a_response_with_trailers_keeps_them_and_is_not_signed() {
    let it = inngest();
    let make = || {
        let trailers = HeaderMap::from_iter([("x-late".parse().unwrap(), "1".parse().unwrap())]);
        let frames = vec![data("{}"), Ok(Frame::trailers(trailers))];
        Response::new(Body::new(Odd {
            frames,
            says: Some(2),
        }))
    };
    let response = responding(
        it.auth().sign_responses(inngest_auth::SignResponses::All),
        make,
    )
    .oneshot(it.call(CALL, "{}"))
    .await
    .unwrap();
    assert!(!response.headers().contains_key(SIGNATURE_HEADER));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-late"], "1");
    assert_eq!(body.to_bytes(), "{}");
}

#[tokio::test]
async fn a_response_that_fails_or_declares_a_wrong_size_becomes_a_500() {
    let it = inngest();
    for (make, what) in [
        (
            (|| vec![data("{"), Err("broken")]) as fn() -> Vec<_>,
            "breaks",
        ),
        (|| vec![data("{")], "short"),
        (|| vec![data("{"), data("}!")], "long"),
    ] {
        let response = respond(&it, move || {
            Response::new(Body::new(Odd {
                frames: make(),
                says: Some(2),
            }))
        })
        .await;
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        assert_eq!(response.body, r#"{"message":"Internal Server Error"}"#);
        assert_eq!(response.header(SIGNATURE_HEADER), None);
    }
    let endless = respond(&it, || Response::new(Body::new(Endless(Some(2))))).await;
    assert_eq!(
        endless.status,
        StatusCode::INTERNAL_SERVER_ERROR,
        "not read for ever"
    );
}

#[tokio::test]
async fn a_response_later_than_the_window_is_unsigned() {
    let it = inngest();
    for (later, signed) in [(Some(300), true), (Some(301), false), (None, false)] {
        it.clock().set(Some(NOW));
        let clock = it.clock().clone();
        let app = responding(
            it.auth().sign_responses(inngest_auth::SignResponses::All),
            move || {
                clock.set(later.map(|seconds| NOW + seconds));
                Response::new("{}".into())
            },
        );
        let response = ask(&app, it.call(CALL, "{}")).await;
        assert_eq!(
            (
                response.status,
                response.headers.contains_key(SIGNATURE_HEADER)
            ),
            (StatusCode::OK, signed),
            "{later:?}"
        );
        if signed {
            assert_eq!(
                response.header(SIGNATURE_HEADER),
                Some(&*signature("{}")),
                "the request's own time"
            );
        }
    }
}

#[tokio::test]
async fn what_was_not_verified_is_never_signed() {
    let it = inngest();
    let body = || Response::new("{}".into());
    let cloud = responding(it.auth().insecure_unsigned_sync(true), body);
    let dev = responding(InngestAuth::insecure_unverified_dev(), body);
    let sync = Request::put("/").body(Body::empty()).unwrap();
    for (app, request, status) in [
        (&cloud, it.unsigned(CALL, "{}"), 401),
        (&cloud, it.tampered(CALL, "{}"), 401),
        (&cloud, sync, 200),
        (&dev, it.call(CALL, "{}"), 200),
    ] {
        let response = ask(app, request).await;
        assert_eq!(
            (response.status.as_u16(), response.header(SIGNATURE_HEADER)),
            (status, None)
        );
    }
}
