//! Why a signature does not match: each cause is made with real bytes, and no other cause is
//! reported.

#[path = "common/random.rs"]
#[allow(dead_code, reason = "shared by tests")]
mod random;

use hmac::{Hmac, KeyInit, Mac};
use inngest_auth::{Cause, Keys, Signature, SigningKey, Tolerance, diagnose, verify};
use random::Random;

const AT: u64 = 1_700_000_000;
/// The key that the app holds, and that its sender should sign with.
const PREFIX: &str = "signkey-prod-";
const DIGITS: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";

fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

fn keys() -> Keys {
    Keys::from(key(&format!("{PREFIX}{DIGITS}")))
}

/// Returns a signature over these bytes with any HMAC key, computed by the library.
fn signed(hmac_key: &[u8], signed: &[u8]) -> Signature {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(hmac_key).unwrap();
    mac.update(signed);
    let mac = hex::encode(mac.finalize().into_bytes());
    format!("t={AT}&s={mac}").parse().unwrap()
}

fn with_time(body: &[u8], time: &str) -> Vec<u8> {
    [body, time.as_bytes()].concat()
}

/// Returns the bodies of calls as a real server sent them.
fn bodies() -> Vec<Vec<u8>> {
    let lines = include_str!("vectors/server_requests.jsonl").lines();
    let requests = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let calls = requests.filter(|it| it["method"] == "POST");
    let bodies = calls.filter_map(|it| it["body"].as_str().map(|body| body.as_bytes().to_vec()));
    let bodies: Vec<_> = bodies.filter(|body| !body.is_empty()).collect();
    assert!(bodies.len() >= 10);
    bodies
}

#[test]
fn a_sender_who_misreads_the_key_is_diagnosed() {
    let at = AT.to_string();
    let decoded = hex::decode(DIGITS).unwrap();
    for body in bodies() {
        for (hmac_key, cause) in [
            (
                format!("{PREFIX}{DIGITS}").as_bytes(),
                Some(Cause::PrefixLeftOn),
            ),
            (&decoded, Some(Cause::HexDecoded)),
            (DIGITS.to_uppercase().as_bytes(), Some(Cause::OtherCase)),
            (format!("{DIGITS}\n").as_bytes(), Some(Cause::WhiteSpace)),
            (format!("{DIGITS}\r\n").as_bytes(), Some(Cause::WhiteSpace)),
            (format!("{DIGITS} ").as_bytes(), Some(Cause::WhiteSpace)),
            (b"another key", None),
        ] {
            let signature = signed(hmac_key, &with_time(&body, &at));
            assert_eq!(diagnose(&body, &signature, &keys()), cause);
            // Also as the fallback key.
            let both = Keys::new(key("signkey-prod-00"), Some(keys().current().clone()));
            assert_eq!(diagnose(&body, &signature, &both), cause);
        }
    }
}

#[test]
fn a_key_in_any_case_and_without_a_prefix_is_diagnosed_too() {
    for (held, hmac_key, cause) in [
        ("ABCD12", "abcd12", Cause::OtherCase),
        ("aBcD12", "abcd12", Cause::OtherCase),
        ("abcd12", "ABCD12", Cause::OtherCase),
        ("abcd12", "signkey-prod-abcd12", Cause::PrefixLeftOn),
        ("signkey-x-abcd12", "signkey-x-abcd12", Cause::PrefixLeftOn),
        ("signkey-x-abcd12", "abcd12\n", Cause::WhiteSpace),
    ] {
        let signature = signed(hmac_key.as_bytes(), &with_time(b"{}", &AT.to_string()));
        let found = diagnose(b"{}", &signature, &Keys::from(key(held)));
        assert_eq!(found, Some(cause), "{held} {hmac_key}");
    }
}

/// A proof must not be possible by chance. `DIAGNOSES` is the number of mismatches, by default two
/// thousand. Each is compared with about 260 MACs.
#[test]
fn random_mismatches_prove_nothing() {
    let count = std::env::var("DIAGNOSES").map_or(2_000, |it| it.parse().unwrap());
    let mut random = Random::new(1);
    let mut text = |least: u64, most: u64| {
        let len = least + random.below(most - least);
        let bytes = (0..len).map(|_| format!("{:02x}", random.below(256)));
        bytes.collect::<String>()
    };
    for step in 0..count {
        let [current, fallback, foreign] =
            [(); 3].map(|()| key(&format!("{PREFIX}{}", text(16, 33))));
        let keys = Keys::new(current.clone(), Some(fallback.clone()));
        let (body, other) = (text(1, 100), text(1, 100));
        let at = AT + step % 1000;
        // The first two as a client without a key makes them; the third from a changed body.
        let mismatch = match step % 3 {
            0 => foreign.sign(body.as_bytes(), at),
            1 => format!("t={at}&s={}", text(32, 33)).parse().unwrap(),
            _ => current.sign(format!("{body}{other}").as_bytes(), at),
        };
        let found = diagnose(body.as_bytes(), &mismatch, &keys);
        assert_eq!(found, None, "{step}: {body} {mismatch:?}");
        if step % 100 == 0 {
            let mistake = fallback.sign(format!("{body}\n").as_bytes(), at);
            let found = diagnose(body.as_bytes(), &mistake, &keys);
            assert_eq!(found, Some(Cause::BodyNewline), "{step}: {body}");
        }
    }
    println!("{count} mismatches, nothing proved");
}

