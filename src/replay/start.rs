//! When this process started, in the signers' time: what was signed before, another process may
//! have accepted.

use super::Sighting;

/// The latest second at which this process can have started, by every time that it has been shown
/// less its uptime. Two clocks, because they deserve different trust.
pub(super) struct Start {
    /// By the machine's own clock. It can be wrong either way.
    by_clock: u64,
    /// By the signers'. A signature that arrives was made before, so `signed_at` less the uptime
    /// is never later than the start, whoever sends it and however old it is.
    by_signers: u64,
}

impl Start {
    /// `now`: `None` for a clock that cannot tell the time.
    pub(super) fn at(now: Option<u64>) -> Self {
        Self {
            by_clock: now.unwrap_or(u64::MAX),
            by_signers: 0,
        }
    }

    /// Returns whether a signature may be older than this process, and learns from its time.
    pub(super) fn is_after(&mut self, sighting: &Sighting, uptime: u64, clock_error: u64) -> bool {
        let Sighting { signed_at, now, .. } = *sighting;
        self.by_clock = self.by_clock.max(now.saturating_sub(uptime));
        self.by_signers = self.by_signers.max(signed_at.saturating_sub(uptime));
        // Once a whole lifetime has passed, nothing from before the start is fresh by a clock that
        // is right, and one that was ahead at the start must not reject calls for ever.
        let young = uptime <= sighting.lifetime();
        let start = if young {
            self.by_clock.max(self.by_signers)
        } else {
            self.by_signers
        };
        // A signature from the future tells that the clock is behind: it cannot be trusted to tell
        // what is older than the process.
        let clock_is_behind = young && signed_at > now.saturating_add(clock_error);
        clock_is_behind || signed_at <= start.saturating_add(clock_error)
    }
}
