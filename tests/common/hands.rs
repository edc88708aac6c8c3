//! A clock whose two times a test moves separately: the time shown, and the time that passes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use inngest_auth::Clock;

#[derive(Clone)]
pub(crate) struct Hands(Arc<Mutex<(Option<u64>, Duration)>>);

impl Hands {
    pub(crate) fn at(now: u64) -> Self {
        Self(Arc::new(Mutex::new((Some(now), Duration::ZERO))))
    }

    /// Sets the clock to `now`, without time passing.
    pub(crate) fn jump(&self, now: Option<u64>) {
        self.0.lock().unwrap().0 = now;
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, seconds: u64) {
        let mut hands = self.0.lock().unwrap();
        hands.0 = hands.0.map(|now| now + seconds);
        hands.1 += Duration::from_secs(seconds);
    }
}

impl Clock for Hands {
    fn now(&self) -> Option<u64> {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}
