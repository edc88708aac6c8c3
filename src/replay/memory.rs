//! The store of one process.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::ReplayStoreError;
use super::start::Start;
use super::{Recorded, ReplayStore, Sighting};
use crate::clock::Clock;

/// A replay store in memory, exact and bounded. For a service that runs in one process.
///
/// Each signature is remembered for the longest lifetime (tolerance and skew) that any of the
/// layers sharing the store asks for. When the store is full it rejects; it forgets nothing before
/// its time. What it cannot know it rejects: a signature that it may have forgotten, because the
/// clock was set back, is [`Seen`](Recorded::Seen).
///
/// # What was signed before the process started
///
/// An earlier process may have accepted it, and nothing remembers that. Such a signature is
/// [`BeforeStart`](Recorded::BeforeStart). After each start this rejects the calls that are on
/// their way, and those of the first seconds ([`clock_error`](Self::clock_error)). Inngest signs
/// its next attempt anew, 15 s later, and that passes.
///
/// **The promise:** nothing that an earlier process accepted is accepted again, provided that
///
/// 1. the earlier process accepts nothing any more when this one starts,
/// 2. at the start the machine's clock is not behind Inngest's by more than the clock error, and
/// 3. later it is not behind by more than the [skew](crate::InngestAuth::replay_skew).
///
/// In a rolling deploy two processes overlap, and each accepts what is signed meanwhile: use a
/// store that they share, or a clock error as long as the overlap.
///
/// With a clock further behind, nothing can tell a captured call from a new one. The store narrows
/// the gap in two ways:
///
/// - The time in a call that the layer has verified shows how late it really is. Once one has
///   reached the store that was signed after the start, and no longer ago than the clock error, the
///   clock does not matter any more. It need not be accepted for that.
/// - During the first lifetime of the process (360 s by default) a signature that lies further in
///   the future than the clock error proves that the clock is behind, and is `BeforeStart`. So a
///   machine with such a clock rejects calls for that long after each start: correct its clock.
///
/// What remains: a clock that is behind at the start, no call until the clock shows the time of the
/// captured one, and then that one first.
///
/// A clock that is *ahead* at the start opens nothing. It rejects calls for at most that lifetime,
/// however far ahead it is.
pub struct MemoryReplayStore {
    capacity: usize,
    clock: Box<dyn Clock>,
    /// In the clock's monotonic time.
    started: Duration,
    clock_error: u64,
    accepts_before_start: bool,
    state: Mutex<State>,
}

struct State {
    /// By time of signature, so that the first are those to forget.
    entries: BTreeSet<(u64, [u8; 32])>,
    forgotten: Seconds,
    /// The longest lifetime that was asked for. Layers of different tolerances can share a store.
    lifetime: u64,
    start: Start,
}

impl MemoryReplayStore {
    /// Creates a store that holds at most `capacity` entries, and starts now by `clock`.
    ///
    /// An entry takes about 70 bytes. The store needs one for each call of a lifetime (360 s by
    /// default), and one for each signed response.
    #[must_use]
    pub fn new(capacity: usize, clock: &(impl Clock + Clone)) -> Self {
        Self {
            capacity,
            started: clock.monotonic(),
            clock_error: 5,
            accepts_before_start: false,
            state: Mutex::new(State {
                entries: BTreeSet::new(),
                forgotten: Seconds::default(),
                lifetime: 0,
                start: Start::at(clock.now()),
            }),
            clock: Box::new(clock.clone()),
        }
    }

    /// Sets how far this machine's clock may be behind Inngest's when the process starts, in whole
    /// seconds (default: 5 s).
    ///
    /// Signatures up to this long *after* the start are rejected like those from before. The
    /// default covers a clock kept by NTP (well under a second), the rounding of both times to
    /// seconds, and a machine that has not been corrected for a few days. A call that it rejects
    /// passes at its second attempt, 15 s later; stay below that.
    #[must_use]
    pub fn clock_error(mut self, error: Duration) -> Self {
        self.clock_error = error.as_secs();
        self
    }

    /// Accepts signatures from before this process started: **once per process**, so a call that
    /// an earlier process accepted can be replayed to this one while it is fresh.
    ///
    /// For services that scale to zero, where the call that starts the process is always older than
    /// the process. Default: `false`.
    #[must_use]
    pub fn insecure_accept_signed_before_start(mut self, accept: bool) -> Self {
        self.accepts_before_start = accept;
        self
    }

    /// Returns the number of entries that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Returns `true` if the store holds no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that runs under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_now(&self, sighting: &Sighting) -> Result<Recorded, ReplayStoreError> {
        let uptime = self
            .clock
            .monotonic()
            .saturating_sub(self.started)
            .as_secs();
        let entry = (sighting.signed_at, sighting.mac);
        let mut state = self.state();
        // First, because every sighting teaches.
        let before_start = state.start.is_after(sighting, uptime, self.clock_error);
        state.lifetime = state.lifetime.max(sighting.lifetime());
        state.forget(sighting.now);
        let known = state.entries.contains(&entry) || state.forgotten.contains(sighting.signed_at);
        if known || sighting.seconds_left().is_none() {
            return Ok(Recorded::Seen);
        }
        if before_start && !self.accepts_before_start {
            return Ok(Recorded::BeforeStart);
        }
        if state.entries.len() >= self.capacity {
            return Err(ReplayStoreError::Full);
        }
        state.entries.insert(entry);
        Ok(Recorded::Fresh)
    }
}

impl State {
    /// Forgets what has run out: of each call more than it can add, and no more than is quick.
    fn forget(&mut self, now: u64) {
        const AT_ONCE: usize = 16;
        for _ in 0..AT_ONCE {
            match self.entries.first() {
                Some(&(signed_at, _)) if signed_at.saturating_add(self.lifetime) < now => {
                    self.entries.pop_first();
                    self.forgotten.add(signed_at);
                }
                _ => break,
            }
        }
    }
}

/// A set of seconds, kept as few ranges that cover it. What lies in them may have been forgotten.
///
/// One range, up to the latest, would do while clocks run forward. When both Inngest's clock and
/// ours have been a day ahead, it would reject every call for a day.
#[derive(Default)]
struct Seconds(Vec<RangeInclusive<u64>>);

impl Seconds {
    const MOST: usize = 16;

    fn contains(&self, second: u64) -> bool {
        self.0.iter().any(|range| range.contains(&second))
    }

    fn add(&mut self, second: u64) {
        if self.contains(second) {
            return;
        }
        let at = self.0.partition_point(|range| *range.end() < second);
        self.0.insert(at, second..=second);
        if self.0.len() > Self::MOST {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let gap = |&at: &usize| self.0[at + 1].start() - self.0[at].end();
        if let Some(at) = (0..self.0.len() - 1).min_by_key(gap) {
            let end = *self.0.remove(at + 1).end();
            self.0[at] = *self.0[at].start()..=end;
        }
    }
}

impl ReplayStore for MemoryReplayStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        self.record_now(&sighting)
    }
}

impl fmt::Debug for MemoryReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReplayStore")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_covered_by_few_ranges_and_the_nearest_are_joined() {
        let mut seconds = Seconds::default();
        for hundred in (0..16).rev() {
            seconds.add(100 * hundred);
        }
        assert!((0..1600).all(|second| seconds.contains(second) == (second % 100 == 0)));
        seconds.add(1430);
        assert_eq!(seconds.0.len(), 16);
        for (second, covered) in [
            (1399, false),
            (1400, true),
            (1415, true),
            (1430, true),
            (1431, false),
            (1500, true),
        ] {
            assert_eq!(seconds.contains(second), covered, "{second}");
        }
    }
}
