//! Key files as platforms lay them out, and as people get them wrong.
#![cfg(unix)]

mod files;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use Defect::{File, Key};
use files::{
    A, B, C, CURRENT, CURRENT_FILE, Dir, FALLBACK, FALLBACK_FILE, config, held, key, layouts, pair,
};
use inngest_auth::{ConfigError, FileDefect, KeyDefect, Tolerance, verify};

const NOW: u64 = 1_700_000_000;

enum Defect {
    File(FileDefect),
    Key(KeyDefect),
}

/// The files made below, or a path, with the defect and its whole message.
#[rustfmt::skip]
const DEFECTS: [(&str, Defect, &str); 19] = [
    ("missing", File(FileDefect::Missing), "no such file; check the path, and that the secret is \
        mounted"),
    ("good/under", File(FileDefect::Missing), "no such file; check the path, and that the secret \
        is mounted"),
    ("dangling", File(FileDefect::Missing), "no such file; check the path, and that the secret is \
        mounted"),
    ("directory", File(FileDefect::Directory), "it is a directory; name the file in it"),
    ("pipe", File(FileDefect::NotRegular), "it is a pipe, a socket or a device, not a regular \
        file"),
    ("socket", File(FileDefect::NotRegular), "it is a pipe, a socket or a device, not a regular \
        file"),
    ("/dev/zero", File(FileDefect::NotRegular), "it is a pipe, a socket or a device, not a regular \
        file"),
    ("large", File(FileDefect::TooLarge), "it is larger than 4 KiB, so it is not a key"),
    ("padded", File(FileDefect::TooLarge), "it is larger than 4 KiB, so it is not a key"),
    ("utf16", File(FileDefect::Binary), "it is not UTF-8 text; write the key as plain text"),
    ("binary", File(FileDefect::Binary), "it is not UTF-8 text; write the key as plain text"),
    ("latin1", File(FileDefect::Binary), "it is not UTF-8 text; write the key as plain text"),
    ("marked", Key(KeyDefect::ByteOrderMark), "it begins with a byte-order mark (U+FEFF); save the \
        text as UTF-8 without one"),
    ("env", Key(KeyDefect::Assignment), "it contains a variable's name; set the value alone, \
        without the name and \"=\""),
    ("half", Key(KeyDefect::OddLength), "it has an odd number of hex digits; copy the whole key"),
    ("two", Key(KeyDefect::Several), "it contains more than one key; set one \
        (INNGEST_SIGNING_KEY_FALLBACK takes another)"),
    // A key that was set instead of a path is never shown.
    (A, File(FileDefect::KeyAsPath), "the variable holds a key, not a path; set the variable \
        without _FILE"),
    ("5ec2e75ec2", File(FileDefect::KeyAsPath), "the variable holds a key, not a path; set the \
        variable without _FILE"),
    ("signkey-test-5ec2-typo", File(FileDefect::KeyAsPath), "the variable holds a key, not a path; \
        set the variable without _FILE"),
];

