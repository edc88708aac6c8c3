//! What an attacker can do with a captured genuine request, using any method, URL and headers,
//! since only the body and the time are signed.
#![cfg(feature = "layer")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use common::{CALL, NOW, ask, inngest, key};
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::TestInngest;
use inngest_auth::{
    InngestAuth, Rejection, RejectionKind, SIGNATURE_HEADER, SignResponses, SigningKey, Tolerance,
};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY",
];
const URLS: [&str; 7] = [
    "/api/inngest",
    "/api/inngest?fnId=pay&stepId=step",
    "/api/inngest?fnId=%3Cscript%3E&stepId=other",
    "/api/inngest?probe=trust",
    "/api/inngest?probe=trust&fnId=pay",
    "/api/inngest?%70robe=trust",
    "/elsewhere",
];
const HEADERS: [(&str, &str); 3] = [
    ("x-inngest-sync-kind", "in_band"),
    ("x-run-id", "run"),
    ("x-inngest-server-kind", "cloud"),
];

/// Returns a store that started long before the requests that it sees.
fn store(it: &TestInngest, capacity: usize) -> MemoryReplayStore {
    it.clock().set(Some(NOW - 600));
    let store = MemoryReplayStore::new(capacity, it.clock());
    it.clock().set(Some(NOW));
    store
}

fn captured(key: &SigningKey, body: &'static str, method: &str, uri: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header(SIGNATURE_HEADER, key.sign(body.as_bytes(), NOW).to_string())
        .body(body.into())
        .unwrap()
}

/// Returns requests with every method, URL and header that a captured body can be sent with.
fn every_disguise(key: &SigningKey, body: &'static str) -> impl Iterator<Item = Request<Body>> {
    METHODS.into_iter().flat_map(move |method| {
        URLS.into_iter().flat_map(move |uri| {
            let key = key.clone();
            (0..1 << HEADERS.len()).map(move |chosen| {
                let mut request = captured(&key, body, method, uri);
                for (at, (name, value)) in HEADERS.into_iter().enumerate() {
                    if chosen >> at & 1 == 1 {
                        request.headers_mut().insert(name, value.parse().unwrap());
                    }
                }
                request
            })
        })
    })
}

/// Repeats what its request says: the body, the query, a header.
async fn echo(request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = format!(
        "{{\"not found\":{:?},\"body\":{body:?}}}",
        parts.uri.query()
    );
    // The status depends on the method, so that each status is covered.
    let status = if parts.method == Method::POST {
        404
    } else {
        200
    };
    Response::builder()
        .status(status)
        .body(text.into())
        .unwrap()
}

fn describe(request: &Request<Body>) -> String {
    format!(
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.headers().keys()
    )
}

/// A signature over bytes that an attacker chose would be a call with any input.
#[tokio::test]
async fn by_default_nothing_is_signed_but_the_probes_constant() {
    let it = inngest();
    let signing_key = key("signkey-test-12345678");
    let app = Router::new().fallback(echo).layer(it.auth());
    let mut signed = 0;
    for body in [r#"{"event":{"data":"captured"}}"#, "", "{}"] {
        for request in every_disguise(&signing_key, body) {
            let what = describe(&request);
            let response = ask(&app, request).await;
            let Some(header) = response.header(SIGNATURE_HEADER) else {
                continue;
            };
            signed += 1;
            assert_eq!(
                (response.status.as_u16(), &response.body[..]),
                (200, &b"{}"[..]),
                "{what}"
            );
            let expected = signing_key.sign(b"{}", NOW).to_string();
            assert_eq!(header, expected, "{what}: the request's own time");
        }
    }
    assert_eq!(
        signed,
        3 * 2 * 8,
        "probes by two spellings, with any header"
    );
}

