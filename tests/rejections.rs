//! What is rejected, and how: status, body, headers, and the kind that the operator sees.
#![cfg(feature = "layer")]

mod common;
mod variants;

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use common::{CALL, NOW, Seen, ask, inngest, key};
use inngest_auth::replay::{Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::{TestClock, TestInngest};
use inngest_auth::{
    Config, InngestAuth, KeyRole, Rejection, RejectionKind, SIGNATURE_HEADER, Verified,
};

/// A body that yields these frames, then fails or hangs.
struct Frames(Vec<&'static [u8]>, End);

enum End {
    Fails,
    Hangs,
}

impl http_body::Body for Frames {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        use std::task::Poll;
        match (self.0.pop(), &self.1) {
            (Some(frame), _) => Poll::Ready(Some(Ok(http_body::Frame::data(frame.into())))),
            (None, End::Fails) => Poll::Ready(Some(Err(std::io::Error::other("broken")))),
            (None, End::Hangs) => Poll::Pending,
        }
    }
}

fn with_body(inngest: &TestInngest, body: Body) -> Request<Body> {
    let mut request = inngest.call(CALL, "{}").map(|_| body);
    request.headers_mut().remove("content-length");
    request
}

fn changed(mut request: Request<Body>, change: impl FnOnce(&mut Request<Body>)) -> Request<Body> {
    change(&mut request);
    request
}

fn signed_by(header: String) -> Request<Body> {
    Request::post(CALL)
        .header(SIGNATURE_HEADER, header)
        .body("{}".into())
        .unwrap()
}

/// Returns the output of a future that does not wait.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

/// A replay store that always returns the same.
struct Says(fn() -> Result<Recorded, ReplayStoreError>);

impl ReplayStore for Says {
    async fn record(&self, _: Sighting) -> Result<Recorded, ReplayStoreError> {
        (self.0)()
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "a row for each kind")]
async fn each_kind_has_its_status_and_tells_the_sender_nothing() {
    use RejectionKind as Kind;
    let it = inngest();
    let auth = || it.auth();
    let second = |request: &mut Request<Body>| {
        let value = request.headers()[SIGNATURE_HEADER].clone();
        request.headers_mut().append(SIGNATURE_HEADER, value);
    };
    let stopped = TestClock::at(0);
    stopped.set(None);
    let table = [
        (Kind::Missing, 401, auth(), it.unsigned(CALL, "{}")),
        (
            Kind::Doubled,
            401,
            auth(),
            changed(it.call(CALL, "{}"), second),
        ),
        (Kind::Malformed, 401, auth(), signed_by("lol".into())),
        (Kind::Stale, 401, auth(), it.stale(CALL, "{}")),
        (
            Kind::Future,
            401,
            auth(),
            signed_by(
                key("signkey-test-12345678")
                    .sign(b"{}", NOW + 301)
                    .to_string(),
            ),
        ),
        (Kind::WrongSignature, 401, auth(), it.tampered(CALL, "{}")),
        (
            Kind::BodyTooLarge,
            413,
            auth().body_limit(1),
            it.call(CALL, "{}"),
        ),
        (
            Kind::BodyTooLarge,
            413,
            auth().body_limit(1),
            with_body(&it, "{}".into()),
        ),
        (
            Kind::BodyTooSlow,
            408,
            auth(),
            with_body(&it, Body::new(Frames(vec![b"{"], End::Hangs))),
        ),
        (
            Kind::BodyBroken,
            400,
            auth(),
            with_body(&it, Body::new(Frames(vec![b"{"], End::Fails))),
        ),
        (
            Kind::OverBudget,
            503,
            auth().body_budget(1),
            with_body(&it, Body::new(Frames(vec![b"{"], End::Fails))),
        ),
        (
            Kind::Replayed,
            401,
            auth().replay_guard(Says(|| Ok(Recorded::Seen))),
            it.call(CALL, "{}"),
        ),
        (
            Kind::BeforeStart,
            401,
            auth().replay_guard(Says(|| Ok(Recorded::BeforeStart))),
            it.call(CALL, "{}"),
        ),
        (
            Kind::StoreUnavailable,
            503,
            auth().replay_guard(Says(|| Err(ReplayStoreError::Full))),
            it.call(CALL, "{}"),
        ),
        (
            Kind::BacklogFull,
            503,
            auth().verified_backlog(0),
            it.call(CALL, "x".repeat(64 * 1024 + 1)),
        ),
        (
            Kind::NoTime,
            500,
            auth().clock(stopped),
            it.call(CALL, "{}"),
        ),
        (
            Kind::Unconfigured,
            500,
            InngestAuth::from_env(),
            it.call(CALL, "{}"),
        ),
        (
            Kind::NoRuntime,
            500,
            auth(),
            with_body(&it, Body::new(Frames(vec![b"{"], End::Hangs))),
        ),
    ];
    let mut kinds = BTreeSet::new();
    for (kind, status, auth, request) in table {
        let seen = Seen::default();
        let app = seen.app(auth);
        let response = if kind == Kind::NoRuntime {
            std::thread::scope(|scope| scope.spawn(|| ready(ask(&app, request))).join()).unwrap()
        } else {
            ask(&app, request).await
        };
        kinds.insert(format!("{kind:?}"));
        assert_eq!(response.status, status, "{kind:?}");
        assert_eq!(
            response.extensions.get::<Rejection>().map(Rejection::kind),
            Some(kind)
        );
        assert_eq!(kind.status(), status);
        assert!(response.extensions.get::<Verified>().is_none(), "{kind:?}");
        assert_eq!(
            response.header("x-inngest-sdk-handled"),
            Some("true"),
            "{kind:?}"
        );
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{kind:?}"
        );
        for absent in [
            "retry-after",
            "x-inngest-no-retry",
            "x-inngest-signature",
            "x-inngest-sdk",
        ] {
            assert_eq!(response.header(absent), None, "{kind:?}");
        }
        let message = match kind {
            Kind::Unconfigured => "Set INNGEST_SIGNING_KEY",
            _ => response.status.canonical_reason().unwrap(),
        };
        assert_eq!(
            response.body,
            format!(r#"{{"message":"{message}"}}"#),
            "{kind:?}"
        );
        assert_eq!(seen.count(), 0, "the handler ran: {kind:?}");
    }
    let all = variants::variants(include_str!("../src/rejection.rs"), "RejectionKind");
    assert_eq!(kinds, all.into_iter().collect(), "each kind has a row");
}

#[tokio::test]
async fn the_rejection_has_what_an_operator_needs() {
    let it = inngest();
    let app = Seen::default().app(it.auth());
    let encoded = changed(it.tampered(CALL, "{}"), |request| {
        request
            .headers_mut()
            .insert("content-encoding", "gzip".parse().unwrap());
    });
    let response = ask(&app, encoded).await;
    let rejection = response.extensions.get::<Rejection>().unwrap();
    let fingerprints: Vec<_> = rejection.keys_tried().map(|it| it.to_string()).collect();
    let expected = ["12345678", "87654321"].map(|text| key(text).fingerprint().to_string());
    assert_eq!(fingerprints, expected);
    assert_eq!((rejection.age(), rejection.body_len()), (Some(0), Some(3)));
    assert_eq!(rejection.content_encoding().unwrap(), "gzip");
    let shown = format!("{rejection:?} {rejection}");
    assert!(
        shown.contains(&expected[0]) && !shown.contains("12345678"),
        "{shown}"
    );

    for (request, age) in [
        (it.stale(CALL, "{}"), 3601),
        (signed_by(key("ab").sign(b"", NOW + 400).to_string()), -400),
    ] {
        let response = ask(&app, request).await;
        assert_eq!(
            response.extensions.get::<Rejection>().unwrap().age(),
            Some(age)
        );
    }
}

#[tokio::test]
async fn the_window_is_closed_on_both_sides() {
    let key = key("signkey-test-12345678");
    for (tolerance, inside) in [(300, 300), (60, 60), (0, 1), (1_000_000, 3600)] {
        let auth = InngestAuth::new(key.clone())
            .clock(TestClock::at(NOW))
            .tolerance(Duration::from_secs(tolerance));
        let app = Seen::default().app(auth);
        for (at, status) in [
            (NOW - inside - 1, 401),
            (NOW - inside, 200),
            (NOW + inside, 200),
            (NOW + inside + 1, 401),
        ] {
            let response = ask(&app, signed_by(key.sign(b"{}", at).to_string())).await;
            assert_eq!(response.status, status, "tolerance {tolerance}, {at}");
        }
    }
}

#[tokio::test]
async fn both_keys_are_accepted_rotated_both_ways() {
    let it = inngest();
    let auth = it.auth();
    let keys = auth.keys().unwrap().clone();
    let app = Seen::default().app(auth);
    let mut expected = [KeyRole::Current, KeyRole::Fallback];
    for _ in 0..3 {
        for (request, role) in [it.call(CALL, "{}"), it.call_with_fallback(CALL, "{}")]
            .into_iter()
            .zip(expected)
        {
            let response = ask(&app, request).await;
            assert_eq!(response.status, StatusCode::OK);
            assert_eq!(response.extensions.get::<Verified>().unwrap().key(), role);
        }
        let fallback = keys.snapshot().fallback().unwrap().clone();
        keys.rotate(fallback);
        expected.reverse();
    }
    keys.retire_fallback();
    assert_eq!(
        ask(&app, it.call(CALL, "{}")).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        ask(&app, it.call_with_fallback(CALL, "{}")).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_unusable_configuration_rejects_everything_and_names_the_variable() {
    let set: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    let set: Vec<_> = set
        .into_iter()
        .filter(|name| name.to_string_lossy().starts_with("INNGEST_"))
        .collect();
    if !set.is_empty() {
        // The environment may be someone else's, so run the test again without it.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        for name in &set {
            again.env_remove(name);
        }
        let name = "an_unusable_configuration_rejects_everything_and_names_the_variable";
        assert!(again.args(["--exact", name]).status().unwrap().success());
        return;
    }
    let app = Seen::default().app(InngestAuth::from_env());
    for request in [inngest().call(CALL, "{}"), inngest().unsigned(CALL, "{}")] {
        let response = ask(&app, request).await;
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.body, r#"{"message":"Set INNGEST_SIGNING_KEY"}"#);
        assert_eq!(response.header("x-inngest-sdk-handled"), Some("true"));
        assert_eq!(response.header("retry-after"), None);
        let rejection = response.extensions.get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::Unconfigured);
        assert!(
            rejection.to_string().contains("INNGEST_DEV=1"),
            "{rejection}"
        );
    }
    assert!(InngestAuth::try_from_env().is_err());
}

#[tokio::test]
async fn the_layer_follows_the_environment() {
    let key_is = ("INNGEST_SIGNING_KEY", "signkey-test-12345678\n");
    let auth = |vars: &[(&'static str, &'static str)]| {
        InngestAuth::from_config(&Config::from_vars(vars.iter().copied()).unwrap())
            .clock(TestClock::at(NOW))
    };
    let it = inngest();
    let plain_sync = || Request::put("/api/inngest").body(Body::empty()).unwrap();
    for (vars, request, status) in [
        (&[key_is][..], it.call(CALL, "{}"), 200),
        (&[key_is], it.call_with_fallback(CALL, "{}"), 401),
        (
            &[
                key_is,
                ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-test-87654321"),
            ],
            it.call_with_fallback(CALL, "{}"),
            200,
        ),
        (&[key_is], it.unsigned(CALL, "{}"), 401),
        (
            &[key_is, ("INNGEST_DEV", "1")],
            it.unsigned(CALL, "{}"),
            200,
        ),
        (
            &[key_is, ("INNGEST_DEV", "0")],
            it.unsigned(CALL, "{}"),
            401,
        ),
        (&[key_is], plain_sync(), 401),
        (
            &[key_is, ("INNGEST_ENABLE_UNAUTHED_SYNC", "1")],
            plain_sync(),
            200,
        ),
    ] {
        let response = ask(&Seen::default().app(auth(vars)), request).await;
        assert_eq!(response.status, status, "{vars:?}");
    }
}

/// What a custom rejection may and may not do.
#[tokio::test]
async fn a_custom_rejection_is_restricted() {
    let it = inngest();
    for (chosen, status) in [
        (200, 401),
        (204, 401),
        (302, 401),
        (100, 401),
        (403, 403),
        (503, 503),
    ] {
        let auth = it.auth().on_rejection(move |rejection, response| {
            assert_eq!(rejection.kind(), RejectionKind::Missing);
            assert_eq!(
                response.status(),
                StatusCode::UNAUTHORIZED,
                "it starts from the default"
            );
            let mut custom: Response = "mine".into_response();
            *custom.status_mut() = StatusCode::from_u16(chosen).unwrap();
            for name in [
                "x-inngest-no-retry",
                "retry-after",
                "location",
                SIGNATURE_HEADER,
                "x-mine",
            ] {
                custom.headers_mut().insert(name, "true".parse().unwrap());
            }
            custom
        });
        let response = ask(&Seen::default().app(auth), it.unsigned(CALL, "{}")).await;
        assert_eq!(response.status, status, "chosen: {chosen}");
        assert_eq!(
            (&response.body[..], response.header("x-mine")),
            (&b"mine"[..], Some("true"))
        );
        for removed in [
            "x-inngest-no-retry",
            "retry-after",
            "location",
            SIGNATURE_HEADER,
        ] {
            assert_eq!(response.header(removed), None);
        }
        assert!(response.extensions.get::<Rejection>().is_some());
    }
}