#[test]
fn every_unusable_file_is_named_with_the_reason() {
    let dir = Dir::new();
    let good = dir.write("good", A);
    fs::create_dir(dir.at("directory")).unwrap();
    let pipe = Command::new("mkfifo").arg(dir.at("pipe")).status().unwrap();
    assert!(pipe.success());
    let _socket = std::os::unix::net::UnixListener::bind(dir.at("socket")).unwrap();
    symlink("round", dir.at("round")).unwrap();
    symlink("nowhere", dir.at("dangling")).unwrap();
    dir.write("large", "a".repeat(4097));
    dir.write("padded", format!("{A}{}", " ".repeat(4096)));
    dir.write("utf16", b"\xff\xfes\0i\0g\0n\0k\0e\0y\0");
    dir.write("binary", b"signkey-test-\0aaaa");
    dir.write("latin1", b"signkey-test-\xe9");
    dir.write("marked", format!("\u{feff}{A}"));
    dir.write("env", format!("INNGEST_SIGNING_KEY={A}\n"));
    dir.write("half", &A[..A.len() - 1]);
    dir.write("two", format!("{A}\n{B}\n"));
    dir.write("blank", " \n");

    for (name, defect, text) in DEFECTS {
        let error = |variable| match defect {
            File(reason) => ConfigError::KeyFile { variable, reason },
            Key(reason) => ConfigError::InvalidKey { variable, reason },
        };
        let pasted = name.contains("5ec2") || name == A;
        let path = if pasted { name.into() } else { dir.at(name) };
        for (variable, other) in [(CURRENT_FILE, FALLBACK_FILE), (FALLBACK_FILE, CURRENT_FILE)] {
            let got = config(&[(variable, &path), (other, &good)]).unwrap_err();
            assert_eq!(got, error(variable), "{name}");
            assert_eq!(got.variable(), variable);
            let said = got.to_string();
            let what = match defect {
                File(_) => format!("cannot read the key file named by {variable}: {text}"),
                Key(_) => format!("invalid signing key in {variable}: {text}"),
            };
            assert_eq!(said, what, "{name}");
            let said = format!("{said} {got:?}");
            for secret in ["5ec2", "aaaa", "bbbb", dir.0.to_str().unwrap()] {
                assert!(!said.contains(secret), "{said}");
            }
        }
    }
    for (one, other) in [
        (A, B),
        ("5ec2e75ec2", "5ec2e75ec3"),
        ("5ec2e75ec2", "/no/such/file"),
    ] {
        let both = config(&[
            (CURRENT_FILE, Path::new(one)),
            (FALLBACK_FILE, Path::new(other)),
        ]);
        assert_eq!(
            both.unwrap_err(),
            ConfigError::KeyFile {
                variable: CURRENT_FILE,
                reason: FileDefect::KeyAsPath
            }
        );
    }
    // A cycle of links is reported as an error of the operating system.
    let round = config(&[(CURRENT_FILE, &dir.at("round"))]).unwrap_err();
    let ConfigError::KeyFile {
        reason: FileDefect::Unreadable(_),
        ..
    } = round
    else {
        panic!("{round:?}");
    };
    assert!(round.to_string().contains("cannot be read ("), "{round}");
    // A blank file is an error for the current key only.
    let blank = config(&[(CURRENT_FILE, &dir.at("blank"))]).unwrap_err();
    let text = "cannot read the key file named by INNGEST_SIGNING_KEY_FILE: it is blank; write the \
        key into it";
    assert_eq!(blank.to_string(), text);
    let config = config(&[(CURRENT_FILE, &good), (FALLBACK_FILE, &dir.at("blank"))]).unwrap();
    assert_eq!(held(&config), pair(A, ""));
}

#[test]
fn each_key_comes_from_a_variable_or_from_a_file() {
    let dir = Dir::new();
    let (one, other) = (
        dir.write("one", format!(" {A}\r\n")),
        dir.write("other", format!("{B}\n")),
    );
    let full = dir.write("full", format!("{A}{}", " ".repeat(4096 - A.len())));
    let (a, b) = (Path::new(A), Path::new(B));
    let (none, blank) = (Path::new(""), Path::new(" \n"));
    for (vars, keys) in [
        (&[(CURRENT_FILE, &*one)][..], pair(A, "")),
        (&[(CURRENT_FILE, &*full)], pair(A, "")),
        (
            &[(CURRENT_FILE, &*one), (FALLBACK_FILE, &*other)],
            pair(A, B),
        ),
        (&[(CURRENT, a), (FALLBACK_FILE, &*other)], pair(A, B)),
        (&[(CURRENT_FILE, &*one), (FALLBACK, b)], pair(A, B)),
        (&[(CURRENT, blank), (CURRENT_FILE, &*one)], pair(A, "")),
        (
            &[(CURRENT, a), (CURRENT_FILE, none), (FALLBACK_FILE, blank)],
            pair(A, ""),
        ),
    ] {
        assert_eq!(held(&config(vars).unwrap()), keys, "{vars:?}");
    }
    for (vars, error) in [
        (
            &[(CURRENT, a), (CURRENT_FILE, &*one)][..],
            "INNGEST_SIGNING_KEY and INNGEST_SIGNING_KEY_FILE are both set: unset one",
        ),
        (
            &[(CURRENT, a), (FALLBACK, b), (FALLBACK_FILE, &*other)],
            "INNGEST_SIGNING_KEY_FALLBACK and INNGEST_SIGNING_KEY_FALLBACK_FILE are both set: \
             unset one",
        ),
        (
            &[(FALLBACK_FILE, &*other)],
            "a fallback key is set but INNGEST_SIGNING_KEY is not: set INNGEST_SIGNING_KEY to it",
        ),
    ] {
        assert_eq!(config(vars).unwrap_err().to_string(), error);
    }
    let dev = config(&[
        ("INNGEST_DEV", Path::new("1")),
        (CURRENT_FILE, &dir.at("missing")),
    ])
    .unwrap();
    assert!(
        dev.is_dev() && dev.reload() == Ok(false),
        "dev mode looks at no file"
    );
    let from_variables = config(&[(CURRENT, a)]).unwrap();
    assert_eq!(from_variables.reload(), Err(ConfigError::NoKeyFile));
}