#[tokio::test]
async fn a_sync_is_signed_only_if_its_200_response_says_in_band() {
    let it = inngest();
    let signing_key = key("signkey-test-12345678");
    for (method, uri, status, kind, signed) in [
        ("PUT", "/api/inngest", 200, Some("in_band"), true),
        ("PUT", "/api/inngest?a=b", 200, Some("in_band"), true),
        ("PUT", "/api/inngest", 200, None, false),
        ("PUT", "/api/inngest", 200, Some("in-band"), false),
        ("PUT", "/api/inngest", 200, Some("out_of_band"), false),
        ("PUT", "/api/inngest", 201, Some("in_band"), false),
        ("PUT", "/api/inngest", 404, Some("in_band"), false),
        ("PUT", "/api/inngest", 500, Some("in_band"), false),
        ("PUT", "/api/inngest?fnId=pay", 200, Some("in_band"), false),
        (
            "PUT",
            "/api/inngest?stepId=step",
            200,
            Some("in_band"),
            false,
        ),
        (
            "PUT",
            "/api/inngest?probe=trust",
            200,
            Some("in_band"),
            false,
        ),
        (
            "PUT",
            "/api/inngest?%66nId=pay",
            200,
            Some("in_band"),
            false,
        ),
        ("POST", "/api/inngest", 200, Some("in_band"), false),
        ("GET", "/api/inngest", 200, Some("in_band"), false),
        ("PATCH", "/api/inngest", 200, Some("in_band"), false),
    ] {
        let respond = move || {
            let mut response = Response::builder().status(status);
            if let Some(kind) = kind {
                response = response.header("x-inngest-sync-kind", kind);
            }
            std::future::ready(response.body(Body::from("{\"app_id\":\"a\"}")).unwrap())
        };
        for (rule, signed) in [
            (SignResponses::Required, signed),
            (SignResponses::All, (200..300).contains(&status)),
            (SignResponses::Never, false),
        ] {
            let app = Router::new()
                .fallback(respond)
                .layer(it.auth().sign_responses(rule));
            let mut request = captured(&signing_key, "{}", method, uri);
            request
                .headers_mut()
                .insert("x-inngest-sync-kind", "in_band".parse().unwrap());
            let response = ask(&app, request).await;
            assert_eq!(
                response.headers.contains_key(SIGNATURE_HEADER),
                signed,
                "{rule:?}: {method} {uri}, {status}, {kind:?}"
            );
        }
    }
}

/// Counts the requests that run something: everything except `GET` and `HEAD` without a body.
fn counting(auth: InngestAuth) -> (Router, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let handler = move |request: Request<Body>| {
        let count = Arc::clone(&count);
        async move {
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            let reentry = request.headers().contains_key("x-run-id");
            let empty = http_body::Body::is_end_stream(request.body());
            if !reads || !empty || reentry {
                count.fetch_add(1, Ordering::SeqCst);
            }
            "ran"
        }
    };
    (Router::new().fallback(handler).layer(auth), runs)
}

#[tokio::test]
async fn with_a_guard_a_captured_call_runs_once_whatever_its_disguise() {
    let signing_key = key("signkey-test-12345678");
    for rule in [
        SignResponses::Required,
        SignResponses::All,
        SignResponses::Never,
    ] {
        for body in [r#"{"event":1}"#, "not json", ""] {
            let it = inngest();
            let auth = it.auth().sign_responses(rule).replay_guard(store(&it, 100));
            let (app, runs) = counting(auth);
            // A genuine call, or a genuine re-entry of a durable endpoint.
            let mut genuine = captured(&signing_key, body, "POST", CALL);
            genuine
                .headers_mut()
                .insert("x-run-id", "run".parse().unwrap());
            assert_eq!(ask(&app, genuine).await.status, StatusCode::OK);
            for request in every_disguise(&signing_key, body) {
                ask(&app, request).await;
            }
            assert_eq!(runs.load(Ordering::SeqCst), 1, "{rule:?} {body:?}");
        }
    }
}

#[tokio::test]
async fn a_repeated_introspection_and_a_probe_in_one_second_all_get_a_response() {
    let it = inngest();
    let signing_key = key("signkey-test-12345678");
    let app = Router::new()
        .fallback(echo)
        .layer(it.auth().replay_guard(store(&it, 100)));
    let send = |method: &'static str, uri| ask(&app, captured(&signing_key, "", method, uri));
    for (method, uri, status) in [
        ("GET", "/api/inngest", 200),
        ("POST", "/api/inngest?probe=trust", 200),
        ("GET", "/api/inngest", 200),
        ("HEAD", "/api/inngest", 200),
        ("POST", "/api/inngest?probe=trust", 200),
        // The same signature must not run anything again.
        ("POST", CALL, 401),
        ("PUT", "/api/inngest", 401),
        ("DELETE", "/api/inngest", 401),
    ] {
        let response = send(method, uri).await;
        assert_eq!(response.status, status, "{method} {uri}");
        let probe = uri.contains("probe");
        assert_eq!(
            response.headers.contains_key(SIGNATURE_HEADER),
            probe,
            "{method} {uri}"
        );
    }
}

