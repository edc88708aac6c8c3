//! Key files that change while the process runs and watches them.
#![cfg(all(unix, feature = "layer"))]

mod files;

use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use files::{A, B, C, CURRENT, Dir, held, key, layouts, pair};
use inngest_auth::Config;
use tokio::task::JoinHandle;
use tracing::subscriber::DefaultGuard;

const EVERY: Duration = Duration::from_secs(10);

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Every test must call this: an event that first occurs without a subscriber may be cached as
    /// one without interest.
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// Starts a watch that has polled once. Time passes only in `pass`.
async fn watch(config: &Config) -> JoinHandle<()> {
    let watch = tokio::spawn(config.watch(EVERY));
    tokio::time::sleep(EVERY / 2).await;
    watch
}

/// Lets this many polls happen.
async fn pass(polls: u32) {
    tokio::time::sleep(EVERY * polls).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_published_within_two_intervals_and_a_half_written_file_never() {
    let (log, _guard) = Log::begin();
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", "");
    let config = dir.config().unwrap();
    let _watch = watch(&config).await;
    pass(3).await;
    assert_eq!(log.take(), "", "nothing has changed");
    for (current, fallback, keys) in [
        (B, A, pair(A, "")),
        (B, A, pair(B, A)),
        // Half a key can be a valid key, and a blank fallback file is valid too.
        (&C[..C.len() - 8], B, pair(B, A)),
        (C, "", pair(B, A)),
        (C, B, pair(B, A)),
        (C, B, pair(C, B)),
        // A change that is undone between two polls, or at each poll.
        (A, B, pair(C, B)),
        (C, B, pair(C, B)),
        (A, B, pair(C, B)),
        ("", B, pair(C, B)),
        (A, B, pair(C, B)),
        (A, B, pair(A, B)),
    ] {
        dir.write("current", current);
        dir.write("fallback", fallback);
        pass(1).await;
        assert_eq!(held(&config), keys, "{current} {fallback}");
    }
    let said = log.take();
    assert_eq!(said.matches("signing keys changed").count(), 3, "{said}");
    let shown = |text: &str| format!("fingerprint {}", key(text).fingerprint());
    let first = said.lines().next().unwrap();
    for text in [A, B] {
        assert!(first.contains(&shown(text)), "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_last_good_keys_and_is_logged_ever_more_rarely() {
    let (log, _guard) = Log::begin();
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", B);
    let config = dir.config().unwrap();
    let _watch = watch(&config).await;
    fs::remove_file(dir.at("current")).unwrap();
    pass(1).await;
    let said = log.take();
    let words = [
        "WARN",
        "cannot reload the signing keys; the last good ones stay in use",
        "cannot read the key file named by INNGEST_SIGNING_KEY_FILE: no such file",
    ];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    // After 20 s, 40 s, 80 s and so on, up to an hour.
    pass(540).await;
    assert_eq!(
        log.take().matches("WARN").count(),
        8,
        "in an hour and a half"
    );
    pass(360 * 24).await;
    assert_eq!(log.take().matches("WARN").count(), 24, "in a day");
    assert_eq!(held(&config), pair(A, B));
    // A different error is logged at once.
    dir.write("current", "undefined");
    pass(1).await;
    assert!(log.take().contains("it is a placeholder"));
    dir.write("current", C);
    pass(2).await;
    assert!(
        log.take()
            .contains("the signing keys can be reloaded again")
    );
    assert_eq!(held(&config), pair(C, B));
}

/// Times that cannot be added to the present one, and the shortest.
#[tokio::test(start_paused = true)]
async fn every_interval_is_one_that_can_be_waited_for() {
    let (log, _guard) = Log::begin();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for every in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(u64::MAX / 2),
        year,
        Duration::ZERO,
    ] {
        let dir = Dir::new();
        dir.write("current", A);
        dir.write("fallback", "");
        let config = dir.config().unwrap();
        fs::remove_file(dir.at("current")).unwrap();
        let watch = tokio::spawn(config.watch(every));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(
            log.take().contains("cannot reload the signing keys"),
            "{every:?}"
        );
        dir.write("current", B);
        let polls = if every.is_zero() {
            EVERY / 100
        } else {
            2 * year
        };
        tokio::time::sleep(polls).await;
        assert!(!watch.is_finished(), "{every:?}");
        assert_eq!(held(&config), pair(B, ""), "{every:?}");
        watch.abort();
        log.take();
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_changed_by_hand_stay_until_the_files_change() {
    let _log = Log::begin();
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", "");
    let config = dir.config().unwrap();
    let watch = watch(&config).await;
    config.keys().unwrap().rotate(key(B));
    pass(5).await;
    assert_eq!(held(&config), pair(B, A));
    // A reload publishes what the files contain.
    assert_eq!(config.reload(), Ok(true));
    assert_eq!(held(&config), pair(A, ""));
    dir.write("current", C);
    pass(2).await;
    assert_eq!(held(&config), pair(C, ""));
    // The same after a change of the files; and back to what they held at first.
    config.keys().unwrap().rotate(key(B));
    pass(5).await;
    assert_eq!(held(&config), pair(B, C));
    for text in [A, C] {
        dir.write("current", text);
        pass(2).await;
        assert_eq!(held(&config), pair(text, ""));
    }
    // An aborted watch does not follow the files.
    watch.abort();
    dir.write("current", B);
    pass(5).await;
    assert_eq!(held(&config), pair(C, ""));
}

#[tokio::test(start_paused = true)]
async fn a_directory_swapped_by_symbolic_link_is_followed() {
    let _log = Log::begin();
    for (link, dir, config) in layouts() {
        let _watch = watch(&config).await;
        for (at, (current, fallback)) in [(B, A), (B, ""), (C, B)].into_iter().enumerate() {
            dir.swap(link, &format!("..next{at}"), current, fallback);
            pass(2).await;
            assert_eq!(held(&config), pair(current, fallback), "{link}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_file_there_is_nothing_to_watch() {
    let (log, _guard) = Log::begin();
    for vars in [(CURRENT, A), ("INNGEST_DEV", "1")] {
        Config::from_vars([vars])
            .unwrap()
            .watch(Duration::ZERO)
            .await;
        assert!(log.take().contains("no key file to watch"));
    }
}

/// A subscriber that reloads when it is told of a change must not wait for itself.
#[test]
fn a_subscriber_may_reload() {
    struct Reloads(Config);
    impl Write for Reloads {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            assert_eq!(self.0.reload(), Ok(false));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", "");
    let config = dir.config().unwrap();
    dir.write("current", B);
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let told = config.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || Reloads(told.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || done.send(config.reload()).unwrap());
    });
    let reloaded = outcome.recv_timeout(Duration::from_secs(10));
    assert_eq!(reloaded.expect("a deadlock"), Ok(true));
}

#[tokio::test(start_paused = true)]
async fn an_odd_but_valid_key_warns_once_when_it_is_published() {
    let (log, _guard) = Log::begin();
    let digits = "0123456789abcdef0123456789abcdef";
    for (current, fallback, warnings) in [
        (format!("signkey-prod-{digits}"), String::new(), &[][..]),
        ("signkey-test-aa".to_owned(), digits.to_owned(), &[]),
        (
            format!("signkey-prod-{}", digits.to_uppercase()),
            digits[..30].to_owned(),
            &[
                "INNGEST_SIGNING_KEY_FILE contains upper-case hex digits",
                "INNGEST_SIGNING_KEY_FALLBACK_FILE has fewer than 32 hex digits",
            ],
        ),
        (
            A.to_owned(),
            A.to_owned(),
            &["INNGEST_SIGNING_KEY_FALLBACK_FILE equals INNGEST_SIGNING_KEY_FILE"],
        ),
    ] {
        let said_once = |said: &str| {
            assert_eq!(said.matches("WARN").count(), warnings.len(), "{said}");
            for warning in warnings {
                assert!(said.contains(warning), "{said}");
            }
        };
        // At start.
        let dir = Dir::new();
        dir.write("current", &current);
        dir.write("fallback", &fallback);
        let config = dir.config().unwrap();
        said_once(&log.take());
        let watch = watch(&config).await;
        pass(5).await;
        assert_eq!(log.take(), "", "nothing has changed");
        // When it is published.
        dir.write("current", C);
        dir.write("fallback", "");
        pass(2).await;
        log.take();
        dir.write("current", &current);
        dir.write("fallback", &fallback);
        pass(2).await;
        said_once(&log.take());
        pass(5).await;
        assert_eq!(log.take(), "", "nothing has changed");
        watch.abort();
    }
}
