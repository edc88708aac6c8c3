//! The rotation examples, run as programs.
#![cfg(all(unix, feature = "layer"))]

mod built;
mod files;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use files::{A, B, C, CURRENT_FILE, Dir, FALLBACK_FILE, key};

/// A program that runs until it is dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(example: &str, vars: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(built::example(example))
            .env_clear()
            .envs(vars.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        Self { child, lines }
    }

    /// Returns the next line that contains these words, after the last line that was asked for.
    fn says(&self, words: &str) -> String {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => said.push(line),
                Err(error) => panic!("never said {words:?} ({error}), but {said:#?}"),
            }
        }
    }

    fn hang_up(&self) {
        let kill = Command::new("kill")
            .arg("-HUP")
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_tours_end_successfully() {
    for (example, last) in [
        ("rotate", " 0 rejected"),
        ("secrets_manager", "it holds C: a call gets 200 OK"),
    ] {
        let mut tour = Running::start(example, &[]);
        tour.says(last);
        assert!(tour.child.wait().unwrap().success(), "{example}");
    }
}

/// The tour lets at least three polls pass in each state of the secrets manager.
#[test]
fn a_secrets_manager_that_cannot_be_followed_is_logged_once_until_that_changes() {
    let tour = Command::new(built::example("secrets_manager"))
        .env_clear()
        .output();
    let said = String::from_utf8(tour.unwrap().stdout).unwrap();
    let lines: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("follow"))
        .collect();
    for problem in [
        "503 Service Unavailable",
        "no response in time",
        "INNGEST_SIGNING_KEY is not set or blank: set it to your environment's signing key, or set \
         INNGEST_DEV=1 to develop without one",
        "invalid signing key in INNGEST_SIGNING_KEY: it is a placeholder, such as \"undefined\" or \
         \"changeme\"; set the key itself",
    ] {
        let line = format!("WARN cannot follow the secrets manager: {problem}");
        assert!(lines.contains(&&*line), "{problem}: {said}");
    }
    assert!(
        lines.contains(&"INFO the secrets manager can be followed again"),
        "{said}"
    );
    assert!(lines.windows(2).all(|pair| pair[0] != pair[1]), "{said}");
    assert_eq!(
        said.matches("fewer than 32 hex digits").count(),
        1,
        "{said}"
    );
}

fn served(dir: &Dir, every: &str) -> Running {
    let (current, fallback) = (dir.at("current"), dir.at("fallback"));
    let vars = [
        (CURRENT_FILE, &*current),
        (FALLBACK_FILE, &*fallback),
        ("WATCH_SECONDS", Path::new(every)),
    ];
    let running = Running::start("rotate", &vars);
    running.says("Serving ");
    running
}

/// The time allowed is two polling intervals, and less than a third for a busy machine.
#[test]
fn two_processes_follow_one_directory_within_two_intervals() {
    let every = Duration::from_secs(2);
    let dir = Dir::new();
    dir.swap("..data", "..1", A, "");
    for name in ["current", "fallback"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), dir.at(name)).unwrap();
    }
    let processes = [served(&dir, "2"), served(&dir, "2")];
    for (new, current, fallback) in [("..2", B, A), ("..3", B, ""), ("..4", C, B)] {
        dir.swap("..data", new, current, fallback);
        let swapped = Instant::now();
        for process in &processes {
            let line = process.says("signing keys changed");
            let current = format!(
                "current=SigningKey(signkey-test-…, fingerprint {}",
                key(current).fingerprint()
            );
            assert!(line.contains(&current), "{line}");
            let took = swapped.elapsed();
            println!("followed {} ms after the swap", took.as_millis());
            assert!(took < 3 * every, "{took:?}, at intervals of {every:?}");
        }
    }
}

#[test]
fn a_hangup_reloads_at_once_and_a_bad_file_changes_nothing() {
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", "");
    // The interval is longer than this test, so the process does not poll by itself.
    let process = served(&dir, "3600");
    for (current, fallback, said) in [
        (B, A, "reloaded the signing keys"),
        (B, A, "the signing keys have not changed"),
        (
            "signkey-test-",
            A,
            "the last good keys stay in use: invalid signing key in INNGEST_SIGNING_KEY_FILE",
        ),
        (
            "",
            A,
            "cannot read the key file named by INNGEST_SIGNING_KEY_FILE: it is blank",
        ),
        (&B[..B.len() - 1], A, "it has an odd number of hex digits"),
        (
            &format!("\"{B}\""),
            A,
            "it contains quotation marks; remove them",
        ),
        (
            B,
            &format!("'{A}'"),
            "it contains quotation marks; remove them",
        ),
        (
            C,
            "undefined",
            "invalid signing key in INNGEST_SIGNING_KEY_FALLBACK_FILE",
        ),
        (C, B, "reloaded the signing keys"),
    ] {
        dir.write("current", current);
        dir.write("fallback", fallback);
        process.hang_up();
        process.says("since the keys last changed");
        process.says(said);
    }
}
