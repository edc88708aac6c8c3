//! The replay store in memory: exact, bounded, and safe whatever its clock does.
#![cfg(feature = "layer")]

#[path = "common/hands.rs"]
mod hands;

use std::sync::Arc;
use std::time::Duration;

use hands::Hands;
use inngest_auth::Clock;
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::TestClock;

const NOW: u64 = 1_700_000_000;
/// The default tolerance plus the default skew.
const LIFETIME: u64 = 360;
const DAY: u64 = 86_400;

/// Returns a store that started long ago, and its clock at `NOW`.
fn store(capacity: usize) -> (MemoryReplayStore, Hands) {
    let clock = Hands::at(NOW - DAY);
    let store = MemoryReplayStore::new(capacity, &clock);
    clock.pass(DAY);
    (store, clock)
}

/// Returns a unique MAC.
fn mac(number: u64) -> [u8; 32] {
    let mut mac = [0; 32];
    // Spread over all bytes, like a real MAC.
    for (at, chunk) in mac.chunks_mut(8).enumerate() {
        let mixed = (number * 4 + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed.rotate_left(29).to_le_bytes());
    }
    mac
}

/// Returns a sighting that was signed and seen in the same second, with the default lifetime.
fn sighting(number: u64, now: u64) -> Sighting {
    Sighting::new(mac(number), now, now + LIFETIME, now)
}

async fn record(store: &impl ReplayStore, sighting: Sighting) -> Recorded {
    store.record(sighting).await.unwrap()
}