/// A `GET` with a body occurs: a server follows a redirect with it. Repeated, it is a replay like
/// any other.
#[tokio::test]
async fn a_get_that_may_run_something_is_accepted_once() {
    let signing_key = key("signkey-test-12345678");
    let reentry = |body| {
        let mut request = captured(&signing_key, body, "GET", "/durable");
        request
            .headers_mut()
            .insert("x-run-id", "run".parse().unwrap());
        request
    };
    for make in [
        &(|| captured(&signing_key, "{}", "GET", CALL)) as &dyn Fn() -> Request<Body>,
        &(|| captured(&signing_key, "{}", "HEAD", CALL)),
        &(|| reentry("")),
        &(|| reentry("{}")),
    ] {
        let it = inngest();
        let app = Router::new()
            .fallback(echo)
            .layer(it.auth().replay_guard(store(&it, 100)));
        assert_eq!(ask(&app, make()).await.status, StatusCode::OK);
        let again = ask(&app, make()).await;
        assert_eq!(
            again.extensions.get().map(Rejection::kind),
            Some(RejectionKind::Replayed)
        );
    }
}

/// With every response signed, each is a new signature. It must not be accepted as a call, by any
/// method.
#[tokio::test]
async fn a_signed_response_never_comes_back_as_a_request() {
    let it = inngest();
    let auth = it.auth().sign_responses(SignResponses::All);
    let (app, runs) = counting(auth.replay_guard(store(&it, 1000)));
    let response = ask(&app, it.call(CALL, "{}")).await;
    let header = response.header(SIGNATURE_HEADER).unwrap().to_owned();
    assert_eq!(&response.body[..], b"ran");
    for method in METHODS {
        for uri in URLS {
            let back = Request::builder()
                .method(method)
                .uri(uri)
                .header(SIGNATURE_HEADER, &header)
                .body(Body::from("ran"))
                .unwrap();
            ask(&app, back).await;
        }
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// Accepts everything, and counts the distinct signatures that it was given.
#[derive(Clone, Default)]
struct Distinct(Arc<std::sync::Mutex<std::collections::HashSet<[u8; 32]>>>);

impl ReplayStore for Distinct {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        let fresh = self.0.lock().unwrap().insert(sighting.mac);
        Ok(if fresh {
            Recorded::Fresh
        } else {
            Recorded::Seen
        })
    }
}

/// The worst case: the handler's responses differ each time, and every one is signed.
#[tokio::test]
async fn captured_requests_add_at_most_one_request_and_one_response_to_the_store() {
    let signing_key = key("signkey-test-12345678");
    let counter = Arc::new(AtomicU64::new(0));
    for body in ["", "{}", r#"{"event":1}"#] {
        let it = inngest();
        let store = Distinct::default();
        let auth = it
            .auth()
            .sign_responses(SignResponses::All)
            .replay_guard(store.clone());
        let counter = Arc::clone(&counter);
        let handler = move || {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(format!("response {number}"))
        };
        let app = Router::new().fallback(handler).layer(auth);
        for _ in 0..5 {
            for request in every_disguise(&signing_key, body) {
                ask(&app, request).await;
            }
        }
        // The request, its one response, and the probe's constant.
        let held = store.0.lock().unwrap().len();
        assert!(held <= 3, "{held} signatures for {body:?}");
    }
}

/// A store that responds only after the clock has moved on.
struct Slow(TestInngest, u64);

impl ReplayStore for Slow {
    async fn record(&self, _: Sighting) -> Result<Recorded, ReplayStoreError> {
        self.0.clock().set(Some(self.1));
        Ok(Recorded::Fresh)
    }
}

/// Returns a body whose last frame arrives when the clock shows `at`.
fn slow_body(it: &TestInngest, text: &'static str, at: u64) -> Body {
    let clock = it.clock().clone();
    let mut frames = [&text[..1], &text[1..]].into_iter();
    Body::from_stream(futures(std::iter::from_fn(move || {
        let frame = frames.next()?;
        if frame.len() == text.len() - 1 {
            clock.set(Some(at));
        }
        Some(Ok::<_, std::convert::Infallible>(frame))
    })))
}

fn futures<I: Iterator + Send + Unpin + 'static>(
    items: I,
) -> impl futures_core::Stream<Item = I::Item> {
    struct Iter<I>(I);
    impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
        type Item = I::Item;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<I::Item>> {
            std::task::Poll::Ready(self.0.next())
        }
    }
    Iter(items)
}

