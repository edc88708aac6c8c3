//! What the handler receives after a request was admitted.
#![cfg(feature = "layer")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::routing::any;
use axum::{Extension, Router};
use common::{CALL, NOW, Seen, ask, head, inngest, key, say, send, serve};
use http_body_util::{BodyExt, Full};
use inngest_auth::testing::TestClock;
use inngest_auth::{Caller, Form, InngestAuth, KeyRole, SIGNATURE_HEADER, Verified};
use tokio::time::timeout;

const SPACED: &str = r#"{ "b": 2, "a": "\u0026" }"#;
const CANONICAL: &str = r#"{"a":"&","b":2}"#;

/// Returns `SPACED`, signed only over its canonical form.
fn canonical_only(method: &str) -> Request<Body> {
    let signature = key("signkey-test-12345678").sign(CANONICAL.as_bytes(), NOW);
    Request::builder()
        .method(method)
        .uri(CALL)
        .header(SIGNATURE_HEADER, signature.to_string())
        .header("content-length", SPACED.len())
        .body(SPACED.into())
        .unwrap()
}

#[tokio::test]
async fn the_handler_reads_what_was_authenticated() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth());
    for (request, key, form, body) in [
        (it.call(CALL, "{}"), KeyRole::Current, Form::Raw, "{}"),
        (it.call(CALL, ""), KeyRole::Current, Form::Raw, ""),
        (
            it.call_with_fallback(CALL, "not json"),
            KeyRole::Fallback,
            Form::Raw,
            "not json",
        ),
        (
            canonical_only("PUT"),
            KeyRole::Current,
            Form::Canonical,
            CANONICAL,
        ),
        (
            canonical_only("GET"),
            KeyRole::Current,
            Form::Canonical,
            CANONICAL,
        ),
    ] {
        let response = ask(&app, request).await;
        assert_eq!(response.status, StatusCode::OK, "{body}");
        let (parts, got) = seen.one();
        assert_eq!(got, body);
        let Some(Caller::Verified(verified)) = parts.extensions.get() else {
            panic!("not marked")
        };
        assert_eq!(
            (verified.key(), verified.form(), verified.signed_at()),
            (key, form, NOW)
        );
        // On its own too, in the request and in the response.
        for extensions in [&parts.extensions, &response.extensions] {
            assert_eq!(extensions.get::<Verified>(), Some(verified));
        }
        assert_eq!(parts.headers["content-length"], *body.len().to_string());
    }
}

