//! Watching key files while the process runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::ConfigError;
use super::source::KeySource;
use crate::keyring::Keys;

/// The longest time between two warnings about the same error.
const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);

/// Polls without end.
pub(super) async fn watch(source: Option<Arc<KeySource>>, every: Duration) {
    let Some(source) = source else {
        tracing::warn!("no key file to watch: no signing key is read from a file");
        return;
    };
    if Handle::try_current().is_err() {
        tracing::error!("the signing keys are not watched: Config::watch needs a Tokio runtime");
        return;
    }
    let every = every.max(Duration::from_millis(1));
    let mut polls = interval(every);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warnings = Warnings::new(every);
    // The keys that the previous poll read and that are not published yet.
    let mut seen: Option<Keys> = None;
    loop {
        polls.tick().await;
        let before = seen.take();
        let reloaded = source.reload(|last, now| {
            if now == last {
                return false;
            }
            // A file that is being written may be blank or contain half a key.
            let confirmed = before.as_ref() == Some(now);
            if !confirmed {
                seen = Some(now.clone());
            }
            confirmed
        });
        match reloaded {
            Ok(_) => warnings.end(),
            Err(error) => warnings.warn(error),
        }
    }
}

/// Repeats a warning at growing intervals.
struct Warnings {
    shortest: Duration,
    last: Option<ConfigError>,
    silence: Duration,
    silent_until: Instant,
}

impl Warnings {
    fn new(shortest: Duration) -> Self {
        Self {
            shortest,
            last: None,
            silence: shortest,
            silent_until: Instant::now(),
        }
    }

    fn warn(&mut self, error: ConfigError) {
        let now = Instant::now();
        if self.last.as_ref() != Some(&error) {
            self.silence = self.shortest;
        } else if now < self.silent_until {
            return;
        }
        tracing::warn!("cannot reload the signing keys; the last good ones stay in use: {error}");
        self.last = Some(error);
        self.silence = (self.silence * 2).min(LONGEST_SILENCE).max(self.shortest);
        self.silent_until = now + self.silence;
    }

    fn end(&mut self) {
        if self.last.take().is_some() {
            tracing::info!("the signing keys can be reloaded again");
        }
    }
}
