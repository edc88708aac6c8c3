//! What the example `serve` prints for a person who starts it for the first time, also with a wrong
//! configuration. The test runs the built example.
#![cfg(feature = "layer")]

mod built;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

struct Run {
    /// `None` if it served until it was stopped.
    failed_with: Option<i32>,
    out: String,
    log: String,
}

/// Runs the example with this environment (`LISTEN_ADDR`: any free port), until it has printed its
/// start-up lines or has ended.
fn run(vars: &BTreeMap<&str, &str>) -> Run {
    let mut serve = Command::new(built::example("serve"))
        .env_clear()
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .envs(vars)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, mut err) = (serve.stdout.take().unwrap(), serve.stderr.take().unwrap());
    let (started, has_started) = channel();
    let out = thread::spawn(move || {
        let mut said = String::new();
        for line in BufReader::new(out).lines() {
            said = said + &line.unwrap() + "\n";
            if said.ends_with("Ctrl-C stops.\n") {
                started.send(()).unwrap();
            }
        }
        said
    });
    let log = thread::spawn(move || {
        let mut said = String::new();
        err.read_to_string(&mut said).unwrap();
        said
    });
    let started = has_started.recv_timeout(Duration::from_secs(60));
    let ended = (started == Err(RecvTimeoutError::Disconnected)).then(|| serve.wait().unwrap());
    if ended.is_none() {
        serve.kill().unwrap();
        serve.wait().unwrap();
    }
    let (out, log) = (out.join().unwrap(), log.join().unwrap());
    assert_ne!(
        started,
        Err(RecvTimeoutError::Timeout),
        "{vars:?}: {out}{log}"
    );
    Run {
        failed_with: ended.and_then(|status| status.code()),
        out,
        log,
    }
}

const KEY: &str = "signkey-test-12345678";

#[test]
fn a_serving_example_says_what_to_try_next() {
    for (vars, out, log) in [
        // A trailing newline in a secret does no harm.
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-12345678\n")][..],
            &[
                "cargo run --manifest-path cli/Cargo.toml -- sign --url 'http://127.0.0.1:",
                "RUST_LOG=debug",
            ][..],
            &["INFO", "verifies every request", "current_key=b2ed992186a5"][..],
        ),
        (
            &[
                ("INNGEST_SIGNING_KEY", KEY),
                ("INNGEST_SIGNING_KEY_FALLBACK", KEY),
            ],
            &["cargo run --manifest-path cli/Cargo.toml -- sign"],
            &[
                "WARN",
                "there is no fallback key; unset it, or set it to the other key of the rotation",
            ],
        ),
        (
            &[("INNGEST_DEV", "1")],
            &["every request is accepted", "curl -i 'http://127.0.0.1:"],
            &["WARN", "does NOT verify requests"],
        ),
        // Someone who sets a key may not intend to run without it.
        (
            &[("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", KEY)],
            &["every request is accepted"],
            &[
                "ERROR",
                "does NOT verify requests although a signing key is set",
            ],
        ),
        (
            &[],
            &[
                "genuine",
                "curl -i 'http://127.0.0.1:",
                "INNGEST_DEV=1 instead of a key",
            ],
            &["INFO"],
        ),
    ] {
        let run = run(&vars.iter().copied().collect());
        assert_eq!(run.failed_with, None, "{vars:?}: {}", run.log);
        for word in out {
            assert!(run.out.contains(word), "{word} in {}", run.out);
        }
        for word in log {
            assert!(run.log.contains(word), "{word} in {}", run.log);
        }
        let warns = log.contains(&"WARN");
        assert_eq!(
            run.log.contains("WARN"),
            warns || vars.is_empty(),
            "{}",
            run.log
        );
        // Colour is only for terminals.
        assert!(!(run.out + &run.log).contains('\u{1b}'), "{vars:?}");
    }
}

/// A newcomer reads from the top, so the log must not come between the lines of the table.
#[test]
fn the_tour_shows_its_table_before_the_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut serve = Command::new(built::example("serve"))
        .env_clear()
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let lines = BufReader::new(reader).lines().map(Result::unwrap);
    let mut shown = Vec::new();
    for line in lines {
        let last = line.ends_with("Ctrl-C stops.");
        shown.push(line);
        if last {
            break;
        }
    }
    serve.kill().unwrap();
    serve.wait().unwrap();
    let at = |words: &str| {
        let found = shown.iter().position(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("{words} in {shown:#?}"))
    };
    let order = [
        "This run uses two generated keys",
        "  genuine ",
        "  unsigned ",
        "the log says why",
        "verifies every request",
        "rejected: no key matches",
        "Serving http://",
        "Ctrl-C stops.",
    ]
    .map(at);
    assert!(order.is_sorted(), "{order:?} in {shown:#?}");
    let log = |line: &String| line.contains("inngest_auth::");
    let first = shown.iter().position(log).unwrap();
    assert!(first > at("the log says why"), "{shown:#?}");
}

