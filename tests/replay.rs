//! The replay guard: each signature once.
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
use inngest_auth::testing::TestClock;
use inngest_auth::{Rejection, RejectionKind, SIGNATURE_HEADER};

fn store(capacity: usize) -> MemoryReplayStore {
    MemoryReplayStore::new(capacity, &TestClock::at(NOW))
}

/// A MAC that nothing else has, seen at `now` and to be remembered until `until`.
fn sighting(number: u64, now: u64, until: u64) -> Sighting {
    let mut mac = [0; 32];
    // Spread, as a MAC is.
    for (at, chunk) in mac.chunks_mut(8).enumerate() {
        let mixed = (number + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed.rotate_left(29).to_le_bytes());
    }
    Sighting {
        mac,
        signed_at: now,
        until,
        now,
    }
}

async fn fresh(store: &impl ReplayStore, sighting: Sighting) -> bool {
    store.record(sighting).await.unwrap() == Recorded::Fresh
}

/// A store of the test's own: what it answers, and how often it was asked.
struct Answers(fn() -> Result<Recorded, ReplayStoreError>, Arc<AtomicUsize>);

impl ReplayStore for Answers {
    fn record(&self, _: Sighting) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        self.1.fetch_add(1, Ordering::SeqCst);
        ready((self.0)())
    }
}

fn kind(answer: &common::Answer) -> Option<RejectionKind> {
    answer.extensions.get::<Rejection>().map(Rejection::kind)
}

