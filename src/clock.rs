//! What time it is, as something that a test can set.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time in whole seconds since the Unix epoch.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970-01-01T00:00:00Z, rounded down, or `None` where the clock cannot tell.
    /// Without the time nothing can be called fresh, so every request is then refused (500).
    fn now(&self) -> Option<u64>;
}

/// The system's clock. It cannot tell a time before 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Option<u64> {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(elapsed.as_secs())
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Option<u64> {
        (**self).now()
    }
}
