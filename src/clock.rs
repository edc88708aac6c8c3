//! What time it is, as something that a test can set.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Whether the standard library has clocks here. On `wasm32-unknown-unknown` it panics in their place.
const HAS_CLOCKS: bool = !cfg!(all(target_family = "wasm", target_os = "unknown"));

/// Tells the time in whole seconds since the Unix epoch.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970-01-01T00:00:00Z, rounded down, or `None` where the clock cannot tell.
    /// Without the time nothing can be called fresh, so every request is then refused (500).
    fn now(&self) -> Option<u64>;

    /// Returns the time since a fixed moment, by a clock that is never set and never goes back.
    /// It tells how long something has lasted, whatever happens to [`now`](Self::now).
    ///
    /// Default: [`Instant`]. Override it in a clock for tests, so that they need not wait. On
    /// `wasm32-unknown-unknown`, where there is no `Instant`, the default follows [`now`](Self::now).
    fn monotonic(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

        if !HAS_CLOCKS {
            return Duration::from_secs(self.now().unwrap_or_default());
        }
        ORIGIN.elapsed()
    }
}

/// The system's clock. It cannot tell a time before 1970.
///
/// On `wasm32-unknown-unknown` there is no system to ask, so it cannot tell the time at all, and
/// every request is rejected (500). Give [`Verifier::clock`](crate::Verifier::clock) a [`Clock`] that
/// asks the host there, for example `Date.now()` in JavaScript.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Option<u64> {
        if !HAS_CLOCKS {
            return None;
        }
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(elapsed.as_secs())
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Option<u64> {
        (**self).now()
    }

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clock_counts_seconds_since_1970() {
        let since_1970 = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        let before = since_1970();
        let now = SystemClock.now().unwrap();
        assert!((before..=since_1970()).contains(&now), "{now}");
    }

    #[test]
    fn a_shared_clock_shows_the_same_time() {
        let clock = Arc::new(crate::testing::TestClock::at(7));
        assert_eq!(Clock::now(&clock), Some(7));
        clock.set(Some(9));
        assert_eq!(Clock::monotonic(&clock), Duration::from_secs(2));
        clock.set(None);
        assert_eq!(Clock::now(&clock), None);
    }

    #[test]
    fn monotonic_time_only_grows() {
        let before = SystemClock.monotonic();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1) {}
        assert!(SystemClock.monotonic() >= before + Duration::from_millis(1));
    }
}
