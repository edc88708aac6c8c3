//! What the log says, at which level, and what it never says.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use common::{CALL, NOW, Seen, ask, inngest, key};
use http_body_util::BodyExt;
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::testing::{TestClock, TestInngest, odd_key};
use inngest_auth::{
    Config, InngestApiAuth, InngestAuth, KeyRing, Keys, SIGNATURE_HEADER, SignResponses,
    SigningKey, Verified,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower::{Layer, ServiceExt, service_fn};
use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Records everything that this thread logs from now on.
    fn begin(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_max_level(level)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// Returns the level and the text after the target, if anything was logged.
fn line(said: &str) -> Option<Line<'_>> {
    assert!(said.lines().count() <= 1, "{said}");
    let (level, rest) = said.trim().split_once(' ')?;
    Some((level, rest.split_once(": ").unwrap().1))
}

type Make<'a> = &'a dyn Fn() -> Request<Body>;
type Build<'a> = &'a dyn Fn() -> InngestAuth;
/// A level and a text.
type Line<'a> = (&'a str, &'a str);

/// Returns an unsigned request with this method, these headers and a body.
fn sent(method: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/api/inngest");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body("{}".into()).unwrap()
}

fn twice(request: impl Fn() -> Request<Body>) -> [Request<Body>; 2] {
    [request(), request()]
}

/// A body that never ends.
struct Hanging;

impl http_body::Body for Hanging {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// A body that fails after one frame.
struct Broken(bool);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        let began = std::mem::replace(&mut self.0, true);
        let frame = (!began).then(|| http_body::Frame::data("{".into()));
        Poll::Ready(Some(frame.ok_or_else(|| io::Error::other("broken"))))
    }
}

/// A body that fails with this text.
struct Fails(String);

impl http_body::Body for Fails {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        Poll::Ready(Some(Err(io::Error::other(self.0.clone()))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(2)
    }
}

/// Returns a store that accepts what was signed at `NOW`.
fn store(it: &TestInngest, capacity: usize) -> MemoryReplayStore {
    it.clock().set(Some(NOW - 60));
    let store = MemoryReplayStore::new(capacity, it.clock());
    it.clock().set(Some(NOW));
    store
}

/// Returns the app with the layer added, after the layer has logged its settings.
fn used(auth: InngestAuth, log: &Log) -> Router {
    let app = Seen::default().app(auth).with_state(());
    log.take();
    app
}

/// Sends each request twice, and compares what a subscriber at its default level shows.
///
/// The first request has a line at WARN that says what to do. The second, within the hour, has a
/// line without advice, at the level of its kind. A kind that any scanner can cause is at DEBUG, so
/// the default level does not show that line. Such rows are `quiet`.
#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn each_rejection_says_once_what_to_do_and_then_has_the_level_of_its_kind() {
    let it = inngest();
    let signed = |at| key("signkey-test-12345678").sign(b"{}", at).to_string();
    let (genuine, future) = (signed(NOW), signed(NOW + 301));
    let joined = format!("{genuine}, {genuine}");
    let signature = |value| (SIGNATURE_HEADER, value);
    let (dev, empty) = (("x-inngest-server-kind", "dev"), signature(""));
    let broken = || it.call(CALL, "{}").map(|_| Body::new(Broken(false)));
    let (loud, quiet) = (true, false);
    for (auth, requests, said, advice, fields, again) in [
        (
            it.auth(),
            twice(|| sent("POST", &[])),
            "no X-Inngest-Signature header",
            "Inngest signs its calls: if genuine calls are rejected, configure proxies to forward \
             the header; to use a dev server, which does not sign, set INNGEST_DEV=1, only on a \
             development machine",
            r#"kind="missing" method="POST""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| sent("PUT", &[("x-inngest-server-kind", "cloud")])),
            "no X-Inngest-Signature header",
            "anyone can send unsigned syncs, and a self-hosted server's UI and `curl -X PUT` do; a \
             server that has the key sends a signed one a few seconds later, so wait for that; \
             INNGEST_ENABLE_UNAUTHED_SYNC=1 would let anyone request a sync",
            r#"kind="missing" method="PUT""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| sent("PUT", &[dev])),
            "no X-Inngest-Signature header",
            DEV_SERVER,
            r#"kind="missing" method="PUT""#,
            quiet,
        ),
        // An empty header is not malformed: a server without a key sends it.
        (
            it.auth(),
            twice(|| sent("PATCH", &[empty])),
            "no X-Inngest-Signature header",
            DEV_SERVER,
            r#"kind="missing" method="PATCH""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| sent("POST", &[signature(&genuine), signature(&genuine)])),
            "more than one X-Inngest-Signature header",
            "if genuine calls are rejected, configure proxies to forward the header once and \
             unchanged",
            r#"kind="doubled" method="POST""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| sent("POST", &[signature(&joined)])),
            "more than one X-Inngest-Signature, joined by commas into one header",
            "if genuine calls are rejected, look for a proxy that joins headers, and configure it \
             to forward a single one",
            r#"kind="doubled" method="POST""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| sent("BREW", &[signature("lol")])),
            "the signature has a parameter that is not `name=value` in visible ASCII",
            "Inngest does not send such a header: if genuine calls are rejected, look for a proxy \
             that changes it",
            r#"kind="malformed" method="other""#,
            quiet,
        ),
        (
            it.auth(),
            twice(|| it.stale(CALL, "{}")),
            "the signature is older than the tolerance",
            "if genuine calls are rejected, synchronize this machine's clock by NTP, and look for \
             a queue in front of the app; a replayed captured request looks the same",
            r#"kind="stale" method="POST" age_seconds=3601"#,
            loud,
        ),
        (
            it.auth(),
            twice(|| sent("POST", &[signature(&future)])),
            "the signature is further in the future than the tolerance allows",
            "if genuine calls are rejected, synchronize this machine's clock by NTP",
            r#"kind="future" method="POST" age_seconds=-301"#,
            loud,
        ),
        (
            it.auth(),
            twice(|| {
                // A control character, and more text than is logged.
                let coding = "gzip\u{9b}".to_owned() + &"x".repeat(300);
                let coding = HeaderValue::from_bytes(coding.as_bytes()).unwrap();
                let mut request = it.tampered(CALL, "{}");
                request.headers_mut().insert(CONTENT_ENCODING, coding);
                request
            }),
            "no key matches the signature",
            "if genuine calls are rejected, set INNGEST_SIGNING_KEY to the signing key of the \
             environment that calls, and configure proxies to forward bodies unchanged; for a key \
             that ends in -HEX, `printf %s HEX | xxd -r -p | sha256sum | cut -c1-12` prints the \
             fingerprint that keys_tried shows",
            &*format!(
                r#"kind="wrong_signature" method="POST" age_seconds=0 keys_tried="b2ed992186a5 {}" body_bytes=3 content_encoding="gzip\u{{9b}}{}""#,
                key("87654321").fingerprint(),
                "x".repeat(250),
            ),
            loud,
        ),
        (
            it.auth()
                .replay_guard(MemoryReplayStore::new(100, it.clock())),
            twice(|| it.call(CALL, "{}")),
            "signed before this process started: another process may have accepted it",
            "no action needed: Inngest's next attempt is accepted",
            r#"kind="before_start" method="POST""#,
            loud,
        ),
        (
            it.auth().verified_backlog(0),
            twice(|| it.call(CALL, "x".repeat(64 * 1024 + 1))),
            "verified bodies waiting for the handler have used up the backlog",
            "let the handler accept more concurrent requests, or limit the concurrency of the \
             functions in Inngest",
            r#"kind="backlog_full" method="POST""#,
            loud,
        ),
        (
            it.auth().body_limit(1),
            twice(|| it.call(CALL, "{}")),
            "the body exceeds the limit",
            "Inngest sends up to 4 MiB: if genuine calls are rejected, set body_limit, and every \
             limit outside the layer, to at least that",
            r#"kind="body_too_large" method="POST""#,
            loud,
        ),
        (
            it.auth(),
            twice(broken),
            "failed to read the body",
            "the client closed the connection; if genuine calls are rejected, look for an outer \
             layer that aborts the body",
            r#"kind="body_broken" method="POST""#,
            quiet,
        ),
        (
            it.auth().body_budget(1),
            twice(broken),
            "unverified bodies have used up the memory budget",
            "raise body_budget only if genuine calls are rejected",
            r#"kind="over_budget" method="POST""#,
            loud,
        ),
        (
            it.auth().body_deadline(Duration::ZERO),
            twice(|| it.call(CALL, "{}").map(|_| Body::new(Hanging))),
            "the body did not arrive before its deadline",
            "raise body_deadline only if genuine calls are rejected",
            r#"kind="body_too_slow" method="POST""#,
            quiet,
        ),
    ] {
        let (log, _guard) = Log::begin(Level::INFO);
        let app = used(auth, &log);
        let [first, second] = requests;
        ask(&app, first).await;
        let expected = format!("rejected: {said}; {advice} {fields}");
        assert_eq!(line(&log.take()), Some(("WARN", &*expected)));
        ask(&app, second).await;
        let expected = format!("rejected: {said} {fields}");
        assert_eq!(
            line(&log.take()),
            (again == loud).then_some(("WARN", &*expected)),
            "again"
        );
    }
}