#[test]
fn a_wrong_address_or_origin_is_reported_with_what_to_set() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for (name, value, words, good) in [
        (
            "LISTEN_ADDR",
            &*taken,
            "is in use: stop the program that listens there, or set LISTEN_ADDR=127.0.0.1:0",
            "127.0.0.1:0",
        ),
        (
            "LISTEN_ADDR",
            "3000",
            "cannot listen on 3000 (",
            "0.0.0.0:0",
        ),
        (
            "INNGEST_SERVE_ORIGIN",
            "app.example",
            "invalid value for INNGEST_SERVE_ORIGIN: expected a URL such as https://app.example",
            "https://app.example",
        ),
        (
            "INNGEST_SERVE_ORIGIN",
            "ftp://app.example",
            "invalid value for INNGEST_SERVE_ORIGIN",
            "",
        ),
    ] {
        let mut vars = BTreeMap::from([("INNGEST_SIGNING_KEY", KEY), (name, value)]);
        let failed = run(&vars);
        assert_eq!(failed.failed_with, Some(1), "{vars:?}: {}", failed.log);
        assert_eq!(failed.out, "", "{vars:?}");
        assert!(failed.log.contains(words), "{words} in {}", failed.log);
        vars.insert(name, good);
        let again = run(&vars);
        assert_eq!(again.failed_with, None, "{vars:?}: {}", again.log);
        assert!(
            again.out.starts_with("Serving http://127.0.0.1:"),
            "{vars:?}: {}",
            again.out
        );
    }
}

#[test]
fn an_example_that_does_not_serve_says_what_to_type_and_that_works() {
    for (vars, words) in [
        (
            &[("INNGEST_SIGNING_KEY", "")][..],
            "INNGEST_SIGNING_KEY is not set or blank: set it to your environment's signing key",
        ),
        (
            &[("INNGEST_SIGNING_KEY", " \n")],
            "INNGEST_SIGNING_KEY is not set or blank",
        ),
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-1234\n5678")],
            "in INNGEST_SIGNING_KEY: it has more than one line; set the key alone",
        ),
        (
            &[("\u{feff}INNGEST_SIGNING_KEY", KEY)],
            "the name of INNGEST_SIGNING_KEY begins with a byte-order mark",
        ),
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-")],
            "in INNGEST_SIGNING_KEY: nothing follows the prefix; copy the whole key",
        ),
        // A trailing newline is trimmed, but not one in the middle.
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-1234\n5678")],
            "invalid signing key in INNGEST_SIGNING_KEY: it has more than one line; set the key \
             alone, on one line",
        ),
        (
            &[("INNGEST_SIGNING_KEY_FALLBACK", KEY)],
            "set INNGEST_SIGNING_KEY to it",
        ),
        (
            &[
                ("INNGEST_SIGNING_KEY", KEY),
                ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-test-"),
            ],
            "invalid signing key in INNGEST_SIGNING_KEY_FALLBACK: nothing follows the prefix",
        ),
        (
            &[("INNGEST_DEV", "yes")],
            r#"invalid value for INNGEST_DEV: expected "1", "true", "0", "false" or a URL"#,
        ),
        (
            &[
                ("INNGEST_SIGNING_KEY", KEY),
                ("INNGEST_ENABLE_UNAUTHED_SYNC", "yes"),
            ],
            r#"invalid value for INNGEST_ENABLE_UNAUTHED_SYNC: expected "1", "true", "0" or "false""#,
        ),
    ] {
        let mut vars: BTreeMap<_, _> = vars.iter().copied().collect();
        let failed = run(&vars);
        assert_eq!(failed.failed_with, Some(1), "{vars:?}: {}", failed.log);
        assert_eq!(failed.out, "", "{vars:?}");
        assert!(
            failed.log.contains(words) && !failed.log.contains('\u{1b}'),
            "{}",
            failed.log
        );
        let typed = failed
            .log
            .lines()
            .find_map(|line| line.strip_suffix(" cargo run --example serve"));
        let (name, value) = typed.unwrap().trim().split_once('=').unwrap();
        vars.insert(name, value);
        let again = run(&vars);
        assert_eq!(again.failed_with, None, "{vars:?}: {}", again.log);
    }
}
