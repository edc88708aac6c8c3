//! Runs the built tool as people do.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use inngest_auth::SigningKey;
use inngest_auth::testing::odd_key;
use serde_json::{Value, json};

const KEY: &str = "signkey-test-12345678";
const AT: u64 = 1_700_000_000;

fn run(args: &[&str], vars: &[(&str, &str)], input: &[u8]) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_inngest-auth"))
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The tool may end before it reads all of its input.
    let _ = tool.stdin.take().unwrap().write_all(input);
    tool.wait_with_output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Returns a captured call as bytes.
fn captured(signatures: &[String], body: &[u8]) -> Vec<u8> {
    let signatures = signatures
        .iter()
        .map(|it| format!("X-Inngest-Signature: {it}\r\n"))
        .collect::<Vec<_>>()
        .concat();
    let head = format!(
        "POST /api/inngest?fnId=a&stepId=step HTTP/1.1\r\nHost: a\r\n\
         Content-Length: {}\r\n{signatures}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_captured_request_is_explained() {
    let key: SigningKey = KEY.parse().unwrap();
    let signed = |key: &SigningKey, body: &[u8], at| vec![key.sign(body, at).to_string()];
    let genuine = signed(&key, b"{}", AT);
    for (what, request, code, expected) in [
        (
            "genuine",
            captured(&genuine, b"{}"),
            0,
            &[("verdict", "verified"), ("key", "current")][..],
        ),
        (
            "stale, and genuine otherwise",
            captured(&signed(&key, b"{}", AT - 301), b"{}"),
            1,
            &[
                ("kind", "stale"),
                ("signature", "genuine"),
                ("key", "current"),
            ],
        ),
        ("unsigned", captured(&[], b"{}"), 1, &[("kind", "missing")]),
        (
            "doubled",
            captured(&[genuine.clone(), genuine.clone()].concat(), b"{}"),
            1,
            &[("kind", "doubled")],
        ),
        (
            "malformed",
            captured(&["t=1&s=2".into()], b"{}"),
            1,
            &[("kind", "malformed")],
        ),
        (
            "another key",
            captured(
                &signed(&"signkey-test-00".parse().unwrap(), b"{}", AT),
                b"{}",
            ),
            1,
            &[
                ("kind", "wrong_signature"),
                ("signature", "wrong"),
                ("keys tried", "b2ed992186a5"),
            ],
        ),
        (
            "the prefix left on",
            captured(
                &signed(&odd_key("signkey-x-signkey-test-12345678"), b"{}", AT),
                b"{}",
            ),
            1,
            &[("kind", "wrong_signature"), ("cause", "prefix_left_on")],
        ),
        (
            "a newline more",
            captured(&signed(&key, b"text", AT), b"text\n"),
            1,
            &[("kind", "wrong_signature"), ("cause", "body_newline")],
        ),
        (
            "compressed",
            captured(&genuine, b"\x1f\x8b\x08"),
            1,
            &[("kind", "wrong_signature"), ("cause", "compressed")],
        ),
    ] {
        let output = run(
            &["explain", "--json", "--at", &AT.to_string()],
            &[("INNGEST_SIGNING_KEY", KEY)],
            &request,
        );
        let said = json(&output);
        assert_eq!(output.status.code(), Some(code), "{what}: {said}");
        for (name, value) in expected {
            assert_eq!(said[name], *value, "{what}: {said}");
        }
        assert_eq!(said["what to do"].is_null(), code == 0, "{what}: {said}");
    }
}

/// People read the verdict first, and then which time it was checked at.
#[test]
fn an_old_request_is_reported_as_stale_with_the_time_it_was_checked_at() {
    let key: SigningKey = KEY.parse().unwrap();
    let request = captured(&[key.sign(b"{}", AT).to_string()], b"{}");
    let output = run(&["explain"], &[("INNGEST_SIGNING_KEY", KEY)], &request);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("verdict: rejected\nkind: stale\n"),
        "{said}"
    );
    for text in [
        "\nsignature: genuine (",
        "(now; if the request is older, give",
        "\nwhat to do: give --at",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[test]
fn what_sign_prints_is_genuine() {
    let vars = [
        ("INNGEST_SIGNING_KEY", KEY),
        ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-test-87654321"),
    ];
    for (args, key) in [
        (&["sign", "--json", "[1]"][..], "current"),
        (&["sign", "--json", "--fallback"], "fallback"),
    ] {
        let output = run(args, &vars, b"[1]");
        let signature = json(&output)["signature"].as_str().unwrap().to_owned();
        let output = run(
            &["explain", "--json", "--signature", &signature],
            &vars,
            b"[1]",
        );
        assert_eq!(
            (output.status.code(), &json(&output)["key"]),
            (Some(0), &Value::from(key))
        );
    }
    let output = run(&["sign", "it's"], &vars, b"");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.starts_with("curl -i 'http://127.0.0.1:3000/"),
        "{printed}"
    );
    assert!(
        printed.ends_with(r"--data-binary 'it'\''s'") || printed.trim_end().ends_with(r"'it'\''s'"),
        "{printed}"
    );
}

#[test]
fn keys_from_standard_input_replace_those_of_the_environment() {
    let environment = [("INNGEST_SIGNING_KEY", "signkey-test-00")];
    let keys = format!("{KEY}\nsignkey-test-87654321\n");
    for (input, code, current, fallback) in [
        (&*keys, 0, Some("b2ed992186a5"), Some("235c6e3ab897")),
        (KEY, 0, Some("b2ed992186a5"), None),
        ("", 2, None, None),
        ("oops", 2, None, None),
        (&keys.repeat(2), 2, None, None),
    ] {
        for args in [
            &["fingerprint", "--json", "--keys-stdin"][..],
            &["sign", "--json", "--keys-stdin", "{}"],
        ] {
            let output = run(args, &environment, input.as_bytes());
            let said = json(&output);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
            let key = if args[0] == "sign" { "key" } else { "current" };
            assert_eq!(said[key].as_str(), current, "{args:?}: {said}");
            if args[0] == "fingerprint" {
                assert_eq!(said["fallback"].as_str(), fallback, "{said}");
            }
        }
    }
    // Standard input cannot contain the body as well: an empty body would be signed.
    let output = run(&["sign", "--keys-stdin"], &environment, KEY.as_bytes());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn keys_are_read_from_files() {
    let directory = std::env::temp_dir().join(format!("inngest-auth-cli-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (current, fallback) = (
        file("a", &format!("{KEY}\n")),
        file("b", "signkey-test-87654321"),
    );
    let vars = [
        ("INNGEST_SIGNING_KEY_FILE", &*current),
        ("INNGEST_SIGNING_KEY_FALLBACK_FILE", &*fallback),
    ];
    let printed = json(&run(&["fingerprint", "--json"], &vars, b""));
    let missing = [("INNGEST_SIGNING_KEY_FILE", "/nowhere")];
    let failed = json(&run(&["check", "--json"], &missing, b""));
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(
        printed,
        json!({"current": "b2ed992186a5", "fallback": "235c6e3ab897"})
    );
    assert_eq!(failed["variable"], "INNGEST_SIGNING_KEY_FILE", "{failed}");
}

#[test]
fn check_reports_the_configuration_or_what_is_wrong_with_it() {
    for (vars, expected) in [
        (
            &[("INNGEST_SIGNING_KEY", KEY)][..],
            json!({
                "mode": "cloud", "current key": "b2ed992186a5", "unsigned sync": false,
                "api": "https://api.inngest.com",
            }),
        ),
        (
            &[
                ("INNGEST_SIGNING_KEY", KEY),
                ("INNGEST_SIGNING_KEY_FALLBACK", "signkey-test-87654321"),
                ("INNGEST_ENABLE_UNAUTHED_SYNC", "1"),
                ("INNGEST_API_BASE_URL", "http://inngest.internal:8288/"),
                ("INNGEST_ENV", "branch"),
            ],
            json!({
                "mode": "cloud", "current key": "b2ed992186a5", "fallback key": "235c6e3ab897",
                "unsigned sync": true, "api": "http://inngest.internal:8288",
                "environment": "branch",
            }),
        ),
        (
            &[("INNGEST_DEV", "1")],
            json!({
                "mode": "dev; requests are not verified", "unsigned sync": false,
                "api": "http://localhost:8288",
            }),
        ),
        (
            &[("INNGEST_SIGNING_KEY", "signkey-test-123")],
            json!({
                "mode": "unusable", "variable": "INNGEST_SIGNING_KEY",
                "error": "invalid signing key in INNGEST_SIGNING_KEY: it has an odd number of hex \
                          digits; copy the whole key",
            }),
        ),
        // Requests are verified, but the API cannot be called.
        (
            &[
                ("INNGEST_SIGNING_KEY", KEY),
                ("INNGEST_API_BASE_URL", "nowhere"),
            ],
            json!({
                "mode": "cloud", "current key": "b2ed992186a5", "unsigned sync": false,
                "error": "",
            }),
        ),
    ] {
        let output = run(&["check", "--json"], vars, b"");
        let mut said = json(&output);
        let failed = output.status.code() == Some(1);
        assert_eq!(failed, !said["error"].is_null(), "{vars:?}: {said}");
        if expected["error"] == "" {
            let error = said["error"].take();
            assert!(
                error.to_string().contains("INNGEST_API_BASE_URL"),
                "{error}"
            );
            said["error"] = json!("");
        }
        assert_eq!(said, expected, "{vars:?}");
        // People read the same.
        let lines = String::from_utf8(run(&["check"], vars, b"").stdout).unwrap();
        for (name, value) in expected.as_object().unwrap() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            assert!(
                lines.contains(&format!("{name}: {value}")),
                "{name}: {lines}"
            );
        }
    }
}

#[test]
fn the_exit_code_tells_no_from_an_error_of_usage_or_input() {
    let key = [("INNGEST_SIGNING_KEY", KEY)];
    for (args, vars, input, code) in [
        (&["check"][..], &key[..], &b""[..], 0),
        (&["check"], &[], b"", 1),
        (&["check"], &[("INNGEST_SIGNING_KEY", "oops")], b"", 1),
        (&["check"], &[("INNGEST_DEV", "1")], b"", 0),
        (&["fingerprint"], &key, b"", 0),
        (&["fingerprint"], &[], b"", 2),
        (&["fingerprint"], &[("INNGEST_DEV", "1")], b"", 2),
        (&["sign", "--fallback", "{}"], &key, b"", 2),
        (&["explain", "/nowhere"], &key, b"", 2),
        (&["explain"], &key, b"no request", 2),
        (
            &["explain"],
            &key,
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            2,
        ),
        (
            &["explain"],
            &key,
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}",
            2,
        ),
        (&["nonsense"], &key, b"", 2),
    ] {
        let output = run(args, vars, input);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn no_command_prints_a_key() {
    let vars = [
        ("INNGEST_SIGNING_KEY", "signkey-test-1234567812345678"),
        ("INNGEST_SIGNING_KEY_FALLBACK", "bad key"),
    ];
    for good in [&vars[..1], &vars] {
        for args in [
            &["check"][..],
            &["fingerprint"],
            &["sign", "{}"],
            &["explain", "--signature", "t=1&s=1"],
        ] {
            let output = run(args, good, b"{}");
            let text = format!("{output:?}");
            assert!(
                !text.contains("1234567812345678") && !text.contains("bad key"),
                "{text}"
            );
        }
    }
}
