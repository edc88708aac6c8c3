//! What the log says, at which level, and what it never says.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response};
use common::{CALL, NOW, Seen, ask, inngest, key};
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::testing::TestInngest;
use inngest_auth::{Config, InngestApiAuth, InngestAuth, KeyRing, Keys, SIGNATURE_HEADER, SigningKey};
use tokio::sync::Barrier;
use tower::{Layer, ServiceExt, service_fn};
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
    /// Everything that this thread says from now on.
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::TRACE)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn refusals_are_said_at_their_level_with_what_an_operator_needs() {
    let it = inngest();
    let (log, _guard) = Log::begin();
    let app = Seen::default().app(it.auth());
    log.take();
    let fingerprint = key("12345678").fingerprint().to_string();
    let mut malformed = it.call(CALL, "{}");
    malformed
        .headers_mut()
        .insert(SIGNATURE_HEADER, HeaderValue::from_static("lol"));
    for (request, words) in [
        (it.unsigned(CALL, "{}"), &["DEBUG", "no X-Inngest-Signature header"][..]),
        (malformed, &["DEBUG", "name=value"]),
        (
            it.stale(CALL, "{}"),
            &["WARN", "age_seconds: 3601", "compare the clocks"],
        ),
        (
            it.tampered(CALL, "{}"),
            &["WARN", "age_seconds: 0", "body_bytes: 3", &fingerprint],
        ),
    ] {
        ask(&app, request).await;
        let said = log.take();
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}

#[tokio::test]
async fn the_start_says_mode_keys_and_what_is_off() {
    let (log, _guard) = Log::begin();
    let config = |vars: &[(&'static str, &'static str)]| Config::from_vars(vars.iter().copied());
    let key_is = ("INNGEST_SIGNING_KEY", "signkey-test-12345678");
    for (vars, words) in [
        (
            &[key_is][..],
            &[
                "INFO",
                "mode=\"cloud\"",
                "b2ed992186a5",
                "unauthenticated sync, replay guard",
            ][..],
        ),
        (&[("INNGEST_DEV", "1")], &["WARN", "mode=\"dev\"", "verifies NOTHING"]),
        (
            &[key_is, ("INNGEST_ENABLE_UNAUTHED_SYNC", "1")],
            &["WARN", "anybody ask for a sync"],
        ),
        (
            &[key_is, ("INNGEST_SIGNING_KEY_FALLBACK", key_is.1)],
            &["WARN", "INNGEST_SIGNING_KEY_FALLBACK equals"],
        ),
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-AA")],
            &["WARN", "INNGEST_SIGNING_KEY contains upper-case hex digits"],
        ),
        (
            &[key_is, ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-prod-0123")],
            &["WARN", "INNGEST_SIGNING_KEY_FALLBACK has fewer than 32 hex digits"],
        ),
    ] {
        drop(InngestAuth::from_config(&config(vars).unwrap()));
        let said = log.take();
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}

#[tokio::test]
async fn dev_mode_warns_when_the_cloud_calls_and_a_key_is_set() {
    let (log, _guard) = Log::begin();
    let from = |kind: &'static str| {
        Request::post("/")
            .header("x-inngest-server-kind", kind)
            .body("".into())
            .unwrap()
    };
    for (vars, kind, warns) in [
        (
            &[("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", "signkey-test-ab")][..],
            "cloud",
            true,
        ),
        (
            &[("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", "signkey-test-ab")],
            "dev",
            false,
        ),
        (&[("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", " ")], "cloud", false),
        (&[("INNGEST_DEV", "1")], "cloud", false),
    ] {
        let config = Config::from_vars(vars.iter().copied()).unwrap();
        let app = Seen::default().app(InngestAuth::from_config(&config));
        log.take();
        assert_eq!(ask(&app, from(kind)).await.status, 200);
        let said = log.take();
        assert_eq!(
            said.contains("WARN") && said.contains("unset INNGEST_DEV"),
            warns,
            "{vars:?} {kind}: {said}"
        );
    }
}

#[tokio::test]
async fn the_first_use_of_the_fallback_after_a_change_is_said_once() {
    let it = inngest();
    let (log, _guard) = Log::begin();
    let auth = it.auth();
    let ring = auth.keys().unwrap().clone();
    let app = Seen::default().app(auth);
    let said = |log: &Log| log.take().matches("signs with the fallback key").count();
    let shown = |text: &str| key(text).fingerprint().to_string();
    log.take();
    ask(&app, it.call_with_fallback(CALL, "1")).await;
    let first = log.take();
    assert!(
        first.contains("INFO") && first.contains(&shown("12345678")) && first.contains(&shown("87654321")),
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

/// A verified `PUT` that asks for a sync in band, and an app whose response says that it is one.
fn in_band(it: &TestInngest) -> Request<Body> {
    let mut request = it.call("/api/inngest", "{}");
    *request.method_mut() = Method::PUT;
    request
}

fn responding(auth: InngestAuth, body: impl Fn() -> Body + Clone + Send + Sync + 'static) -> Router {
    let respond = move || std::future::ready(([("x-inngest-sync-kind", "in_band")], body()));
    Router::new().fallback(respond).layer(auth)
}

#[tokio::test]
async fn an_in_band_sync_whose_response_cannot_be_signed_is_a_warning_with_the_reason() {
    let it = inngest();
    let (log, _guard) = Log::begin();
    let stream = || {
        let body = http_body_util::BodyExt::map_frame(Body::from("{}"), |frame| frame);
        Body::from_stream(http_body_util::BodyDataStream::new(body))
    };
    let app = responding(it.auth(), stream);
    let call = it.call(CALL, "{}");
    for (request, warns) in [(in_band(&it), true), (call, false)] {
        log.take();
        assert_eq!(ask(&app, request).await.header(SIGNATURE_HEADER), None);
        let said = log.take();
        assert_eq!(
            said.contains("WARN") && said.contains("in-band sync") && said.contains("Stream"),
            warns,
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_in_band_sync_whose_response_cannot_be_recorded_is_a_warning() {
    let it = inngest();
    let (log, _guard) = Log::begin();
    // Room for the request; and for its response too.
    for (capacity, warns) in [(1, true), (2, false)] {
        it.clock().set(Some(NOW - 60));
        let store = MemoryReplayStore::new(capacity, it.clock());
        it.clock().set(Some(NOW));
        let app = responding(it.auth().replay_guard(store), || "a response".into());
        log.take();
        let signed = ask(&app, in_band(&it)).await.headers.contains_key(SIGNATURE_HEADER);
        let said = log.take();
        assert_eq!(
            said.contains("in-band sync") && said.contains("NotRecorded"),
            warns,
            "{said}"
        );
        assert_eq!(signed, !warns);
    }
}

#[test]
fn a_layer_shows_what_it_does() {
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
        (InngestAuth::unverified_dev(), &["mode: Dev"]),
    ] {
        let shown = format!("{auth:?}");
        for word in words {
            assert!(shown.contains(word), "{word} in {shown}");
        }
    }
}

#[test]
fn a_token_over_plain_http_to_another_machine_is_a_warning() {
    let (log, _guard) = Log::begin();
    for (api, dev, warns) in [
        ("http://inngest.internal:8288", "", true),
        // There is no token.
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
        drop(InngestApiAuth::from_config(&Config::from_vars(vars).unwrap()));
        let said = log.take();
        assert_eq!(
            said.contains("WARN") && said.contains("plain http"),
            warns,
            "{api}: {said}"
        );
    }
}

/// Neither a key, nor a token, nor a MAC, nor a body.
#[tokio::test]
async fn no_secret_is_ever_said() {
    let (log, _guard) = Log::begin();
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
            request.headers_mut().insert(SIGNATURE_HEADER, header.parse().unwrap());
        }
        let answer = ask(&app, request).await;
        tracing::info!(extensions = ?answer.extensions, "shown");
    }
    ring.rotate(common::key("signkey-prod-5ec2e7015ec2e701"));
    ring.retire_fallback();
    let bearers = ring.bearers();
    tracing::info!(?auth, ?ring, ?key, ?bearers, signature = ?key.sign(b"", common::NOW), "shown");
    let said = log.take();
    let token = key.bearer().trim_start_matches("signkey-prod-").to_owned();
    let mac = genuine.split_once("&s=").unwrap().1;
    for never in [secret, "5ec2e701", &token, &token[13..], mac, "body-text"] {
        assert!(!said.contains(never), "{never} in {said}");
    }
    assert!(said.contains(&key.fingerprint().to_string()));
}

/// Two calls at once to an API that has a status for each key, and 401 for any other.
async fn call_api_twice(auth: &InngestApiAuth, known: &[(&str, u16)]) {
    let known: Vec<_> = known.iter().map(|(text, status)| (key(text), *status)).collect();
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
        let request = Request::post("https://api.example/v1/signals").body("{}").unwrap();
        api.clone().oneshot(request)
    };
    let (first, second) = tokio::join!(call(), call());
    assert_eq!(first.unwrap().status(), second.unwrap().status());
}

#[tokio::test]
async fn what_the_api_says_of_the_keys_is_logged_once_until_they_change() {
    let (log, _guard) = Log::begin();
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
        assert_eq!(said.lines().count(), usize::from(expected.is_some()), "{said}");
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

    // With a single attempt: at once if there is one key, and if there are two when both were
    // tried in vain. A rotation may change the key twice.
    for (keys, expected) in [
        ((key(new), None), &[Some(rejected), None, None, None, None][..]),
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
            let request = Request::post("https://api.example/v1/signals").body(()).unwrap();
            api.clone().oneshot(request).await.unwrap();
            let said = log.take();
            assert_eq!(said.lines().count(), usize::from(expected.is_some()), "{said}");
            assert!(expected.is_none_or(|words| said.contains(words)), "{said}");
        }
    }
    for text in [new, old, next] {
        let token = key(text).bearer();
        for never in [&text["signkey-prod-".len()..], &token["signkey-prod-".len() + 12..]] {
            assert!(!all.contains(never), "{all}");
        }
    }
}
