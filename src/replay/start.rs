//! When this process started, in the signers' time. Another process may have accepted what was
//! signed before.

use super::Sighting;

/// The latest second at which this process can have started: each time that it was shown, minus its
/// uptime at that moment. There are two, because the two clocks deserve different trust.
pub(super) struct Start {
    /// By the machine's own clock, which can be wrong in either direction.
    by_clock: u64,
    /// By the signers' clock. A signature that arrives was made before, so `signed_at` minus the
    /// uptime is never later than the start, regardless of its sender and its age.
    by_signers: u64,
}

impl Start {
    /// Creates it from the time at the start, or from `None` if the clock cannot tell the time.
    pub(super) fn at(now: Option<u64>) -> Self {
        Self {
            by_clock: now.unwrap_or(u64::MAX),
            by_signers: 0,
        }
    }

    /// Returns `true` if a signature may be older than this process, and learns from its time.
    pub(super) fn observe(&mut self, sighting: &Sighting, uptime: u64, clock_error: u64) -> bool {
        let Sighting { signed_at, now, .. } = *sighting;
        self.by_clock = self.by_clock.max(now.saturating_sub(uptime));
        self.by_signers = self.by_signers.max(signed_at.saturating_sub(uptime));
        // After a whole lifetime, a correct clock accepts nothing from before the start, and a
        // clock that was ahead at the start must not reject calls for ever.
        let young = uptime <= sighting.lifetime();
        let start = if young {
            self.by_clock.max(self.by_signers)
        } else {
            self.by_signers
        };
        // A signature from the future shows that the clock is behind. Such a clock cannot tell what
        // is older than the process.
        let clock_is_behind = young && signed_at > now.saturating_add(clock_error);
        clock_is_behind || signed_at <= start.saturating_add(clock_error)
    }
}