const DEV_SERVER: &str = "the sender seems to be a dev server, which has no signing key, but \
    anyone can send such a request: only on a development machine, set INNGEST_DEV=1";

/// The server's own fault has its level however often it occurs.
#[tokio::test(start_paused = true)]
async fn what_rejects_everything_is_logged_as_an_error_and_a_replay_as_a_warning() {
    let it = inngest();
    let (log, _guard) = Log::begin(Level::INFO);
    let stopped = TestClock::at(0);
    stopped.set(None);
    let app = used(it.auth().clock(stopped), &log);
    ask(&app, it.call(CALL, "{}")).await;
    let expected = r#"rejected: the clock cannot tell the time kind="no_time" method="POST""#;
    assert_eq!(line(&log.take()), Some(("ERROR", expected)));

    let app = used(InngestAuth::from_env(), &log);
    for _ in 0..2 {
        ask(&app, it.call(CALL, "{}")).await;
        let expected = "rejected: INNGEST_SIGNING_KEY is not set or blank: set it to your \
            environment's signing key, or set INNGEST_DEV=1 to develop without one \
            kind=\"unconfigured\" method=\"POST\"";
        assert_eq!(line(&log.take()), Some(("ERROR", expected)));
    }

    let app = Seen::default().app(it.auth().replay_guard(store(&it, 100)));
    ask(&app, it.call(CALL, "{}")).await;
    log.take();
    ask(&app, it.call(CALL, "{}")).await;
    let expected = "rejected: this signature was already accepted; turn off retries in proxies: \
        Inngest signs each of its own retries anew kind=\"replayed\" method=\"POST\"";
    assert_eq!(line(&log.take()), Some(("WARN", expected)));

    let app = used(it.auth().replay_guard(store(&it, 0)), &log);
    ask(&app, it.call(CALL, "{}")).await;
    let said = log.take();
    let (first, second) = said.split_once('\n').unwrap();
    let expected = "failed to check the replay store: cannot tell whether a request is a replay \
        error=replay store is full: raise its capacity admitted=false";
    assert_eq!(line(first), Some(("WARN", expected)));
    let expected =
        r#"rejected: the replay store is down or full kind="store_unavailable" method="POST""#;
    assert_eq!(line(second), Some(("WARN", expected)));
}

