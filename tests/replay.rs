//! The replay guard: each signature is accepted once.
#![cfg(feature = "layer")]

mod common;

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::{CALL, NOW, Seen, ask, inngest, key};
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::TestInngest;
use inngest_auth::{Rejection, RejectionKind, SIGNATURE_HEADER, SignResponses};

/// Returns a store that started a minute ago by the layer's clock.
fn store(it: &TestInngest, capacity: usize) -> MemoryReplayStore {
    it.clock().set(Some(NOW - 60));
    let store = MemoryReplayStore::new(capacity, it.clock());
    it.clock().set(Some(NOW));
    store
}

/// A store with fixed results, which counts its calls.
struct Fixed(fn() -> Result<Recorded, ReplayStoreError>, Arc<AtomicUsize>);

impl ReplayStore for Fixed {
    fn record(
        &self,
        _: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        self.1.fetch_add(1, Ordering::SeqCst);
        ready((self.0)())
    }
}

fn kind(response: &common::Reply) -> Option<RejectionKind> {
    response.extensions.get::<Rejection>().map(Rejection::kind)
}

#[tokio::test]
async fn a_captured_call_is_accepted_once_whatever_its_url() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().replay_guard(store(&it, 100)));
    assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    for uri in [CALL, "/api/inngest?fnId=other&stepId=step", "/elsewhere"] {
        let response = ask(&app, it.call(uri, "{}")).await;
        assert_eq!(
            (response.status, kind(&response)),
            (StatusCode::UNAUTHORIZED, Some(RejectionKind::Replayed))
        );
        assert_eq!(response.body, r#"{"message":"Unauthorized"}"#);
    }
    // Inngest signs its retry anew.
    it.clock().set(Some(NOW + 1));
    assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    assert_eq!(seen.count(), 2);
    // Without a guard both are accepted.
    let app = seen.app(it.auth());
    for _ in 0..2 {
        assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn get_and_head_are_recorded_and_never_rejected() {
    let it = inngest();
    let app = Seen::default().app(
        it.auth()
            .sign_responses(SignResponses::Never)
            .replay_guard(store(&it, 100)),
    );
    let signed = |method: &str| {
        let header = key("signkey-test-12345678").sign(b"", NOW).to_string();
        Request::builder()
            .method(method)
            .uri("/")
            .header(SIGNATURE_HEADER, header)
            .body(Body::empty())
            .unwrap()
    };
    for (method, status) in [
        ("GET", 200),
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 401),
        ("PUT", 401),
        ("GET", 200),
    ] {
        assert_eq!(ask(&app, signed(method)).await.status, status, "{method}");
    }
}

#[tokio::test]
async fn a_signed_response_cannot_be_sent_back_as_a_call() {
    let it = inngest();
    let app = axum::Router::new()
        .fallback(|| async { r#"{"response":1}"# })
        .layer(
            it.auth()
                .sign_responses(SignResponses::All)
                .replay_guard(store(&it, 100)),
        );
    let response = ask(&app, it.call(CALL, "{}")).await;
    let header = response.header(SIGNATURE_HEADER).unwrap();
    let back = Request::post(CALL)
        .header(SIGNATURE_HEADER, header)
        .body(Body::from(response.body.clone()))
        .unwrap();
    assert_eq!(kind(&ask(&app, back).await), Some(RejectionKind::Replayed));
}

#[tokio::test]
async fn only_what_is_verified_reaches_the_store() {
    let it = inngest();
    let asked = Arc::new(AtomicUsize::new(0));
    let store = Fixed(|| Ok(Recorded::Fresh), Arc::clone(&asked));
    let app = Seen::default().app(
        it.auth()
            .sign_responses(SignResponses::Never)
            .replay_guard(store),
    );
    for request in [
        it.unsigned(CALL, "{}"),
        it.tampered(CALL, "{}"),
        it.stale(CALL, "{}"),
    ] {
        ask(&app, request).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    ask(&app, it.call(CALL, "{}")).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_store_that_cannot_tell_rejects_unless_failing_open_was_chosen() {
    let it = inngest();
    for error in [(|| Err(ReplayStoreError::Full)) as fn() -> _, || {
        Err(ReplayStoreError::Unavailable("down".into()))
    }] {
        let auth = it.auth().replay_guard(Fixed(error, Arc::default()));
        let seen = Seen::default();
        let response = ask(&seen.app(auth.clone()), it.call(CALL, "{}")).await;
        assert_eq!(
            (response.status, response.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, None)
        );
        assert_eq!(
            (kind(&response), seen.count()),
            (Some(RejectionKind::StoreUnavailable), 0)
        );
        // These run nothing, so a repetition does no harm, but they are not signed.
        for (request, runs) in [(it.introspect("/"), 1), (it.probe("/"), 0)] {
            let seen = Seen::default();
            let response = ask(&seen.app(auth.clone()), request).await;
            assert_eq!((response.status, seen.count()), (StatusCode::OK, runs));
            assert_eq!(response.header(SIGNATURE_HEADER), None);
        }
        let response = ask(
            &seen.app(auth.insecure_replay_fail_open(true)),
            it.call(CALL, "{}"),
        )
        .await;
        assert_eq!((response.status, seen.count()), (StatusCode::OK, 1));
    }
}

#[tokio::test]
async fn a_response_that_cannot_be_recorded_is_sent_unsigned() {
    let it = inngest();
    // The store is full after the call itself; or the response equals the call's own body, which is
    // already recorded.
    let auth = it.auth().sign_responses(SignResponses::All);
    for capacity in [1, 2] {
        let app = Seen::default().app(auth.clone().replay_guard(store(&it, capacity)));
        let response = ask(&app, it.call(CALL, r#"{"a":1}"#)).await;
        assert_eq!(
            (response.status, response.header(SIGNATURE_HEADER)),
            (StatusCode::OK, None)
        );
    }
    let app = axum::Router::new()
        .fallback(|| async { "other" })
        .layer(auth.replay_guard(store(&it, 1)));
    let response = ask(&app, it.call(CALL, "{}")).await;
    assert_eq!(
        (response.status, response.header(SIGNATURE_HEADER)),
        (StatusCode::OK, None)
    );
}

/// Times (signed at, until, now), and for how many seconds to keep the entry.
type Times = (u64, u64, u64, u64);

/// A store that records times.
struct Until(Arc<std::sync::Mutex<Vec<Times>>>);

impl ReplayStore for Until {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        let left = sighting.seconds_left().unwrap();
        let times = (sighting.signed_at, sighting.until, sighting.now, left);
        self.0.lock().unwrap().push(times);
        Ok(Recorded::Fresh)
    }
}

#[tokio::test]
async fn a_signature_is_remembered_for_tolerance_and_skew() {
    let it = inngest();
    let untils = Arc::new(std::sync::Mutex::new(Vec::new()));
    let auth = it
        .auth()
        .sign_responses(SignResponses::Never)
        .replay_guard(Until(Arc::clone(&untils)));
    ask(&Seen::default().app(auth.clone()), it.call(CALL, "{}")).await;
    let call = it.call(CALL, "{}");
    it.clock().set(Some(NOW + 7));
    let auth = auth
        .tolerance(Duration::from_secs(10))
        .replay_skew(Duration::from_secs(5));
    ask(&Seen::default().app(auth.clone()), call).await;
    // The skew is limited to a day: Redis rejects a lifetime that overflows its clock.
    let auth = auth.replay_skew(Duration::MAX);
    ask(&Seen::default().app(auth), it.call(CALL, "{}")).await;
    assert_eq!(
        *untils.lock().unwrap(),
        [
            (NOW, NOW + 360, NOW, 3600 + 60 + 1),
            (NOW, NOW + 15, NOW + 7, 3600 + 5 - 7 + 1),
            (NOW + 7, NOW + 7 + 10 + 86_400, NOW + 7, 3600 + 86_400 + 1)
        ]
    );
}

/// A new process on the same machine.
#[tokio::test]
async fn after_a_restart_only_what_was_signed_later_is_accepted() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().replay_guard(store(&it, 100)));
    let call = |number: u8| it.call(CALL, format!("{{\"call\":{number}}}"));
    let [accepted, on_its_way] =
        [call(1), call(2)].map(|request| request.headers()[SIGNATURE_HEADER].clone());
    assert_eq!(ask(&app, call(1)).await.status, StatusCode::OK);

    let restarted = MemoryReplayStore::new(100, it.clock());
    let app = seen.app(it.auth().replay_guard(restarted));
    it.clock().set(Some(NOW + 10));
    for (number, header) in [(1, &accepted), (2, &on_its_way)] {
        let mut request = call(number);
        request
            .headers_mut()
            .insert(SIGNATURE_HEADER, header.clone());
        let response = ask(&app, request).await;
        assert_eq!(
            (response.status, kind(&response)),
            (StatusCode::UNAUTHORIZED, Some(RejectionKind::BeforeStart))
        );
        assert_eq!(response.body, r#"{"message":"Unauthorized"}"#);
        assert_eq!(response.header("retry-after"), None);
    }
    // Inngest's next attempt, signed anew.
    it.clock().set(Some(NOW + 15));
    assert_eq!(ask(&app, call(2)).await.status, StatusCode::OK);
    assert_eq!(seen.count(), 2);
}

/// A route with a short tolerance and a route with a long one share a store.
#[tokio::test]
async fn layers_of_different_tolerances_that_share_a_store_accept_a_call_once() {
    let it = inngest();
    let seen = Seen::default();
    let store = Arc::new(store(&it, 100));
    let auth = it.auth().replay_guard(Arc::clone(&store));
    let strict = auth
        .clone()
        .tolerance(Duration::from_secs(1))
        .replay_skew(Duration::ZERO);
    let [strict, lax] = [strict, auth].map(|auth| seen.app(auth));
    let captured = it.call(CALL, "{}").headers()[SIGNATURE_HEADER].clone();
    assert_eq!(
        ask(&strict, it.call(CALL, "{}")).await.status,
        StatusCode::OK
    );
    for second in [1, 2, 3, 100, 300] {
        it.clock().set(Some(NOW + second));
        // Other calls make the store forget what has expired.
        let other = it.call(CALL, format!("{{\"at\":{second}}}"));
        assert_eq!(ask(&strict, other).await.status, StatusCode::OK);
        let mut again = it.call(CALL, "{}");
        again
            .headers_mut()
            .insert(SIGNATURE_HEADER, captured.clone());
        let response = ask(&lax, again).await;
        assert_eq!(
            kind(&response),
            Some(RejectionKind::Replayed),
            "{second} s later"
        );
    }
}

/// The handler's responses differ each time, every one is signed, and every captured call is sent
/// by every method. The store must still have room for every genuine call.
#[tokio::test]
async fn neither_unverified_nor_captured_requests_can_fill_the_store() {
    const CALLS: usize = 20;
    let it = inngest();
    // A place for each call and its response, and one for the probes' constant, which they share.
    let store = Arc::new(store(&it, 2 * CALLS + 1));
    let said = Arc::new(AtomicUsize::new(0));
    let handler = move || {
        ready(format!(
            "{{\"said\":{}}}",
            said.fetch_add(1, Ordering::SeqCst)
        ))
    };
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .replay_guard(Arc::clone(&store));
    let app = axum::Router::new().fallback(handler).layer(auth);
    for number in 0..CALLS {
        let body = format!("{{\"call\":{number}}}");
        assert_eq!(
            ask(&app, it.call(CALL, body.clone())).await.status,
            StatusCode::OK,
            "{number}"
        );
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            for uri in [CALL, "/", "/api/inngest?probe=trust"] {
                for request in [
                    it.call(uri, body.clone()),
                    it.unsigned(uri, body.clone()),
                    it.tampered(uri, body.clone()),
                    it.stale(uri, body.clone()),
                ] {
                    let (mut parts, body) = request.into_parts();
                    parts.method = method.parse().unwrap();
                    ask(&app, Request::from_parts(parts, body)).await;
                }
            }
        }
    }
    assert_eq!(store.len(), 2 * CALLS + 1);
}