async fn fresh(store: &impl ReplayStore, sighting: Sighting) -> bool {
    record(store, sighting).await == Recorded::Fresh
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_tasks_with_one_mac_exactly_one_is_fresh() {
    let store = Arc::new(store(2000).0);
    for round in 0..1000 {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { fresh(&*store, sighting(round, NOW)).await })
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
async fn a_million_macs_are_all_remembered_and_then_all_forgotten() {
    const MANY: u64 = 1_000_000;
    let (store, _) = store(1_000_000);
    let at = |number: u64| sighting(number, NOW + number / 10_000);
    for number in 0..MANY {
        assert!(fresh(&store, at(number)).await, "{number}");
    }
    // The last of them arrived 99 s after the first, so all are still in the window.
    let mut accepted = 0;
    for number in 0..MANY {
        let mut again = at(number);
        again.now = NOW + LIFETIME;
        accepted += u64::from(fresh(&store, again).await);
    }
    assert_eq!((accepted, store.len()), (0, 1_000_000));
    // There is no room for another, and nothing is forgotten for it.
    let more = store.record(sighting(MANY, NOW + LIFETIME)).await;
    assert_eq!(more, Err(ReplayStoreError::Full));
    // All have expired. None takes room any more, and after a while they are gone.
    let later = NOW + 99 + LIFETIME + 1;
    for number in 0..MANY / 8 {
        assert!(
            fresh(&store, sighting(MANY + number, later)).await,
            "{number}"
        );
    }
    assert_eq!(store.len(), 125_000);
}

#[tokio::test]
async fn the_last_second_of_a_window_is_still_inside() {
    let (store, _) = store(10);
    assert!(store.is_empty());
    assert!(fresh(&store, sighting(1, NOW)).await);
    assert!(!store.is_empty());
    for now in [NOW, NOW + LIFETIME] {
        let again = Sighting::new(mac(1), NOW, NOW + LIFETIME, now);
        assert!(!fresh(&store, again).await);
        assert_eq!(store.len(), 1);
    }
    // It was forgotten. Yet it is rejected when the clock is set back to its window.
    assert!(fresh(&store, sighting(2, NOW + LIFETIME + 1)).await);
    assert_eq!(store.len(), 1);
    assert!(!fresh(&store, sighting(1, NOW)).await);
    assert!(
        !fresh(&store, sighting(3, NOW)).await,
        "it may have been seen"
    );
    assert!(fresh(&store, sighting(4, NOW + 1)).await);
    assert!(!fresh(&store, sighting(4, NOW + 1)).await);
}

#[tokio::test]
async fn a_window_that_has_closed_is_never_fresh() {
    let (store, _) = store(10);
    for (until, now, expected) in [
        (NOW, NOW, Recorded::Fresh),
        (NOW, NOW + 1, Recorded::Seen),
        (NOW - 1, NOW, Recorded::Seen),
        (0, u64::MAX, Recorded::Seen),
    ] {
        let sighting = Sighting::new(mac(until + now % 7), NOW, until, now);
        assert_eq!(
            record(&store, sighting).await,
            expected,
            "until {until}, at {now}"
        );
        let left = (expected == Recorded::Fresh).then_some(1);
        assert_eq!(sighting.seconds_left(), left);
    }
    assert!(store.len() <= 1, "nothing is held of what is not fresh");
}

/// Two layers share a store. For one, a call is fresh for 61 s; for the other, for 360 s.
#[tokio::test]
async fn layers_of_different_tolerances_share_a_store() {
    let (store, _) = store(100);
    let lived = |number, lives: u64, now: u64| Sighting::new(mac(number), NOW, NOW + lives, now);
    assert!(fresh(&store, lived(1, 61, NOW)).await);
    // Expired for the first layer, and forgotten before the second layer first uses the store.
    let later = NOW + 62;
    assert!(fresh(&store, Sighting::new(mac(2), later, later + 61, later)).await);
    assert_eq!(store.len(), 1);
    assert!(!fresh(&store, lived(1, LIFETIME, later)).await, "a replay");
    assert!(
        !fresh(&store, lived(3, LIFETIME, later)).await,
        "it may have been seen"
    );
    // From now on entries are kept for as long as either layer needs, and late calls are accepted.
    assert!(fresh(&store, Sighting::new(mac(4), later, later + 61, later)).await);
    for now in [later + 62, later + LIFETIME] {
        assert!(
            fresh(&store, Sighting::new(mac(now), now - 50, now + 11, now)).await,
            "late"
        );
        assert!(!fresh(&store, Sighting::new(mac(4), later, later + LIFETIME, now)).await);
    }
}

/// A captured call after a restart. The first process accepted it at `NOW`, and ended.
#[tokio::test]
async fn nothing_that_an_earlier_process_accepted_is_accepted_after_a_restart() {
    use Recorded::{BeforeStart, Fresh};

    // A restart, given by what the clock shows then. Each step is: how many seconds pass, how far
    // the clock is then set (before the store sees the time), when a call was signed, and the
    // result.
    type Step = (u64, i64, u64, Recorded);
    let table: &[(&str, u64, &[Step])] = &[
        (
            "at once",
            NOW,
            &[(0, 0, NOW, BeforeStart), (1, 0, NOW, BeforeStart)],
        ),
        (
            "later",
            NOW + 100,
            &[(1, 0, NOW, BeforeStart), (199, 0, NOW, BeforeStart)],
        ),
        (
            "within the clock error",
            NOW,
            &[
                (30, 0, NOW - 1, BeforeStart),
                (0, 0, NOW + 5, BeforeStart),
                (0, 0, NOW + 6, Fresh),
            ],
        ),
        (
            "a clock that is behind within the error",
            NOW - 5,
            &[(0, 0, NOW, BeforeStart), (300, 0, NOW, BeforeStart)],
        ),
        (
            "a clock that is a minute behind: the call is from the future",
            NOW - 60,
            &[(0, 0, NOW, BeforeStart), (54, 0, NOW, BeforeStart)],
        ),
        (
            "a clock that is a minute behind, and a call that tells",
            NOW - 60,
            &[
                (10, 0, NOW + 10, BeforeStart),
                (50, 0, NOW, BeforeStart),
                (0, 0, NOW + 5, BeforeStart),
                // The clock has caught up with the call that was signed after the start.
                (20, 0, NOW + 19, Fresh),
            ],
        ),
        (
            "a clock that was behind and is set right",
            NOW - 100,
            &[
                (20, 100, NOW, BeforeStart),
                (0, 0, NOW + 20, Fresh),
                (100, 0, NOW, BeforeStart),
            ],
        ),
        (
            "a clock that is set back behind the call",
            NOW,
            &[(100, 0, NOW + 100, Fresh), (0, -100, NOW, BeforeStart)],
        ),
        (
            "a clock that is set back after a lifetime",
            NOW,
            &[(DAY, 0, NOW + DAY, Fresh), (0, -86_400, NOW, BeforeStart)],
        ),
        (
            "a clock that is a day ahead, and then right",
            NOW + DAY,
            &[
                (10, -86_400, NOW + 10, BeforeStart),
                (351, 0, NOW + 361, Fresh),
                // When the clock shows the time of the start again, nothing special happens.
                (DAY - 361, 0, NOW + DAY, Fresh),
            ],
        ),
        (
            "a clock that could not tell the time",
            0,
            &[(10, 0, NOW + 10, BeforeStart), (351, 0, NOW + 361, Fresh)],
        ),
    ];
    for (what, shown, steps) in table {
        let clock = Hands::at(*shown);
        if *shown == 0 {
            clock.jump(None);
        }
        let store = MemoryReplayStore::new(100, &clock);
        if *shown == 0 {
            clock.jump(Some(NOW));
        }
        for (number, &(pass, set, signed_at, expected)) in steps.iter().enumerate() {
            clock.pass(pass);
            clock.jump(clock.now().unwrap().checked_add_signed(set));
            let now = clock.now().unwrap();
            let until = signed_at + LIFETIME;
            let sighting = Sighting::new(mac(number as u64), signed_at, until, now);
            let recorded = record(&store, sighting).await;
            // The layer never passes a stale signature to the store.
            assert!(
                signed_at.abs_diff(now) <= 300,
                "{what}, step {number}: not fresh"
            );
            assert_eq!(recorded, expected, "{what}, step {number}");
        }
    }
}

/// Both clocks, Inngest's and the store's, were a day ahead for a while, as on a machine that runs
/// both.
#[tokio::test]
async fn a_clock_a_day_ahead_does_not_cause_a_day_of_rejections() {
    let (store, clock) = store(1000);
    let mut number = 0;
    let mut sign = |clock: &Hands| {
        number += 1;
        sighting(number, clock.now().unwrap())
    };
    let mut seen = Vec::new();
    for set in [0, 86_400, -86_400] {
        clock.jump(clock.now().unwrap().checked_add_signed(set));
        for _ in 0..100 {
            clock.pass(10);
            let call = sign(&clock);
            assert!(fresh(&store, call).await, "{set}");
            seen.push(call);
        }
    }
    // A day later, what was accepted ahead of time is not accepted again.
    clock.jump(Some(NOW + 1000 + DAY));
    for _ in 0..100 {
        clock.pass(10);
        let now = clock.now().unwrap();
        for call in &seen {
            if call.signed_at.abs_diff(now) <= 300 {
                let mut again = *call;
                again.now = now;
                assert_eq!(record(&store, again).await, Recorded::Seen);
            }
        }
    }
}

#[tokio::test]
async fn the_clock_error_and_accepting_signatures_from_before_the_start_can_be_set() {
    for error in [0, 5, 14] {
        let clock = Hands::at(NOW);
        let error = Duration::from_secs(error);
        let store = MemoryReplayStore::new(10, &clock).clock_error(error);
        let last = NOW + error.as_secs();
        clock.pass(30);
        for (signed_at, expected) in [(last, Recorded::BeforeStart), (last + 1, Recorded::Fresh)] {
            let sighting = Sighting::new(mac(signed_at), signed_at, signed_at + LIFETIME, NOW + 30);
            assert_eq!(record(&store, sighting).await, expected, "{error:?}");
        }
    }
    // A service that scales to zero: the call that starts it is older than the process.
    let store = MemoryReplayStore::new(10, &Hands::at(NOW));
    let store = store.insecure_accept_signed_before_start(true);
    let call = Sighting::new(mac(1), NOW - 9, NOW - 9 + LIFETIME, NOW);
    assert_eq!(record(&store, call).await, Recorded::Fresh);
    assert_eq!(
        record(&store, call).await,
        Recorded::Seen,
        "once per process"
    );
    let store = store.insecure_accept_signed_before_start(false);
    let other = Sighting::new(mac(2), NOW - 9, NOW - 9 + LIFETIME, NOW);
    assert_eq!(record(&store, other).await, Recorded::BeforeStart);
    assert_eq!(record(&store, call).await, Recorded::Seen, "it was");
}

#[tokio::test]
async fn the_test_clock_lets_time_pass_for_a_store() {
    let clock = TestClock::at(NOW);
    let store = MemoryReplayStore::new(10, &clock);
    assert_eq!(
        record(&store, sighting(1, NOW)).await,
        Recorded::BeforeStart
    );
    clock.set(Some(NOW + 10));
    assert!(fresh(&store, sighting(2, NOW + 10)).await);
}

/// Nothing is accepted twice, and no more is held than the calls of one window.
#[tokio::test]
async fn a_busy_hour_loses_nothing_and_holds_no_more_than_a_window() {
    let (store, _) = store(10_000);
    for second in 0..3600 {
        let now = NOW + second;
        for number in 0..10 {
            assert!(fresh(&store, sighting(second * 10 + number, now)).await);
        }
        // Replays of the whole window, one for each second.
        for back in 0..=LIFETIME.min(second) {
            let mut again = sighting((second - back) * 10, now - back);
            again.now = now;
            assert!(
                !fresh(&store, again).await,
                "second {second}, {back} s back"
            );
        }
        assert!(store.len() <= 361 * 10, "{}", store.len());
    }
}

/// Everything that was ever captured, sent repeatedly in any order, takes no room.
#[tokio::test]
async fn captured_requests_cannot_fill_the_store() {
    let (store, _) = store(1000);
    for number in 0..999 {
        assert!(fresh(&store, sighting(number, NOW)).await);
    }
    for round in 0..1000 {
        for number in (0..999).step_by(7) {
            // Also when it is stale, from the future, or older than the store.
            for now in [NOW, NOW + round, NOW + 10 * round, NOW - round % 300] {
                let again = Sighting::new(mac(number), NOW, NOW + LIFETIME, now);
                assert_eq!(record(&store, again).await, Recorded::Seen);
            }
            let before = NOW - DAY - round;
            let old = Sighting::new(mac(number + 1000), before, NOW + LIFETIME, NOW);
            assert_eq!(record(&store, old).await, Recorded::BeforeStart);
        }
    }
    // The store still has its one free place, and reports when it has none.
    let genuine = NOW + 10 * 999;
    assert!(fresh(&store, sighting(5000, genuine)).await);
}

#[tokio::test]
async fn debug_of_a_store_contains_no_mac() {
    let (store, _) = store(10);
    let sighting = sighting(1, NOW);
    assert!(fresh(&store, sighting).await);
    assert_eq!(
        format!("{store:?}"),
        "MemoryReplayStore { capacity: 10, len: 1, .. }"
    );
    assert_eq!(
        format!("{sighting:?}"),
        "Sighting { signed_at: 1700000000, until: 1700000360, now: 1700000000, .. }"
    );
}
