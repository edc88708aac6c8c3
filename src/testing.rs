//! For your own tests: a clock that they set, and requests as Inngest signs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;

/// A clock that stands still until it is set. Clones show the same time.
///
/// ```
/// use inngest_auth::{Clock, testing::TestClock};
///
/// let clock = TestClock::at(1_700_000_000);
/// let shown_elsewhere = clock.clone();
/// clock.set(Some(1_700_000_301));
/// assert_eq!(shown_elsewhere.now(), Some(1_700_000_301));
///
/// // A clock that cannot tell the time.
/// clock.set(None);
/// assert_eq!(shown_elsewhere.now(), None);
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

/// No second that a test would set.
const CANNOT_TELL: u64 = u64::MAX;

impl TestClock {
    /// Shows `unix_seconds` until it is set.
    #[must_use]
    pub fn at(unix_seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(unix_seconds)))
    }

    /// Unix seconds, or `None` for a clock that cannot tell.
    pub fn set(&self, unix_seconds: Option<u64>) {
        self.0.store(unix_seconds.unwrap_or(CANNOT_TELL), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|&now| now != CANNOT_TELL)
    }
}
