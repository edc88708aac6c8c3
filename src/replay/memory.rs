//! The replay store of a single process.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::ReplayStoreError;
use super::start::Start;
use super::{Recorded, ReplayStore, Sighting};
use crate::clock::Clock;

/// A replay store in memory, exact and bounded, for a service that runs in one process.
///
/// Each signature is remembered for the longest lifetime (tolerance plus skew) that any layer
/// sharing the store asks for. A full store rejects new signatures; it never drops an entry early.
/// It also rejects what it cannot know: a signature that it may have forgotten, because the clock
/// was set back, is [`Seen`](Recorded::Seen).
///
/// # What was signed before the process started
///
/// An earlier process may have accepted such a signature, and nothing remembers that. So it is
/// [`BeforeStart`](Recorded::BeforeStart) and rejected. After each start this rejects the calls
/// that are in flight, and those of the first seconds ([`clock_error`](Self::clock_error)). Inngest
/// signs its next attempt anew, 15 s later, and that attempt is accepted.
///
/// **The guarantee:** nothing that an earlier process accepted is accepted again, provided that
///
/// 1. the earlier process accepts nothing after this one starts,
/// 2. at the start the machine's clock is not behind Inngest's by more than the clock error, and
/// 3. later it is not behind by more than the [skew](crate::InngestAuth::replay_skew).
///
/// In a rolling deployment two processes overlap, and each accepts what is signed during that time.
/// Use a store that they share, or set the clock error to the length of the overlap.
///
/// If the clock is further behind, a captured call cannot be told from a new one. The store limits
/// this in two ways:
///
/// - The time in a verified call shows how late it really is. After one call reaches the store that
///   was signed after the start, and no longer ago than the clock error, the clock does not matter
///   any more. That call need not be accepted.
/// - During the first lifetime of the process (360 s by default), a signature that lies further in
///   the future than the clock error proves that the clock is behind, and is `BeforeStart`. So a
///   machine with such a clock rejects calls for that long after each start. Correct its clock.
///
/// One case remains: the clock is behind at the start, no call arrives until the clock shows the
/// time of the captured one, and then the captured one arrives first.
///
/// A clock that is _ahead_ at the start does not admit anything wrongly. It rejects calls for at
/// most that lifetime, however far ahead it is.
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
    /// Sorted by time of signature, so that the first entries expire first.
    entries: BTreeSet<(u64, [u8; 32])>,
    forgotten: Seconds,
    /// The longest lifetime that was asked for. Layers of different tolerances can share a store.
    lifetime: u64,
    start: Start,
}

impl MemoryReplayStore {
    /// Creates a store that holds at most `capacity` entries, and whose process starts now
    /// according to `clock`.
    ///
    /// An entry takes about 70 bytes. The store needs one for each call within a lifetime (360 s by
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
    /// Signatures made up to this long _after_ the start are rejected like those from before it.
    /// The default covers a clock kept by NTP (well under a second), the rounding of both times to
    /// seconds, and a machine that has not been corrected for a few days. A rejected call is
    /// accepted at its second attempt, 15 s later, so keep the value below that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use inngest_auth::{SystemClock, replay::MemoryReplayStore};
    ///
    /// // In a rolling deployment, two processes overlap for up to 10 s.
    /// let overlap = Duration::from_secs(10);
    /// let store = MemoryReplayStore::new(100_000, &SystemClock).clock_error(overlap);
    /// assert!(store.is_empty());
    /// ```
    #[must_use]
    pub fn clock_error(mut self, error: Duration) -> Self {
        self.clock_error = error.as_secs();
        self
    }

    /// Sets whether to accept signatures from before this process started, once per process
    /// (default: `false`). **A call that an earlier process accepted can then be replayed to this
    /// one while it is fresh.**
    ///
    /// This is for services that scale to zero, where the call that starts the process is always
    /// older than the process.
    #[must_use]
    pub fn insecure_accept_signed_before_start(mut self, accept: bool) -> Self {
        self.accepts_before_start = accept;
        self
    }

    /// Returns the number of entries in the store.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Returns `true` if the store is empty.
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
        // First, because the store learns from every sighting, even one that it rejects.
        let before_start = state.start.observe(sighting, uptime, self.clock_error);
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
    /// Forgets expired entries: more per call than a call can add, but few enough to be quick.
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

/// A set of seconds, kept as a few ranges that cover it. Signatures made in these seconds may have
/// been forgotten.
///
/// While clocks run forward, one range up to the latest second would do. But after Inngest's clock
/// and ours were both a day ahead, it would reject every call for a day.
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