#[test]
fn a_reload_publishes_both_keys_or_neither() {
    let dir = Dir::new();
    dir.write("current", A);
    dir.write("fallback", "");
    let config = dir.config().unwrap();
    let clone = config.clone();
    let shared = config.keys().unwrap().clone();
    for (current, fallback, reloaded, keys) in [
        (A, "", Ok(false), pair(A, "")),
        (B, A, Ok(true), pair(B, A)),
        (B, A, Ok(false), pair(B, A)),
        // If either file is bad, the last good pair stays in use.
        ("signkey-test-", A, Err(CURRENT_FILE), pair(B, A)),
        ("", A, Err(CURRENT_FILE), pair(B, A)),
        (C, "undefined", Err(FALLBACK_FILE), pair(B, A)),
        ("\u{0}", "", Err(CURRENT_FILE), pair(B, A)),
        (C, &"c".repeat(4097), Err(FALLBACK_FILE), pair(B, A)),
        (C, B, Ok(true), pair(C, B)),
        (C, C, Ok(true), pair(C, "")),
        (C, "\n", Ok(false), pair(C, "")),
    ] {
        dir.write("current", current);
        dir.write("fallback", fallback);
        let got = clone.reload().map_err(|error| error.variable());
        assert_eq!(got, reloaded, "{current} {fallback}");
        assert_eq!(*shared.snapshot(), keys, "{current} {fallback}");
    }
    fs::remove_file(dir.at("current")).unwrap();
    let missing = ConfigError::KeyFile {
        variable: CURRENT_FILE,
        reason: FileDefect::Missing,
    };
    assert_eq!(config.reload(), Err(missing));
    assert_eq!(held(&config), pair(C, ""));
}

/// Docker and systemd use regular files that only their owner can read, in a read-only directory.
/// The files never change while the process runs.
#[test]
fn secrets_of_docker_and_credentials_of_systemd_are_read() {
    for (directory, names) in [
        (
            "secrets",
            ["inngest_signing_key", "inngest_signing_key_fallback"],
        ),
        ("credentials", ["signing-key", "signing-key-fallback"]),
    ] {
        let dir = Dir::new();
        let inside = dir.at(directory);
        fs::create_dir(&inside).unwrap();
        for (name, key) in names.into_iter().zip([A, B]) {
            fs::write(inside.join(name), key).unwrap();
            fs::set_permissions(inside.join(name), fs::Permissions::from_mode(0o400)).unwrap();
        }
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o500)).unwrap();
        let [current, fallback] = names.map(|name| inside.join(name));
        let config = config(&[(CURRENT_FILE, &current), (FALLBACK_FILE, &fallback)]).unwrap();
        assert_eq!(held(&config), pair(A, B), "{directory}");
        assert_eq!(config.reload(), Ok(false), "{directory}");
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_directory_swapped_a_thousand_times_is_never_seen_half() {
    // After the first state, the two keys swap roles, or the fallback key is added and removed.
    for pairs in [[(A, B), (B, A)], [(A, ""), (B, A)]] {
        for ((link, dir, config), swaps) in layouts().into_iter().zip([1000, 200, 200]) {
            dir.swap(link, "..start", pairs[0].0, pairs[0].1);
            config.reload().unwrap();
            let (done, published, calls) = (
                AtomicBool::new(false),
                AtomicUsize::new(0),
                AtomicUsize::new(0),
            );
            let legal = pairs.map(|(current, fallback)| pair(current, fallback));
            // A call signed with a key in both pairs is accepted, whichever pair is published.
            let signatures = [A, B]
                .into_iter()
                .filter(|text| {
                    pairs
                        .iter()
                        .all(|(current, fallback)| [current, fallback].contains(&text))
                })
                .map(|text| key(text).sign(b"{}", NOW))
                .collect::<Vec<_>>();
            assert!(!signatures.is_empty());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for swap in 1..=swaps {
                        let (current, fallback) = pairs[swap % 2];
                        dir.swap(link, &format!("..{swap}"), current, fallback);
                    }
                    done.store(true, Ordering::SeqCst);
                });
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !done.load(Ordering::SeqCst) {
                            let changed = config.reload().expect("both files are always there");
                            let keys = held(&config);
                            assert!(legal.contains(&keys), "a torn pair: {keys:?}");
                            published.fetch_add(usize::from(changed), Ordering::SeqCst);
                        }
                    });
                }
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        let keys = held(&config);
                        assert!(legal.contains(&keys), "a torn pair: {keys:?}");
                        for signature in &signatures {
                            let verdict =
                                verify(b"{}", signature, &keys, NOW, Tolerance::default());
                            assert!(verdict.is_ok(), "{keys:?}");
                        }
                        calls.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
            config.reload().unwrap();
            assert_eq!(held(&config), legal[0], "the last of {swaps}");
            let (published, calls) = (published.into_inner(), calls.into_inner());
            println!(
                "{link}: {swaps} swaps, {published} published, {calls} calls verified, 0 rejected"
            );
            assert!(
                published > swaps / 50 && calls > swaps / 10,
                "{published} {calls}"
            );
        }
    }
}