#[test]
fn changed_line_endings_and_a_different_time_are_diagnosed() {
    let at = AT.to_string();
    // Bodies that are not JSON, so that no canonical form can match.
    for (sent, what_was_signed, cause) in [
        ("[\n", with_time(b"[", &at), Some(Cause::BodyNewline)),
        ("[\r\n", with_time(b"[", &at), Some(Cause::BodyNewline)),
        ("[", with_time(b"[\n", &at), Some(Cause::BodyNewline)),
        ("[", with_time(b"[\r\n", &at), Some(Cause::BodyNewline)),
        ("[\r\n", with_time(b"[\n", &at), Some(Cause::BodyNewline)),
        ("\n", with_time(b"", &at), Some(Cause::BodyNewline)),
        (
            "[\n1\n",
            with_time(b"[\r\n1\r\n", &at),
            Some(Cause::LineEnds),
        ),
        (
            "[\r\n1\r\n",
            with_time(b"[\n1\n", &at),
            Some(Cause::LineEnds),
        ),
        (
            "[\r\n\r1\r\n\r",
            with_time(b"[\n\r1\n\r", &at),
            Some(Cause::LineEnds),
        ),
        (
            "[\n}\n",
            with_time(b"[\r\n}\r\n", &at),
            Some(Cause::LineEnds),
        ),
        (
            "[",
            with_time(b"[", &(AT - 60).to_string()),
            Some(Cause::OtherTime),
        ),
        (
            "[",
            with_time(b"[", &(AT + 60).to_string()),
            Some(Cause::OtherTime),
        ),
        ("[", with_time(b"[", &(AT - 61).to_string()), None),
        ("[", with_time(b"[", &(AT + 61).to_string()), None),
        ("[", with_time(b"[", ""), Some(Cause::OtherTime)),
        ("[", with_time(b"[ ", &at), None),
    ] {
        let signature = signed(DIGITS.as_bytes(), &what_was_signed);
        assert_eq!(
            diagnose(sent.as_bytes(), &signature, &keys()),
            cause,
            "{sent:?}"
        );
        let verdict = verify(
            sent.as_bytes(),
            &signature,
            &keys(),
            AT,
            Tolerance::default(),
        );
        assert!(verdict.is_err(), "{sent:?}: the verdict is as it was");
    }
}

#[test]
fn causes_that_are_not_proved_are_suspected_from_the_body_alone() {
    let json = |len: usize| [&b"{"[..], &vec![b' '; len - 1]].concat();
    let limit = 64 * 1024;
    let signature = signed(b"another key", b"");
    for (body, cause) in [
        (vec![], Some(Cause::EmptyBody)),
        (vec![0x1f, 0x8b, 8, 0], Some(Cause::Compressed)),
        (vec![0x28, 0xb5, 0x2f, 0xfd], Some(Cause::Compressed)),
        (json(limit), None),
        (json(limit + 1), Some(Cause::Reencoded)),
        ([b"\n\t ", &*json(limit)].concat(), Some(Cause::Reencoded)),
        (vec![b'x'; limit + 1], None),
    ] {
        assert_eq!(
            diagnose(&body, &signature, &keys()),
            cause,
            "{} bytes",
            body.len()
        );
        assert!(cause.is_none_or(|cause| !cause.is_proved()));
    }
    // Too long to prove a cause.
    let body = json(limit + 1);
    let signature = signed(
        format!("{PREFIX}{DIGITS}").as_bytes(),
        &with_time(&body, &AT.to_string()),
    );
    assert_eq!(diagnose(&body, &signature, &keys()), Some(Cause::Reencoded));
    let body = json(limit);
    let signature = signed(
        format!("{PREFIX}{DIGITS}").as_bytes(),
        &with_time(&body, &AT.to_string()),
    );
    assert_eq!(
        diagnose(&body, &signature, &keys()),
        Some(Cause::PrefixLeftOn)
    );
}

#[test]
fn causes_have_names_for_labels_and_texts_that_say_what_to_do() {
    let causes = [
        (Cause::PrefixLeftOn, "prefix_left_on", true),
        (Cause::HexDecoded, "hex_decoded", true),
        (Cause::OtherCase, "other_case", true),
        (Cause::WhiteSpace, "white_space", true),
        (Cause::BodyNewline, "body_newline", true),
        (Cause::LineEnds, "line_ends", true),
        (Cause::OtherTime, "other_time", true),
        (Cause::Compressed, "compressed", false),
        (Cause::EmptyBody, "empty_body", false),
        (Cause::Reencoded, "reencoded", false),
    ];
    for (cause, name, proved) in causes {
        assert_eq!((cause.as_str(), cause.is_proved()), (name, proved));
        assert!(cause.to_string().contains("; "), "{cause}");
    }
}