#[tokio::test]
async fn a_captured_call_is_accepted_once_whatever_its_url() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().replay_guard(store(100)));
    assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    for uri in [CALL, "/api/inngest?fnId=other&stepId=step", "/elsewhere"] {
        let answer = ask(&app, it.call(uri, "{}")).await;
        assert_eq!(
            (answer.status, kind(&answer)),
            (StatusCode::UNAUTHORIZED, Some(RejectionKind::Replayed))
        );
        assert_eq!(answer.body, r#"{"message":"Unauthorized"}"#);
    }
    // Sent again by Inngest it is signed anew.
    it.clock().set(Some(NOW + 1));
    assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    assert_eq!(seen.count(), 2);
    // Without a guard nothing of this happens.
    let app = seen.app(it.auth());
    for _ in 0..2 {
        assert_eq!(ask(&app, it.call(CALL, "{}")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn get_and_head_are_recorded_and_never_refused() {
    let it = inngest();
    let app = Seen::default().app(
        it.auth()
            .sign_responses(inngest_auth::SignResponses::Never)
            .replay_guard(store(100)),
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
async fn an_answer_of_ours_cannot_come_back_as_a_call() {
    let it = inngest();
    let app = axum::Router::new()
        .fallback(|| async { r#"{"answer":1}"# })
        .layer(it.auth().replay_guard(store(100)));
    let answer = ask(&app, it.call(CALL, "{}")).await;
    let header = answer.header(SIGNATURE_HEADER).unwrap();
    let back = Request::post(CALL)
        .header(SIGNATURE_HEADER, header)
        .body(Body::from(answer.body.clone()))
        .unwrap();
    assert_eq!(kind(&ask(&app, back).await), Some(RejectionKind::Replayed));
}

#[tokio::test]
async fn only_what_is_verified_reaches_the_store() {
    let it = inngest();
    let asked = Arc::new(AtomicUsize::new(0));
    let store = Answers(|| Ok(Recorded::Fresh), Arc::clone(&asked));
    let app = Seen::default().app(
        it.auth()
            .sign_responses(inngest_auth::SignResponses::Never)
            .replay_guard(store),
    );
    for request in [it.unsigned(CALL, "{}"), it.tampered(CALL, "{}"), it.stale(CALL, "{}")] {
        ask(&app, request).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    ask(&app, it.call(CALL, "{}")).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_store_that_cannot_tell_refuses_unless_failing_open_was_chosen() {
    let it = inngest();
    for error in [(|| Err(ReplayStoreError::Full)) as fn() -> _, || {
        Err(ReplayStoreError::Unavailable("down".into()))
    }] {
        let auth = it.auth().replay_guard(Answers(error, Arc::default()));
        let seen = Seen::default();
        let answer = ask(&seen.app(auth.clone()), it.call(CALL, "{}")).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
        );
        assert_eq!(
            (kind(&answer), seen.count()),
            (Some(RejectionKind::StoreUnavailable), 0)
        );
        let answer = ask(&seen.app(auth.insecure_replay_fail_open(true)), it.call(CALL, "{}")).await;
        assert_eq!((answer.status, seen.count()), (StatusCode::OK, 1));
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_goes_out_unsigned() {
    let it = inngest();
    // Full after the call itself.
    let app = Seen::default().app(it.auth().replay_guard(store(1)));
    let answer = ask(&app, it.call(CALL, r#"{"a":1}"#)).await;
    // The handler's answer is the call's own body, recorded already.
    assert!(answer.header(SIGNATURE_HEADER).is_some());
    let app = axum::Router::new()
        .fallback(|| async { "other" })
        .layer(it.auth().replay_guard(store(1)));
    let answer = ask(&app, it.call(CALL, "{}")).await;
    assert_eq!((answer.status, answer.header(SIGNATURE_HEADER)), (StatusCode::OK, None));
}

/// A store that writes down times: signed at, until, now.
struct Until(Arc<std::sync::Mutex<Vec<(u64, u64, u64)>>>);

impl ReplayStore for Until {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        self.0
            .lock()
            .unwrap()
            .push((sighting.signed_at, sighting.until, sighting.now));
        Ok(Recorded::Fresh)
    }
}

#[tokio::test]
async fn a_signature_is_remembered_for_tolerance_and_skew() {
    let it = inngest();
    let untils = Arc::new(std::sync::Mutex::new(Vec::new()));
    let auth = it
        .auth()
        .sign_responses(inngest_auth::SignResponses::Never)
        .replay_guard(Until(Arc::clone(&untils)));
    ask(&Seen::default().app(auth.clone()), it.call(CALL, "{}")).await;
    let call = it.call(CALL, "{}");
    it.clock().set(Some(NOW + 7));
    let auth = auth
        .tolerance(Duration::from_secs(10))
        .replay_skew(Duration::from_secs(5));
    ask(&Seen::default().app(auth), call).await;
    assert_eq!(
        *untils.lock().unwrap(),
        [(NOW, NOW + 360, NOW), (NOW, NOW + 15, NOW + 7)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_tasks_with_one_mac_exactly_one_is_fresh() {
    let store = Arc::new(store(2000));
    for round in 0..1000 {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { fresh(&*store, sighting(round * 10, NOW, NOW + 360)).await })
            })
            .collect();
        let mut first = 0;
        for task in tasks {
            first += usize::from(task.await.unwrap());
        }
        assert_eq!(first, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_million_macs_are_all_remembered_and_then_all_given_back() {
    const MANY: u32 = 1_000_000;
    let store = store(MANY as usize);
    let at = |number: u32| {
        let second = NOW + u64::from(number) / 10_000;
        sighting(u64::from(number) * 10, second, second + 360)
    };
    for number in 0..MANY {
        assert!(fresh(&store, at(number)).await, "{number}");
    }
    // The last of them came 99 s after the first: all are still inside.
    let mut accepted = 0;
    for number in 0..MANY {
        let again = Sighting {
            now: NOW + 360,
            ..at(number)
        };
        accepted += u64::from(fresh(&store, again).await);
    }
    assert_eq!((accepted, store.len()), (0, MANY as usize));
    // One more has no room, and nothing is forgotten for it.
    let more = sighting(u64::from(MANY) * 10, NOW + 360, NOW + 720);
    assert!(matches!(store.record(more).await, Err(ReplayStoreError::Full)));
    // All have run out.
    let later = NOW + 99 + 361;
    assert!(fresh(&store, sighting(u64::from(MANY) * 10, later, later + 360)).await);
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn the_last_second_of_a_window_is_still_inside() {
    let store = store(10);
    assert!(store.is_empty());
    assert!(fresh(&store, sighting(1, NOW, NOW + 360)).await);
    assert!(!store.is_empty());
    for now in [NOW, NOW + 360] {
        let again = Sighting {
            now,
            ..sighting(1, NOW, NOW + 360)
        };
        assert!(!fresh(&store, again).await);
    }
    // Forgotten, and refused all the same when the clock is set back to when it was not.
    assert!(fresh(&store, sighting(2, NOW + 361, NOW + 721)).await);
    assert!(!fresh(&store, sighting(1, NOW, NOW + 360)).await);
    assert!(
        !fresh(&store, sighting(3, NOW, NOW + 360)).await,
        "it may have been seen"
    );
    assert!(fresh(&store, sighting(4, NOW + 1, NOW + 361)).await);
    assert!(!fresh(&store, sighting(4, NOW + 1, NOW + 361)).await);
}

#[tokio::test]
async fn what_was_signed_before_the_store_began_is_refused() {
    let store = store(10);
    assert!(!fresh(&store, sighting(1, NOW - 1, NOW + 359)).await);
    assert!(fresh(&store, sighting(1, NOW, NOW + 360)).await);
    let stopped = TestClock::at(0);
    stopped.set(None);
    let store = MemoryReplayStore::new(10, &stopped);
    assert!(!fresh(&store, sighting(1, NOW, NOW + 360)).await);
}

/// A busy hour: nothing is accepted twice, and no more is held than two windows' worth.
#[tokio::test]
async fn generations_follow_one_another_and_lose_nothing() {
    let store = store(10_000);
    for second in 0..3600 {
        let now = NOW + second;
        for number in 0..10 {
            assert!(fresh(&store, sighting((second * 10 + number) * 10, now, now + 360)).await);
        }
        // Replays of the whole window, one of each second.
        for back in 0..=360.min(second) {
            let again = Sighting {
                now,
                ..sighting((second - back) * 100, now - back, now - back + 360)
            };
            assert!(!fresh(&store, again).await, "second {second}, {back} s back");
        }
        assert!(store.len() <= 2 * 361 * 10, "{}", store.len());
    }
}
