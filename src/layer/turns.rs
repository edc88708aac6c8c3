//! Limits how much hashing unauthenticated clients can cause beyond that of their own requests.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// The most bytes of hashing that can be saved up.
const MOST: u32 = 2 * 1024 * 1024;
/// How many bytes per microsecond are saved up: 4 MB a second, which is about a hundredth of a
/// core.
const REFILL: u128 = 4;

/// Grants turns, one at a time, to requests chosen at random.
///
/// A turn may cost more than was saved up. Then no request gets one until the debt is earned back.
/// While more than half of the most is saved up, every request gets a turn. With less, a request's
/// chance is in proportion to what is saved up, whatever the request costs and whenever it comes.
/// So clients that request many turns delay those of others, but cannot take all of them. If turns
/// were first come, first served, clients that time their requests could take all; if a turn had to
/// be saved up for, clients with cheap requests could take all from those with expensive ones.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

struct State {
    /// In bytes. Negative after an expensive turn.
    saved: i64,
    counted_at: Instant,
    taken: bool,
}

/// A turn, until it is dropped.
pub(super) struct Turn(Turns);

impl Turns {
    /// Takes a turn that hashes `cost` bytes, or returns `None`.
    pub(super) fn take(&self, cost: usize) -> Option<Turn> {
        self.take_at(Instant::now(), cost)
    }

    fn take_at(&self, now: Instant, cost: usize) -> Option<Turn> {
        let drawn = RandomState::new().build_hasher().finish() % u64::from(MOST / 2);
        let drawn = i64::try_from(drawn).expect("it is less than `MOST`");
        let mut state = self.lock();
        let earned = (now - state.counted_at).as_micros().saturating_mul(REFILL);
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        state.saved = state.saved.saturating_add(earned).min(MOST.into());
        state.counted_at = now;
        if state.taken || state.saved <= drawn {
            return None;
        }
        state.saved -= i64::try_from(cost).unwrap_or(i64::MAX);
        state.taken = true;
        drop(state);
        Some(Turn(self.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is locked")
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            saved: MOST.into(),
            counted_at: Instant::now(),
            taken: false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().taken = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CHEAP: usize = 24_000;
    const DEAR: usize = 1_234_567;

    #[tokio::test(start_paused = true)]
    async fn turns_are_one_at_a_time_and_bounded_by_their_cost() {
        let turns = Turns::default();
        let first = turns.take(3_000_000).unwrap();
        assert!(turns.take(0).is_none(), "one at a time");
        drop(first);
        // 900 kB were not saved up.
        for _ in 0..225 {
            assert!(turns.take(0).is_none(), "spent");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        tokio::time::advance(Duration::from_millis(300)).await;
        assert!(
            turns.take(3_000_000).is_some(),
            "half of the most is saved up"
        );
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(turns.take(3_000_000).is_some());
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(turns.take(0).is_none(), "no more than the most is saved up");
    }

    /// Without a key, a client cannot keep the cause of genuine mismatches from being found,
    /// however many wrong signatures it sends, whatever they cost and however it times them.
    #[test]
    fn a_flood_delays_the_turns_of_others_by_minutes_at_most() {
        for (seconds, flood, forged_cost, genuine_cost) in [
            (200, 10, CHEAP, CHEAP),
            (200, 10, CHEAP, DEAR),
            (900, 1, DEAR, CHEAP),
            (900, 1, DEAR, DEAR),
        ] {
            let turns = Turns::default();
            let begin = Instant::now();
            let (mut spent, mut asked, mut granted) = (0, 0, 0);
            for milliseconds in 0..1000 * seconds {
                let now = begin + Duration::from_millis(milliseconds);
                // The worst case: the forged requests are always there first.
                for _ in 0..flood {
                    spent += turns.take_at(now, forged_cost).map_or(0, |_| forged_cost);
                }
                // About ten genuine requests a second, once the flood has spent what was saved up.
                if milliseconds > 1000 && milliseconds % 97 == 0 {
                    let turn = turns.take_at(now, genuine_cost);
                    spent += turn.as_ref().map_or(0, |_| genuine_cost);
                    asked += 1;
                    granted += u32::from(turn.is_some());
                }
            }
            let what = format!("{flood}000 x {forged_cost} a second, beside {genuine_cost}");
            println!("{what}: {granted} of {asked} genuine requests had a turn in {seconds} s");
            assert!(granted > 0, "{what}");
            let most = 4_000_000 * usize::try_from(seconds).unwrap() + 2_097_152 + DEAR;
            assert!(spent < most, "{what}: {spent}");
        }
    }
}
