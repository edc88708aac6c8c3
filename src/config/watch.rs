//! Watching key files while the process runs.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Span, dispatcher};

use super::error::ConfigError;
use super::source::KeySource;
use crate::keyring::Keys;

/// The longest time between two warnings about the same error.
const LONGEST_SILENCE: Duration = Duration::from_secs(60 * 60);

/// The shortest and the longest interval. A longer one could not be added to the present time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    let every = every.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let mut polls = interval(every);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warnings = Warnings::new(every);
    // The keys that the previous poll read and that are not published yet.
    let mut seen = None;
    loop {
        polls.tick().await;
        let source = Arc::clone(&source);
        let (span, subscriber) = (Span::current(), dispatcher::get_default(Clone::clone));
        // Files on a network may take for ever, and a worker must not wait for them.
        let poll = spawn_blocking(move || {
            dispatcher::with_default(&subscriber, || span.in_scope(|| poll(&source, seen)))
        });
        let reloaded;
        (reloaded, seen) = match poll.await {
            Ok(polled) => polled,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => return, // The runtime shuts down.
        };
        match reloaded {
            Ok(_) => warnings.end(),
            Err(error) => warnings.warn(error),
        }
    }
}

/// Reads the keys, and publishes them if the previous poll read the same. Returns those that are
/// not published yet.
fn poll(source: &KeySource, before: Option<Keys>) -> (Result<bool, ConfigError>, Option<Keys>) {
    let mut seen = None;
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
    (reloaded, seen)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::super::names::SIGNING_KEY_FILE;
    use super::super::{Config, Mode};
    use super::*;

    /// A reload that does not return stands for a file on a network that does not respond.
    #[test]
    fn a_poll_that_hangs_holds_up_no_worker() {
        let path = std::env::temp_dir().join(format!("inngest-auth-hangs-{}", std::process::id()));
        std::fs::write(&path, "signkey-test-ab").unwrap();
        let config = Config::from_vars([(SIGNING_KEY_FILE, &path)]).unwrap();
        let Mode::Cloud(source) = config.mode else {
            panic!("dev mode");
        };
        let (hangs, until_it_hangs) = channel();
        let (end, until_the_end) = channel::<()>();
        let (done, outcome) = channel();
        let hanging = Arc::clone(&source);
        thread::spawn(move || {
            hanging.reload(|_, _| {
                hangs.send(()).unwrap();
                until_the_end.recv().is_ok()
            })
        });
        until_it_hangs.recv().unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime.unwrap().block_on(async {
                // Both threads, the watch and its poll have one.
                let polls = |source| Arc::strong_count(source) == 4;
                let watch = tokio::spawn(watch(Some(Arc::clone(&source)), SHORTEST_INTERVAL));
                while !polls(&source) {
                    tokio::task::yield_now().await;
                }
                done.send(watch.is_finished()).unwrap();
            });
        });
        let finished = outcome.recv_timeout(Duration::from_secs(10));
        drop(end);
        std::fs::remove_file(path).unwrap();
        assert!(!finished.expect("the worker waits for the file"));
    }
}