/// Inngest Cloud also probes every app with other environments' keys.
#[tokio::test]
async fn a_get_with_a_foreign_key_is_logged_at_debug() {
    let foreign = TestInngest::new(key("signkey-test-00"));
    for (method, run_id, level) in [
        ("GET", false, "DEBUG"),
        ("HEAD", false, "DEBUG"),
        // A re-entered durable endpoint.
        ("GET", true, "WARN"),
        ("POST", false, "WARN"),
        ("PUT", false, "WARN"),
    ] {
        let (log, _guard) = Log::begin(Level::DEBUG);
        let app = used(inngest().auth(), &log);
        let mut request = foreign.call("/api/inngest", "");
        *request.method_mut() = method.parse().unwrap();
        if run_id {
            request
                .headers_mut()
                .insert("x-run-id", HeaderValue::from_static("run"));
        }
        ask(&app, request).await;
        let said = log.take();
        let (logged, text) = line(&said).unwrap();
        assert_eq!(logged, level, "{method} {run_id}");
        assert!(text.contains(r#"kind="wrong_signature""#), "{text}");
        assert_eq!(
            text.contains("set INNGEST_SIGNING_KEY"),
            level == "WARN",
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_a_few_lines_a_minute_and_the_next_line_counts_the_rest() {
    let it = inngest();
    let (log, _guard) = Log::begin(Level::DEBUG);
    let app = used(it.auth(), &log);
    let kinds: [(Make<'_>, &str); 3] = [
        (&|| it.stale(CALL, "{}"), "stale"),
        (&|| it.tampered(CALL, "{}"), "wrong_signature"),
        (&|| it.unsigned(CALL, "{}"), "missing"),
    ];
    for (request, kind) in kinds {
        for _ in 0..300 {
            ask(&app, request()).await;
        }
        let said = log.take();
        assert_eq!(
            said.lines().count(),
            11,
            "one says what to do, ten what happened: {said}"
        );
        assert_eq!(
            said.matches(&format!("kind=\"{kind}\"")).count(),
            11,
            "{said}"
        );
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    for (request, _) in kinds {
        ask(&app, request()).await;
        let said = log.take();
        assert!(said.contains(" suppressed=289"), "{said}");
    }
    // The advice is logged again after an hour.
    tokio::time::advance(Duration::from_secs(60 * 60)).await;
    for (request, _) in kinds {
        ask(&app, request()).await;
        let said = log.take();
        assert!(said.contains("; ") && said.contains("WARN"), "{said}");
    }
}

/// A subscriber at DEBUG shows both.
#[tokio::test(start_paused = true)]
async fn a_flood_of_probes_does_not_hide_a_call_with_a_wrong_key() {
    let foreign = TestInngest::new(key("signkey-test-00"));
    let (log, _guard) = Log::begin(Level::DEBUG);
    let app = used(inngest().auth(), &log);
    for _ in 0..300 {
        let mut probe = foreign.call("/api/inngest", "");
        *probe.method_mut() = Method::GET;
        ask(&app, probe).await;
    }
    log.take();
    for _ in 0..2 {
        ask(&app, foreign.call(CALL, "{}")).await;
        let said = log.take();
        assert_eq!(line(&said).map(|(level, _)| level), Some("WARN"), "{said}");
    }
}

/// As a log pipeline reads the fields.
#[tokio::test]
async fn rejections_can_be_queried() {
    let it = inngest();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let app = used(it.auth(), &log);
    let mut coded = it.tampered(CALL, "{}");
    coded
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    let tried = format!("b2ed992186a5 {}", key("87654321").fingerprint());
    for (request, fields) in [
        (
            coded,
            json!({"kind": "wrong_signature", "method": "POST", "age_seconds": 0, "keys_tried": tried,
                "body_bytes": 3, "content_encoding": "br", "suppressed": null}),
        ),
        (
            it.stale(CALL, "{}"),
            json!({"kind": "stale", "method": "POST", "age_seconds": 3601, "keys_tried": null,
                "body_bytes": null, "content_encoding": null, "suppressed": null}),
        ),
    ] {
        ask(&app, request).await;
        let said: Value = serde_json::from_str(&log.take()).unwrap();
        for (name, expected) in fields.as_object().unwrap() {
            assert_eq!(
                said.get(name).unwrap_or(&Value::Null),
                expected,
                "{name} in {said}"
            );
        }
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn the_mode_is_logged_when_a_layer_is_built_and_the_settings_when_it_is_used() {
    let it = inngest();
    let from = |vars: &[(&'static str, &'static str)]| {
        InngestAuth::from_config(&Config::from_vars(vars.iter().copied()).unwrap())
    };
    let key_is = ("INNGEST_SIGNING_KEY", "signkey-test-12345678");
    let mode = |fallback: &str| {
        format!(
            "inngest-auth verifies every request mode=\"cloud\" key_prefix=\"signkey-test-\" \
             current_key=b2ed992186a5{fallback}"
        )
    };
    let settings = |tolerance, limit, sign, guard, sync| {
        format!(
            "inngest-auth layer added to a service tolerance_seconds={tolerance} \
             body_limit_bytes={limit} sign_responses=\"{sign}\" replay_guard={guard} \
             unsigned_sync={sync}"
        )
    };
    let (one, two) = (
        mode(""),
        mode(&format!(" fallback_key={}", key("87654321").fingerprint())),
    );
    let default = settings(300, 8_388_608, "required", false, false);
    let sync = settings(300, 8_388_608, "required", false, true);
    let all = settings(30, 4_194_304, "all", true, false);
    let tight = settings(300, 65_537, "required", false, false);
    let table: [(Build<'_>, Line<'_>, &[Line<'_>]); 9] = [
        (&|| from(&[key_is]), ("INFO", &one), &[("INFO", &default)]),
        (
            &|| {
                let auth = it
                    .auth()
                    .replay_guard(store(&it, 100))
                    .insecure_replay_fail_open(true);
                let auth = auth
                    .sign_responses(SignResponses::All)
                    .body_limit(4_194_304);
                auth.tolerance(Duration::from_secs(30))
            },
            ("INFO", &two),
            &[
                ("INFO", &all),
                (
                    "WARN",
                    "inngest-auth admits replays while the replay store is down or full: remove \
                     insecure_replay_fail_open unless losing calls is worse than running them \
                     twice",
                ),
            ],
        ),
        (
            &|| from(&[key_is, ("INNGEST_ENABLE_UNAUTHED_SYNC", "1")]),
            ("INFO", &one),
            &[
                ("INFO", &sync),
                (
                    "WARN",
                    "inngest-auth admits unsigned syncs, so anyone who can reach this service can \
                     request a sync: unset INNGEST_ENABLE_UNAUTHED_SYNC unless you need them (a \
                     self-hosted server repeats each sync, signed)",
                ),
            ],
        ),
        (
            &|| {
                it.auth()
                    .insecure_unsigned_sync(true)
                    .insecure_unsigned_sync(false)
            },
            ("INFO", &two),
            &[("INFO", &default)],
        ),
        // Just too little for one body, and just enough.
        (
            &|| {
                let auth = it.auth().body_limit(65_537);
                auth.body_budget(81_920).verified_backlog(65_536)
            },
            ("INFO", &two),
            &[
                ("INFO", &tight),
                (
                    "WARN",
                    "body_budget has no room for a body of body_limit: genuine calls of that size \
                     get 503; set body_budget to at least 16 KiB more than body_limit, which may \
                     be as low as 4 MiB body_limit_bytes=65537 body_budget_bytes=81920",
                ),
                (
                    "WARN",
                    "verified_backlog has no room for a body of body_limit: genuine calls of that \
                     size get 503; set verified_backlog to at least body_limit, which may be as \
                     low as 4 MiB body_limit_bytes=65537 verified_backlog_bytes=65536",
                ),
            ],
        ),
        (
            &|| {
                let auth = it.auth().body_limit(65_537);
                auth.body_budget(81_921).verified_backlog(65_537)
            },
            ("INFO", &two),
            &[("INFO", &tight)],
        ),
        (
            &InngestAuth::from_env,
            (
                "ERROR",
                "inngest-auth rejects every request: INNGEST_SIGNING_KEY is not set or blank: set \
                 it to your environment's signing key, or set INNGEST_DEV=1 to develop without one \
                 mode=\"unusable\"",
            ),
            &[],
        ),
        (
            &|| from(&[("INNGEST_DEV", "1")]),
            (
                "WARN",
                "dev mode: inngest-auth does NOT verify requests, so anyone who can reach this \
                 service can run its functions; unset INNGEST_DEV in production mode=\"dev\"",
            ),
            &[],
        ),
        (
            &|| from(&[("INNGEST_DEV", "1"), key_is]),
            (
                "ERROR",
                "dev mode: inngest-auth does NOT verify requests although a signing key is set, so \
                 anyone who can reach this service can run its functions; in production, unset \
                 INNGEST_DEV; on a development machine, unset the key mode=\"dev\"",
            ),
            &[],
        ),
    ];
    for (build, mode, settings) in table {
        let (log, _guard) = Log::begin(Level::INFO);
        let auth = build();
        let said = log.take();
        let said: Vec<_> = said
            .lines()
            .filter(|said| said.contains("layer::"))
            .collect();
        assert_eq!(
            said.iter().map(|said| line(said)).collect::<Vec<_>>(),
            [Some(mode)]
        );
        // Twice by two clones, and a third time as another layer with another setting.
        for auth in [auth.clone(), auth.body_deadline(Duration::from_secs(1))] {
            for app in [auth.clone(), auth].map(|auth| auth.layer(Seen::default().unguarded())) {
                app.oneshot(it.unsigned(CALL, "")).await.unwrap();
            }
            let said = log.take();
            let said: Vec<_> = said
                .lines()
                .filter(|said| said.contains("layer::start"))
                .collect();
            assert_eq!(
                said.iter()
                    .map(|said| line(said).unwrap())
                    .collect::<Vec<_>>(),
                settings
            );
        }
    }
}

/// With `env-filter` on and `RUST_LOG` unset, `tracing_subscriber::fmt::init()` shows errors only.
/// This runs in a separate process, because the subscriber is global.
#[test]
fn dev_mode_with_a_key_is_visible_even_where_only_errors_are() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "in_dev_mode_with_a_key",
            "--ignored",
            "--nocapture",
        ])
        .env_remove("RUST_LOG")
        .output();
    let said = String::from_utf8(child.unwrap().stdout).unwrap();
    let logged: Vec<_> = said
        .lines()
        .filter(|said| said.contains("inngest_auth::layer"))
        .collect();
    assert_eq!(logged.len(), 1, "{said}");
    assert!(
        logged[0].contains("ERROR") && logged[0].contains("unset INNGEST_DEV"),
        "{said}"
    );
}

#[test]
#[ignore = "sets the subscriber of the whole process"]
fn in_dev_mode_with_a_key() {
    tracing_subscriber::fmt::init();
    for key in ["signkey-test-12345678", ""] {
        let vars = [("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", key)];
        drop(Seen::default().app(InngestAuth::from_config(&Config::from_vars(vars).unwrap())));
    }
}

/// Calls carry no server kind, and a server without a key does not sign, so the signature decides.
#[tokio::test]
async fn a_signed_request_in_dev_mode_is_an_error_once() {
    let it = inngest();
    let expected = "a signed request arrived in dev mode and was NOT verified: in production, \
        unset INNGEST_DEV and set INNGEST_SIGNING_KEY (a dev server does not sign, but anyone can \
        send a signature header)";
    for (request, logs) in [
        (it.call(CALL, "{}"), true),
        (it.unsigned(CALL, "{}"), false),
        (sent("POST", &[(SIGNATURE_HEADER, "")]), false),
        (sent("POST", &[(SIGNATURE_HEADER, "lol")]), false),
        (sent("PUT", &[("x-inngest-server-kind", "cloud")]), false),
        (sent("PUT", &[("x-inngest-server-kind", "dev")]), false),
    ] {
        let (log, _guard) = Log::begin(Level::INFO);
        let app = used(InngestAuth::insecure_unverified_dev(), &log);
        assert_eq!(ask(&app, request).await.status, 200);
        assert_eq!(line(&log.take()), logs.then_some(("ERROR", expected)));
        ask(&app, it.call(CALL, "{}")).await;
        assert_eq!(log.take().is_empty(), logs, "once");
    }
}

#[tokio::test]
async fn clocks_that_drift_apart_are_a_warning_before_requests_are_rejected() {
    let it = inngest();
    let expected = "a verified request's time is off by more than half the tolerance: synchronize \
        this machine's clock by NTP, or look for a queue in front of the app, before requests \
        exceed the tolerance and are rejected";
    for (tolerance, ahead, age) in [
        (300, 0, None),
        (300, 150, None),
        (300, 151, Some(151)),
        (300, 300, Some(300)),
        (300, -150, None),
        (300, -151, Some(-151)),
        (10, 6, Some(6)),
    ] {
        let (log, _guard) = Log::begin(Level::INFO);
        let clock = TestClock::at(NOW.checked_add_signed(ahead).unwrap());
        let app = used(
            it.auth()
                .clock(clock)
                .tolerance(Duration::from_secs(tolerance)),
            &log,
        );
        assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, 200);
        let expected =
            age.map(|age| format!("{expected} age_seconds={age} tolerance_seconds={tolerance}"));
        assert_eq!(
            line(&log.take()),
            expected.as_deref().map(|text| ("WARN", text)),
            "{ahead}"
        );
        ask(&app, it.call(CALL, "{}")).await;
        assert_eq!(log.take(), "", "once");
    }
}

/// Syncs are signed over the canonical form, calls are not.
#[tokio::test]
async fn a_re_encoded_call_is_a_warning_although_it_is_verified() {
    let it = inngest();
    let expected = "a proxy re-encodes JSON: the signature of a call matches only the canonical \
        form of its body, and calls over 64 KiB are rejected; configure proxies to forward bodies \
        unchanged";
    for (method, warns) in [("POST", true), ("PUT", false), ("GET", false)] {
        let (log, _guard) = Log::begin(Level::INFO);
        let app = used(it.auth(), &log);
        for warns in [warns, false] {
            let mut request = it.call_in_canonical_form(CALL, "{}");
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(ask(&app, request).await.status, 200);
            assert_eq!(
                line(&log.take()),
                warns.then_some(("WARN", expected)),
                "{method}"
            );
        }
    }
}

#[tokio::test]
async fn the_first_use_of_the_fallback_after_a_change_is_logged_once() {
    let it = inngest();
    let (log, _guard) = Log::begin(Level::TRACE);
    let auth = it.auth();
    let ring = auth.keys().unwrap().clone();
    let app = Seen::default().app(auth);
    let said = |log: &Log| log.take().matches("signs with the fallback key").count();
    let shown = |text: &str| key(text).fingerprint().to_string();
    log.take();
    ask(&app, it.call_with_fallback(CALL, "1")).await;
    let first = log.take();
    assert!(
        first.contains("INFO")
            && first.contains(&shown("12345678"))
            && first.contains(&shown("87654321")),
        "{first}"
    );
    ask(&app, it.call_with_fallback(CALL, "2")).await;
    ask(&app, it.call(CALL, "3")).await;
    assert_eq!(said(&log), 0);
    ring.rotate(key("signkey-test-87654321"));
    assert_eq!(said(&log), 0);
    ask(&app, it.call(CALL, "4")).await;
    ask(&app, it.call(CALL, "5")).await;
    assert_eq!(said(&log), 1);
}

/// Returns a verified `PUT` that asks for an in-band sync.
fn in_band(it: &TestInngest) -> Request<Body> {
    let mut request = it.call("/api/inngest", "{}");
    *request.method_mut() = Method::PUT;
    request
}

/// Returns an app whose responses have these headers and this body.
fn responding(auth: InngestAuth, headers: &'static [(&str, &str)], body: fn() -> Body) -> Router {
    let respond = move || {
        let mut response = Response::new(body());
        for (name, value) in headers {
            response
                .headers_mut()
                .insert(*name, HeaderValue::from_static(value));
        }
        std::future::ready(response)
    };
    Router::new().fallback(respond).layer(auth)
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_response_without_its_required_signature_is_a_warning_once_with_the_reason() {
    const SYNC: &str = "the response to an in-band sync or a trust probe is sent unsigned, so \
        Inngest will not accept it: ";
    const ANY: &str = "the response is sent unsigned: ";
    const IN_BAND: (&str, &str) = ("x-inngest-sync-kind", "in_band");
    let it = inngest();
    let plain = || Body::from("a response");
    let stream = || Body::new(Body::from("{}").map_frame(|frame| frame));
    let trailers = || {
        Body::new(Body::from("{}").with_trailers(std::future::ready(Some(Ok(HeaderMap::new())))))
    };
    let required = || it.auth();
    let all = || it.auth().sign_responses(SignResponses::All);
    let full = || it.auth().replay_guard(store(&it, 1));
    for (auth, sync, headers, body, expected) in [
        (
            required(),
            true,
            &[IN_BAND][..],
            stream as fn() -> Body,
            Some((
                SYNC,
                "the body has no known length; return a buffered body instead of a stream",
                "stream",
            )),
        ),
        (
            required(),
            true,
            &[IN_BAND, ("content-encoding", "gzip")],
            plain,
            Some((
                SYNC,
                "it has a Content-Encoding; put compression outside the layer",
                "content_encoding",
            )),
        ),
        (
            required(),
            true,
            &[IN_BAND],
            Body::empty,
            Some((
                SYNC,
                "the body is empty; return the body that the SDK specification requires",
                "empty",
            )),
        ),
        (
            full(),
            true,
            &[IN_BAND],
            plain,
            Some((
                SYNC,
                "the replay store could not record it; restore the store",
                "not_recorded",
            )),
        ),
        (required(), false, &[], stream, None),
        (required(), true, &[IN_BAND], plain, None),
        // A handler that sets its own signature.
        (
            required(),
            true,
            &[IN_BAND, (SIGNATURE_HEADER, "t=1&s=1")],
            plain,
            None,
        ),
        (
            all(),
            false,
            &[("content-encoding", "gzip")],
            plain,
            Some((
                ANY,
                "it has a Content-Encoding; put compression outside the layer",
                "content_encoding",
            )),
        ),
        (
            all(),
            false,
            &[],
            trailers,
            Some((
                ANY,
                "it has trailers, which a signature does not cover; remove them",
                "trailers",
            )),
        ),
        (
            all(),
            false,
            &[],
            || Body::from(vec![b' '; 8 * 1024 * 1024 + 1]),
            Some((
                ANY,
                "the body is longer than 8 MiB; return a shorter one",
                "too_long",
            )),
        ),
        (all(), false, &[], Body::empty, None),
        (all(), false, &[], plain, None),
    ] {
        let (log, _guard) = Log::begin(Level::INFO);
        let app = responding(auth, headers, body).with_state(());
        log.take();
        let request = || {
            if sync {
                in_band(&it)
            } else {
                it.call(CALL, "{}")
            }
        };
        ask(&app, request()).await;
        let text = expected.map(|(what, why, reason)| format!("{what}{why} reason=\"{reason}\""));
        assert_eq!(
            line(&log.take()),
            text.as_deref().map(|text| ("WARN", text))
        );
        ask(&app, request()).await;
        assert!(!log.take().contains("unsigned"), "once");
    }
}

/// Each time, up to ten a minute: the handler has to be mended.
#[tokio::test]
async fn a_response_that_fails_while_it_is_buffered_is_an_error() {
    let it = inngest();
    let longer = "é".repeat(300);
    let long_error = move || Body::new(Fails(longer.clone()));
    let (log, _guard) = Log::begin(Level::INFO);
    let respond = move || std::future::ready(([("x-inngest-sync-kind", "in_band")], long_error()));
    let app = Router::new()
        .fallback(respond)
        .layer(it.auth())
        .with_state(());
    log.take();
    for _ in 0..2 {
        assert_eq!(ask(&app, in_band(&it)).await.status, 500);
        let expected = format!(
            "failed to buffer the response body for signing: {}",
            "é".repeat(128)
        );
        assert_eq!(line(&log.take()), Some(("ERROR", &*expected)));
    }
}

/// Each time, up to ten a minute: no request can be handled until the layer is added.
#[tokio::test]
async fn a_handler_that_no_layer_wraps_is_an_error() {
    let (log, _guard) = Log::begin(Level::INFO);
    let app = Router::new()
        .fallback(|_: Verified| async {})
        .with_state(());
    for _ in 0..2 {
        assert_eq!(ask(&app, sent("POST", &[])).await.status, 500);
        let expected = "no InngestAuth layer wraps this handler: add \
            `.layer(InngestAuth::from_env())` to its route";
        assert_eq!(line(&log.take()), Some(("ERROR", expected)));
    }
}

/// Once, when it is built. Later calls return the error.
#[tokio::test]
async fn an_outbound_layer_without_a_configuration_is_an_error_once() {
    let (log, _guard) = Log::begin(Level::INFO);
    let auth = InngestApiAuth::from_env();
    let expected = "cannot authenticate calls to Inngest's API: INNGEST_SIGNING_KEY is not set or \
        blank: set it to your environment's signing key, or set INNGEST_DEV=1 to develop without \
        one";
    assert_eq!(line(&log.take()), Some(("ERROR", expected)));
    let client = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let request = Request::post("https://api.inngest.com/").body(()).unwrap();
    assert!(auth.layer(client).oneshot(request).await.is_err());
    assert_eq!(log.take(), "");
}

/// Verified but too late: Inngest does not wait that long for the response to an in-band sync.
#[tokio::test]
async fn a_response_too_late_to_be_signed_is_a_warning_only_if_a_signature_is_required() {
    let it = inngest();
    for (request, sign, warns) in [
        (in_band(&it), SignResponses::Required, true),
        (it.call(CALL, "{}"), SignResponses::All, false),
    ] {
        it.clock().set(Some(NOW));
        let clock = it.clock().clone();
        let slow = move || {
            clock.set(Some(NOW + 301));
            std::future::ready(([("x-inngest-sync-kind", "in_band")], "{}"))
        };
        let (log, _guard) = Log::begin(Level::INFO);
        let app = Router::new()
            .fallback(slow)
            .layer(it.auth().sign_responses(sign))
            .with_state(());
        log.take();
        ask(&app, request).await;
        let said = log.take();
        assert_eq!(
            said.contains("the handler took longer than the tolerance; respond sooner"),
            warns,
            "{said}"
        );
        assert_eq!(said.contains("reason=\"too_late\""), warns, "{said}");
    }
}

#[test]
fn status_shows_what_a_layer_does() {
    let it = inngest();
    for (auth, words) in [
        (
            it.auth(),
            &[
                "b2ed992186a5",
                "tolerance: Tolerance(300)",
                "body_limit: 8388608",
                "replay_guard: false",
            ][..],
        ),
        (InngestAuth::insecure_unverified_dev(), &["mode: Dev"]),
    ] {
        let shown = format!("{auth:?}");
        for word in words {
            assert!(shown.contains(word), "{word} in {shown}");
        }
    }
}

#[test]
fn a_token_over_plain_http_to_another_machine_is_a_warning() {
    let (log, _guard) = Log::begin(Level::TRACE);
    for (api, dev, warns) in [
        ("http://inngest.internal:8288", "", true),
        // In dev mode there is no token.
        ("http://inngest.internal:8288", "1", false),
        ("https://inngest.internal", "", false),
        ("http://localhost:8288", "", false),
        ("http://127.0.0.1:8288", "", false),
    ] {
        let vars = [
            ("INNGEST_SIGNING_KEY", "signkey-test-ab"),
            ("INNGEST_API_BASE_URL", api),
            ("INNGEST_DEV", dev),
        ];
        drop(InngestApiAuth::from_config(
            &Config::from_vars(vars).unwrap(),
        ));
        let said = log.take();
        assert_eq!(
            said.contains("WARN") && said.contains("plain http"),
            warns,
            "{api}: {said}"
        );
    }
}

/// Sends requests as senders with a wrong key, or with a changed body, do. Checks the line that
/// follows the rejection. The second request of each row, within the hour, has none: a cause is
/// named once an hour.
#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_wrong_signature_is_explained_once_after_it_was_rejected() {
    const PROVED: &str = "proved cause of a wrong signature: ";
    const SUSPECTED: &str =
        "suspected cause of a wrong signature, though anyone can send such a request: ";
    let it = TestInngest::new(key("signkey-test-12345678")).fallback(key("signkey-test-abcdef12"));
    let sent =
        |method: &str, hmac_key: &str, signed: &str, body: &[u8], coding: Option<&'static str>| {
            // A prefix is removed once.
            let signature = odd_key(&format!("signkey-x-{hmac_key}"))
                .sign(signed.as_bytes(), NOW)
                .to_string();
            let request = Request::builder()
                .method(method)
                .uri(CALL)
                .header(SIGNATURE_HEADER, signature);
            let mut request = request.body(Body::from(body.to_vec())).unwrap();
            if let Some(coding) = coding {
                request
                    .headers_mut()
                    .insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            request
        };
    let (right, foreign, left_on) = ("12345678", "00", "signkey-test-12345678");
    let large = [&b"["[..], &vec![b'1'; 300 * 1024]].concat();
    for (method, hmac_key, signed, body, coding, expected) in [
        (
            "POST",
            left_on,
            "{}",
            &b"{}"[..],
            None,
            Some((
                PROVED,
                "the sender signs with the key's prefix included, as a self-hosted server does if \
                 it was started with a prefixed key; start that server with the bare hex digits",
                "prefix_left_on",
                true,
            )),
        ),
        (
            "POST",
            "\u{12}4Vx",
            "{}",
            b"{}",
            None,
            Some((
                PROVED,
                "the sender hex-decodes the key; it must use the hex digits themselves, as text",
                "hex_decoded",
                true,
            )),
        ),
        (
            "POST",
            "ABCDEF12",
            "{}",
            b"{}",
            None,
            Some((
                PROVED,
                "the sender's key differs from this app's only in upper and lower case; set \
                 INNGEST_SIGNING_KEY to exactly the key that the sender uses",
                "other_case",
                true,
            )),
        ),
        (
            "POST",
            right,
            "{}\n",
            b"{}",
            None,
            Some((
                PROVED,
                "a proxy adds or removes a newline at the end of the body; configure proxies to \
                 forward bodies unchanged",
                "body_newline",
                true,
            )),
        ),
        (
            "POST",
            right,
            "no time",
            format!("no time{NOW}").as_bytes(),
            None,
            Some((
                PROVED,
                "the signature covers a time other than its own `t`, or no time; either the \
                 sender does not sign the `t` that it sends, or someone changed the `t` of a \
                 captured request",
                "other_time",
                true,
            )),
        ),
        // The fallback key.
        (
            "POST",
            "abcdef12\n",
            "{}",
            b"{}",
            None,
            Some((
                PROVED,
                "the sender's key ends in white space, such as a newline; remove it from the \
                 sender's secret",
                "white_space",
                true,
            )),
        ),
        (
            "POST",
            right,
            "one\ntwo\n",
            b"one\r\ntwo\r\n",
            None,
            Some((
                PROVED,
                "a proxy changes the body's line endings between LF and CRLF; configure proxies to \
                 forward bodies unchanged",
                "line_ends",
                true,
            )),
        ),
        (
            "POST",
            right,
            "{}",
            b"",
            None,
            Some((
                SUSPECTED,
                "the body is empty; look for a redirect, or for an outer layer that consumes the \
                 body",
                "empty_body",
                false,
            )),
        ),
        (
            "POST",
            right,
            "{}",
            b"?",
            Some("br"),
            Some((
                SUSPECTED,
                "the body is compressed; put decompression outside the layer",
                "compressed",
                false,
            )),
        ),
        (
            "POST",
            right,
            "{}",
            &large,
            None,
            Some((
                SUSPECTED,
                "the body is JSON that a proxy may have re-encoded, and over 64 KiB only the \
                 exact bytes are compared; configure proxies to forward bodies unchanged",
                "reencoded",
                false,
            )),
        ),
        ("POST", foreign, "{}", b"{}", Some("identity"), None),
        // A probe from Inngest Cloud.
        ("GET", foreign, "", b"", None, None),
        ("GET", left_on, "", b"", None, None),
    ] {
        let (log, _guard) = Log::begin(Level::INFO);
        let app = used(it.auth(), &log);
        for expected in [expected, None] {
            assert_eq!(
                ask(&app, sent(method, hmac_key, signed, body, coding))
                    .await
                    .status,
                401
            );
            tokio::task::yield_now().await;
            let said = log.take();
            let mut lines = said.lines().filter(|said| !said.contains("rejected: "));
            let text = expected.map(|(what, why, cause, proved)| {
                format!("{what}{why} cause=\"{cause}\" proved={proved}")
            });
            assert_eq!(
                lines.next().and_then(line),
                text.as_deref().map(|text| ("WARN", text))
            );
            assert_eq!(lines.next(), None);
        }
    }
}

/// No key, no token, no MAC and no body.
#[tokio::test]
async fn no_secret_is_ever_logged() {
    let (log, _guard) = Log::begin(Level::TRACE);
    let secret = "5ec2e7005ec2e700";
    let key = key(&format!("signkey-prod-{secret}"));
    let ring = KeyRing::from(Keys::new(key.clone(), None));
    let it = inngest();
    let auth = InngestAuth::new(ring.clone())
        .clock(it.clock().clone())
        .insecure_unsigned_sync(true);
    let app = Seen::default().app(auth.clone());
    let genuine = key.sign(b"body-text", common::NOW).to_string();
    for (header, body) in [
        (Some(&*genuine), "body-text"),
        (Some(&*genuine), "body-texts"),
        (Some("lol"), ""),
        (None, ""),
    ] {
        let mut request = Request::post("/").body(body.into()).unwrap();
        if let Some(header) = header {
            request
                .headers_mut()
                .insert(SIGNATURE_HEADER, header.parse().unwrap());
        }
        let response = ask(&app, request).await;
        tracing::info!(extensions = ?response.extensions, "shown");
    }
    ring.rotate(common::key("signkey-prod-5ec2e7015ec2e701"));
    ring.retire_fallback();
    let bearers = ring.bearers();
    tracing::info!(?auth, ?ring, ?key, ?bearers, signature = ?key.sign(b"", common::NOW), "shown");
    let said = log.take();
    let token = key
        .bearer()
        .as_str()
        .trim_start_matches("signkey-prod-")
        .to_owned();
    let mac = genuine.split_once("&s=").unwrap().1;
    for never in [secret, "5ec2e701", &token, &token[13..], mac, "body-text"] {
        assert!(!said.contains(never), "{never} in {said}");
    }
    assert!(said.contains(&key.fingerprint().to_string()));
}

/// Makes two concurrent calls to an API that has a status for each key, and 401 for any other.
async fn call_api_twice(auth: &InngestApiAuth, known: &[(&str, u16)]) {
    let known: Vec<_> = known
        .iter()
        .map(|(text, status)| (key(text), *status))
        .collect();
    let both_arrived = Arc::new(Barrier::new(2));
    let client = service_fn(move |request: Request<&'static str>| {
        let token = request.headers()["authorization"].to_str().unwrap();
        let has = |key: &SigningKey| token.ends_with(key.bearer().as_str());
        let status = known
            .iter()
            .find(|(key, _)| has(key))
            .map_or(401, |(_, status)| *status);
        let both_arrived = Arc::clone(&both_arrived);
        async move {
            both_arrived.wait().await;
            Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
        }
    });
    let api = auth.layer(client);
    let call = || {
        let request = Request::post("https://api.example/v1/signals")
            .body("{}")
            .unwrap();
        api.clone().oneshot(request)
    };
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(first.unwrap().status(), second.unwrap().status());
}

#[tokio::test]
async fn rejected_keys_are_logged_once_until_the_keys_change() {
    let (log, _guard) = Log::begin(Level::TRACE);
    let (new, old, next) = (
        "signkey-prod-aaaa1111",
        "signkey-prod-bbbb2222",
        "signkey-prod-cccc3333",
    );
    let ring = KeyRing::from(Keys::new(key(new), Some(key(old))));
    let auth = InngestApiAuth::new(ring.clone(), "https://api.example").unwrap();
    let learnt = "INFO inngest_auth::api::bearer: Inngest's API rejected the first key";
    let rejected = "WARN inngest_auth::api::bearer: Inngest's API has rejected every signing key";
    log.take();
    let mut all = String::new();
    for (known, expected) in [
        (&[(old, 200)][..], Some(learnt)),
        (&[(old, 200)], None),
        (&[(old, 403)], Some(rejected)),
        (&[(old, 403)], None),
        (&[(new, 200)], Some(learnt)),
    ] {
        call_api_twice(&auth, known).await;
        let said = log.take();
        assert_eq!(
            said.lines().count(),
            usize::from(expected.is_some()),
            "{said}"
        );
        if let Some(words) = expected {
            let [new, old] = [new, old].map(|text| key(text).fingerprint().to_string());
            for words in [words, &new, &old] {
                assert!(said.contains(words), "{words} in {said}");
            }
        }
        all.push_str(&said);
    }
    ring.replace(key(next));
    log.take();
    call_api_twice(&auth, &[]).await;
    let said = log.take();
    assert_eq!(said.matches(rejected).count(), 1, "{said}");
    all.push_str(&said);

    // With a single attempt, the warning comes at once if there is one key. With two keys it comes
    // after both failed. A rotation may change the key twice.
    for (keys, expected) in [
        (
            (key(new), None),
            &[Some(rejected), None, None, None, None][..],
        ),
        (
            (key(new), Some(key(old))),
            &[Some(learnt), Some(learnt), Some(rejected), None, None],
        ),
    ] {
        let auth = InngestApiAuth::new(Keys::from(keys), "https://api.example").unwrap();
        let client = service_fn(async |_| Response::builder().status(403).body(()));
        let api = auth.single_attempt().layer(client);
        for expected in expected {
            log.take();
            let request = Request::post("https://api.example/v1/signals")
                .body(())
                .unwrap();
            api.clone().oneshot(request).await.unwrap();
            let said = log.take();
            assert_eq!(
                said.lines().count(),
                usize::from(expected.is_some()),
                "{said}"
            );
            assert!(expected.is_none_or(|words| said.contains(words)), "{said}");
        }
    }
    for text in [new, old, next] {
        let token = key(text).bearer();
        for never in [
            &text["signkey-prod-".len()..],
            &token.as_str()["signkey-prod-".len() + 12..],
        ] {
            assert!(!all.contains(never), "{all}");
        }
    }
}