#[tokio::test]
async fn neither_a_slow_body_nor_a_slow_store_outlives_the_window() {
    let body = r#"{"event":1}"#;
    for (tolerance, body_at, store_at, kind) in [
        (2, NOW, None, None),
        (2, NOW + 2, None, None),
        (2, NOW + 3, None, Some(RejectionKind::Stale)),
        (1, NOW + 8, None, Some(RejectionKind::Stale)),
        (2, NOW + 2, Some(NOW + 2), None),
        (2, NOW, Some(NOW + 3), Some(RejectionKind::Stale)),
        // A clock that is set back in the meantime closes the window on the other side.
        (2, NOW - 3, None, Some(RejectionKind::Future)),
        (2, NOW, Some(NOW - 3), Some(RejectionKind::Future)),
    ] {
        let it = inngest();
        let tolerance = Tolerance::from_secs(tolerance);
        let mut auth = it.auth().tolerance(tolerance);
        if let Some(at) = store_at {
            auth = auth.replay_guard(Slow(it.clone(), at));
        }
        let (app, runs) = counting(auth);
        let mut request = it.call(CALL, body).map(|_| slow_body(&it, body, body_at));
        request.headers_mut().remove("content-length");
        let response = ask(&app, request).await;
        let what = format!("{tolerance:?}, body at {body_at}, store at {store_at:?}");
        assert_eq!(
            response.extensions.get().map(Rejection::kind),
            kind,
            "{what}"
        );
        assert_eq!(
            runs.load(Ordering::SeqCst),
            usize::from(kind.is_none()),
            "{what}"
        );
    }
}

/// A signature that is recorded after its window has closed may be forgotten at once. A replay of
/// it would then be new.
#[tokio::test]
async fn a_request_whose_window_has_closed_is_not_recorded() {
    let it = inngest();
    let body = r#"{"event":1}"#;
    let store = Distinct::default();
    let (app, runs) = counting(it.auth().replay_guard(store.clone()));
    let mut request = it.call(CALL, body).map(|_| slow_body(&it, body, NOW + 301));
    request.headers_mut().remove("content-length");
    assert_eq!(ask(&app, request).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        (store.0.lock().unwrap().len(), runs.load(Ordering::SeqCst)),
        (0, 0)
    );
}

/// The server's wait before each attempt, in seconds, unless a header sets another.
const BACK_OFF: [u64; 4] = [15, 30, 60, 120];

/// Retries as Inngest does: up to five attempts, after `Retry-After` if the response has it,
/// otherwise after Inngest's own back-off.
async fn run_until_done(app: &Router, it: &TestInngest, down_for: u64) -> (bool, Vec<u64>) {
    let started = NOW;
    let mut attempts = Vec::new();
    for attempt in 0..=BACK_OFF.len() {
        let now = it.clock().clone();
        let at = inngest_auth::Clock::now(&now).unwrap() - started;
        attempts.push(at);
        let response = ask(app, it.call(CALL, format!("{{\"attempt\":{attempt}}}"))).await;
        if response.status == StatusCode::OK {
            return (true, attempts);
        }
        assert!(
            at < down_for,
            "rejected {at} s after the start, with the store up"
        );
        let Some(own) = BACK_OFF.get(attempt) else {
            break;
        };
        let wait = response
            .header("retry-after")
            .map_or(*own, |it| it.parse().unwrap());
        now.set(Some(started + at + wait));
    }
    (false, attempts)
}

/// A store that is unavailable until a given time.
struct Away(TestInngest, u64);

impl ReplayStore for Away {
    async fn record(&self, _: Sighting) -> Result<Recorded, ReplayStoreError> {
        let now = inngest_auth::Clock::now(self.0.clock()).unwrap();
        if now < self.1 {
            return Err(ReplayStoreError::Unavailable("away".into()));
        }
        Ok(Recorded::Fresh)
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_outlives_a_store_that_is_away_for_less_than_its_back_off() {
    for (down_for, done, attempts) in [
        (0, true, &[0][..]),
        (25, true, &[0, 15, 45]),
        (100, true, &[0, 15, 45, 105]),
        (225, true, &[0, 15, 45, 105, 225]),
        (226, false, &[0, 15, 45, 105, 225]),
    ] {
        let it = inngest();
        let (app, runs) = counting(it.auth().replay_guard(Away(it.clone(), NOW + down_for)));
        let outcome = run_until_done(&app, &it, down_for).await;
        assert_eq!(outcome, (done, attempts.to_vec()), "away for {down_for} s");
        assert_eq!(runs.load(Ordering::SeqCst), usize::from(done));
    }
}