#[tokio::test]
async fn headers_about_the_body_agree_with_it() {
    let seen = Seen::default();
    let server = serve(seen.app(inngest().auth())).await;
    let signature = key("signkey-test-12345678").sign(b"{}", NOW).to_string();
    // Chunked, with a trailer: no `Content-Length`, and headers about how the body was sent.
    let mut request = head(
        "POST",
        &[
            (SIGNATURE_HEADER, &signature),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", "X-Late"),
            ("Digest", "sha-256=x"),
            ("Content-Digest", "sha-256=:x:"),
            ("Connection", "close"),
        ],
    );
    request.extend_from_slice(b"1\r\n{\r\n1\r\n}\r\n0\r\nX-Late: evil\r\n\r\n");
    assert!(say(server, &request).await.starts_with("HTTP/1.1 200 "));
    let (parts, body) = seen.one();
    assert_eq!(
        (&body[..], &parts.headers["content-length"]),
        (&b"{}"[..], &"2".parse().unwrap())
    );
    for absent in [
        "transfer-encoding",
        "trailer",
        "digest",
        "content-digest",
        "x-late",
    ] {
        assert!(!parts.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn a_handler_that_forwards_the_request_forwards_the_right_length() {
    let behind = Seen::default();
    let target = serve(behind.unguarded()).await;
    let proxy = move |request: Request<Body>| async move {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove("host");
        parts.version = Version::HTTP_11;
        let body = body.collect().await.unwrap().to_bytes();
        send(target, Request::from_parts(parts, Full::new(body)))
            .await
            .body
    };
    let app = Router::new().fallback(proxy).layer(inngest().auth());
    // With a wrong length the second server would wait for bytes that never arrive.
    let pending = timeout(Duration::from_secs(30), ask(&app, canonical_only("PUT")));
    let response = pending.await.expect("a response");
    assert_eq!(
        (response.status, &response.body[..]),
        (StatusCode::OK, CANONICAL.as_bytes())
    );
    assert_eq!(
        behind.one().0.headers["content-length"],
        *CANONICAL.len().to_string()
    );
}

#[tokio::test]
async fn marks_from_outside_are_replaced() {
    let it = inngest();
    // A genuine mark, but of another request.
    let app = Seen::default().app(it.auth());
    let verified = *ask(&app, it.call(CALL, ""))
        .await
        .extensions
        .get::<Verified>()
        .unwrap();
    let stamped = move |mut request: Request<Body>| {
        request.extensions_mut().insert(verified);
        request.extensions_mut().insert(Caller::Verified(verified));
        request
    };
    let seen = Seen::default();
    let app = seen.app(InngestAuth::insecure_unverified_dev());
    ask(&app, stamped(it.unsigned(CALL, ""))).await;
    let extensions = seen.one().0.extensions;
    assert_eq!(extensions.get(), Some(&Caller::Dev));
    assert_eq!(extensions.get::<Verified>(), None);
    let app = seen.app(it.auth());
    ask(&app, stamped(it.call_with_fallback(CALL, ""))).await;
    let Some(Caller::Verified(got)) = seen.one().0.extensions.get().copied() else {
        panic!("not marked")
    };
    assert_eq!(got.key(), KeyRole::Fallback);
}

#[tokio::test]
async fn the_extractors_tell_who_sent_the_request() {
    let it = inngest();
    let app = |auth: Option<InngestAuth>| {
        let router = Router::new()
            .route(
                "/caller",
                any(|caller: Caller| async move { format!("{} {caller:?}", caller.is_dev()) }),
            )
            .route("/verified", any(|_: Verified| async { "verified" }))
            .route(
                "/optional",
                any(|verified: Option<Verified>| async move { format!("{verified:?}") }),
            );
        match auth {
            Some(auth) => router.layer(auth),
            None => router,
        }
    };
    let cloud = app(Some(it.auth().insecure_unsigned_sync(true)));
    let dev = app(Some(InngestAuth::insecure_unverified_dev()));
    let bare = app(None);
    let sync = |path| Request::put(path).body(Body::empty()).unwrap();
    for (app, request, status, body) in [
        (&cloud, it.call("/caller", ""), 200, "false Verified("),
        (&cloud, it.call("/verified", ""), 200, "verified"),
        (&cloud, it.call("/optional", ""), 200, "Some(Verified "),
        (&cloud, sync("/caller"), 200, "false UnsignedSync"),
        (&cloud, sync("/optional"), 200, "None"),
        (
            &cloud,
            sync("/verified"),
            401,
            r#"{"message":"Unauthorized"}"#,
        ),
        (&dev, it.unsigned("/caller", ""), 200, "true Dev"),
        (&dev, it.unsigned("/optional", ""), 200, "None"),
        (
            &dev,
            it.unsigned("/verified", ""),
            401,
            r#"{"message":"Unauthorized"}"#,
        ),
        (
            &bare,
            it.call("/caller", ""),
            500,
            r#"{"message":"Internal Server Error"}"#,
        ),
        (
            &bare,
            it.call("/verified", ""),
            500,
            r#"{"message":"Internal Server Error"}"#,
        ),
        (
            &bare,
            it.call("/optional", ""),
            500,
            r#"{"message":"Internal Server Error"}"#,
        ),
    ] {
        let response = ask(app, request).await;
        assert_eq!(response.status, status, "{body}");
        assert!(
            response.body.starts_with(body.as_bytes()),
            "{:?} for {body}",
            response.body
        );
    }
}

/// Axum's extractors stop at 2 MB by default.
#[tokio::test]
async fn extractors_take_a_call_of_3_9_mb_unless_a_limit_inside_says_no() {
    let body = || Bytes::from(vec![b'x'; 3_901_000]);
    let it = inngest();
    let handler = || any(|body: Bytes| async move { body.len().to_string() });
    for (auth, request) in [
        (it.auth(), it.call(CALL, body())),
        (
            InngestAuth::insecure_unverified_dev(),
            it.unsigned(CALL, body()),
        ),
    ] {
        let again = || {
            let mut copy = Request::post(CALL);
            *copy.headers_mut().unwrap() = request.headers().clone();
            copy.body(Body::from(body())).unwrap()
        };
        let app = Router::new()
            .fallback_service(handler())
            .layer(auth.clone())
            .layer(DefaultBodyLimit::max(10));
        assert_eq!(
            ask(&app, again()).await.body,
            "3901000",
            "a limit outside has no say"
        );
        let inside = DefaultBodyLimit::max(1_000_000);
        let app = Router::new()
            .fallback_service(handler())
            .layer(inside)
            .layer(auth.clone());
        assert_eq!(
            ask(&app, again()).await.status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        // The layer's own limit, in dev mode too.
        let app = Router::new()
            .fallback_service(handler())
            .layer(auth.body_limit(3_900_999));
        assert_eq!(
            ask(&app, again()).await.status,
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}

/// Below Axum's own limit of 2 MB, too.
#[tokio::test]
async fn an_outer_body_limit_does_not_reject_a_small_verified_call() {
    let it = inngest_auth::testing::TestInngest::default();
    let app = Router::new()
        .fallback(async |body: Bytes| body.len().to_string())
        .layer(it.auth())
        .layer(DefaultBodyLimit::max(10));
    let response = ask(&app, it.call(CALL, "x".repeat(100))).await;
    assert_eq!(response.body, "100");
}

#[tokio::test]
async fn dev_mode_forwards_the_body_as_it_streams() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = http_body_util::StreamBody::new(Frames(receiver));
    let app = Router::new()
        .fallback(|request: Request<Body>| async move {
            // Responds after the first frame, while the client still holds the body open.
            let mut body = request.into_body();
            body.frame().await.unwrap().unwrap().into_data().unwrap()
        })
        .layer(InngestAuth::insecure_unverified_dev());
    sender.send("first".into()).await.unwrap();
    let response = ask(&app, Request::post(CALL).body(Body::new(body)).unwrap()).await;
    assert_eq!(response.body, "first");
    drop(sender);
}

struct Frames(tokio::sync::mpsc::Receiver<Bytes>);

impl futures_core::Stream for Frames {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0
            .poll_recv(cx)
            .map(|frame| frame.map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn an_unsigned_sync_is_emptied_and_cannot_be_a_call() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().insecure_unsigned_sync(true));
    let put = |query: &str| {
        Request::put(format!("/api/inngest{query}"))
            .header("x-inngest-sync-kind", "in_band")
            .header("content-length", 2)
            .body(Body::from("{}"))
            .unwrap()
    };
    for query in ["", "?a=1&b=2", "?deployId=x", "?fnid=x", "?xfnId=1"] {
        let response = ask(&app, put(query)).await;
        assert_eq!(response.status, StatusCode::OK, "{query}");
        assert_eq!(response.extensions.get::<Verified>(), None);
        assert_eq!(response.header(SIGNATURE_HEADER), None);
        let (parts, body) = seen.one();
        assert_eq!(
            parts.extensions.get(),
            Some(&Caller::UnsignedSync),
            "{query}"
        );
        assert_eq!(
            (body.len(), &parts.headers["content-length"]),
            (0, &"0".parse().unwrap())
        );
        assert!(!parts.headers.contains_key("x-inngest-sync-kind"));
    }
    for query in [
        "?fnId=x",
        "?stepId=",
        "?probe=trust",
        "?a=1&fnId",
        "?%66nId=x",
        "?f%6eId=x",
        "?step%49d=x",
    ] {
        assert_eq!(
            ask(&app, put(query)).await.status,
            StatusCode::UNAUTHORIZED,
            "{query}"
        );
    }
    for method in ["POST", "GET", "DELETE", "put"] {
        let request = Request::builder()
            .method(method)
            .uri("/api/inngest")
            .body(Body::empty());
        assert_eq!(
            ask(&app, request.unwrap()).await.status,
            StatusCode::UNAUTHORIZED,
            "{method}"
        );
    }
    // Any signature, even a wrong one, is verified.
    let mut signed = put("");
    signed
        .headers_mut()
        .insert(SIGNATURE_HEADER, "lol".parse().unwrap());
    assert_eq!(ask(&app, signed).await.status, StatusCode::UNAUTHORIZED);
    // Only if unsigned syncs were allowed.
    assert_eq!(
        ask(&seen.app(it.auth()), put("")).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn the_layer_responds_to_a_trust_probe_and_forwards_what_only_looks_like_one() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth());
    for query in ["?probe=trust", "?a=1&probe=trust&b=2", "?%70robe=trust"] {
        let response = ask(&app, it.call(&format!("/api/inngest{query}"), "")).await;
        assert_eq!(
            (response.status, &response.body[..]),
            (StatusCode::OK, &b"{}"[..]),
            "{query}"
        );
        assert_eq!(
            response.header("x-inngest-sdk"),
            Some(concat!("inngest-auth:v", env!("CARGO_PKG_VERSION")))
        );
        assert!(
            response.header(SIGNATURE_HEADER).is_some()
                && response.extensions.get::<Verified>().is_some()
        );
        assert_eq!(seen.count(), 0, "{query}");
        let rejected = ask(&app, it.unsigned(&format!("/api/inngest{query}"), "")).await;
        assert_eq!(rejected.status, StatusCode::UNAUTHORIZED, "{query}");
    }
    for query in [
        "?probe=trust&fnId=x",
        "?stepId=x&probe=trust",
        "?probe=trust&probe=trust",
        "?probe=other",
        "?probe",
    ] {
        assert_eq!(
            ask(&app, it.call(&format!("/api/inngest{query}"), ""))
                .await
                .status,
            StatusCode::OK
        );
        seen.one();
    }
    let mut get = it.call("/api/inngest?probe=trust", "");
    *get.method_mut() = "GET".parse().unwrap();
    ask(&app, get).await;
    seen.one();
}

#[tokio::test]
async fn an_outer_layer_sees_one_outcome() {
    let it = inngest();
    let outcomes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&outcomes);
    let count = from_fn(move |request: axum::extract::Request, next: Next| {
        let log = Arc::clone(&log);
        async move {
            let response = next.run(request).await;
            let rejection = response.extensions().get::<inngest_auth::Rejection>();
            let verified = response.extensions().get::<Verified>();
            log.lock()
                .unwrap()
                .push((verified.is_some(), rejection.is_some()));
            response
        }
    });
    // A second layer inside, with other keys: its rejection must remain a rejection.
    let other = InngestAuth::new(key("ff")).clock(TestClock::at(NOW));
    let app = Router::new()
        .route("/", any(|Extension(_): Extension<Caller>| async {}))
        .route("/inner", any(|| async {}).layer(other))
        .layer(it.auth())
        .layer(count);
    for request in [
        it.call("/", ""),
        it.unsigned("/", ""),
        it.call("/inner", ""),
    ] {
        ask(&app, request).await;
    }
    assert_eq!(
        *outcomes.lock().unwrap(),
        [(true, false), (false, true), (false, true)]
    );
}
