//! Limits how much hashing unauthenticated clients can cause beyond that of their own requests.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// The most bytes of hashing that can be saved up.
const MOST: usize = 2 * 1024 * 1024;
/// How many bytes per microsecond are saved up: 4 MB a second, which is about a hundredth of a
/// core.
const REFILL: u128 = 4;

/// Grants turns, one at a time, as long as their cost was saved up. Cheap turns are granted even
/// while expensive ones are requested, because they need less to be saved up.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

struct State {
    /// In bytes.
    saved: usize,
    counted_at: Instant,
    taken: bool,
}

/// A turn, until it is dropped.
pub(super) struct Turn(Turns);

impl Turns {
    /// Takes a turn that hashes `cost` bytes, or returns `None`.
    pub(super) fn take(&self, cost: usize) -> Option<Turn> {
        let now = Instant::now();
        let mut state = self.lock();
        let earned = (now - state.counted_at).as_micros().saturating_mul(REFILL);
        let earned = usize::try_from(earned).unwrap_or(usize::MAX);
        state.saved = state.saved.saturating_add(earned).min(MOST);
        state.counted_at = now;
        if state.taken {
            return None;
        }
        state.saved = state.saved.checked_sub(cost)?;
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
            saved: MOST,
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

    #[tokio::test(start_paused = true)]
    async fn turns_are_one_at_a_time_and_bounded_by_their_cost() {
        let turns = Turns::default();
        let first = turns.take(MOST).unwrap();
        assert!(turns.take(0).is_none(), "one at a time");
        drop(first);
        assert!(turns.take(1).is_none(), "spent");
        tokio::time::advance(Duration::from_millis(100)).await;
        let earned = 400_000;
        assert!(turns.take(earned + 1).is_none());
        drop(turns.take(earned).unwrap());
        assert!(turns.take(1).is_none());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(turns.take(MOST + 1).is_none(), "no more is saved up");
        drop(turns.take(MOST).unwrap());
    }

    /// Constant requests for expensive turns leave room for cheap ones.
    #[tokio::test(start_paused = true)]
    async fn expensive_turns_do_not_starve_cheap_ones() {
        let turns = Turns::default();
        let (mut dear, mut cheap) = (0, 0);
        for _ in 0..10_000 {
            for _ in 0..10 {
                dear += u32::from(turns.take(MOST / 2).is_some());
            }
            cheap += u32::from(turns.take(50_000).is_some());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(cheap > 500 && dear < 30, "{cheap} cheap, {dear} dear");
    }
}
