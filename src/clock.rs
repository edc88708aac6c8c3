//! The current time, from a clock that a test can set.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Whether the standard library has clocks here. On `wasm32-unknown-unknown` they panic instead.
const HAS_CLOCKS: bool = !cfg!(all(target_family = "wasm", target_os = "unknown"));

/// A source of the current time, in whole seconds since the Unix epoch.
pub trait Clock: Send + Sync + 'static {
    /// Returns the seconds since 1970-01-01T00:00:00Z, rounded down, or `None` if the clock cannot
    /// tell the time.
    ///
    /// Without the time no signature is known to be fresh, so every request is then rejected with
    /// 500.
    fn now(&self) -> Option<u64>;

    /// Returns the time since a fixed moment, from a clock that is never set and never goes back.
    ///
    /// It measures how long something has lasted, whatever happens to [`now`](Self::now). The
    /// default uses [`Instant`], and on `wasm32-unknown-unknown`, which has none,
    /// [`now`](Self::now). Override it in a clock for tests, so that they need not wait.
    fn monotonic(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

        if !HAS_CLOCKS {
            return Duration::from_secs(self.now().unwrap_or_default());
        }
        ORIGIN.elapsed()
    }
}

/// The system clock. It cannot tell a time before 1970.
///
/// On `wasm32-unknown-unknown` there is no system to ask. It cannot tell the time there at all, and
/// every request is rejected with 500. Give [`Verifier::clock`](crate::Verifier::clock) a [`Clock`]
/// that asks the host, for example with `Date.now()` in JavaScript.
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
    fn the_system_clock_counts_seconds_since_1970() {
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
