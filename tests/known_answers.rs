//! Known answers for keys and signatures, from `tests/vectors/README.md`, on the lower floor
//! without HTTP.

#[path = "vectors/cases.rs"]
mod vectors;

use inngest_auth::testing::odd_key;
use inngest_auth::{
    Form, KeyError, KeyRole, Keys, Signature, SigningKey, Tolerance, Verified, verify,
};
use serde_json::Value;
use vectors::{cases, text};

const NOW: u64 = 1_700_000_000;

fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

/// Returns the verdict at `now = t` with the keys of the case.
fn judged(case: &Value, keys: &[SigningKey]) -> Option<(Verified, Vec<u8>)> {
    let (current, fallback) = keys.split_first()?;
    let keys = Keys::new(current.clone(), fallback.first().cloned());
    let signature: Signature = text(case, "header").parse().ok()?;
    let now = case["t"].as_u64().unwrap();
    let authentic = verify(
        text(case, "body").as_bytes(),
        &signature,
        &keys,
        now,
        Tolerance::default(),
    )
    .ok()?;
    Some((authentic.verified(), authentic.into_bytes().into_owned()))
}

fn keys(case: &Value) -> Vec<SigningKey> {
    match case["keys"].as_array() {
        // An empty key is the mistake that the case is about: there is no key.
        Some(keys) => keys
            .iter()
            .filter_map(|key| key.as_str().filter(|key| !key.is_empty()))
            .map(odd_key)
            .collect(),
        None => vec![odd_key(text(case, "key"))],
    }
}

#[test]
fn signed_requests_verify() {
    for case in cases("request_signature", 27) {
        let (verified, bytes) = judged(&case, &keys(&case)).unwrap_or_else(|| panic!("{case}"));
        let expected = match case["accepted_key_index"].as_u64() {
            Some(1) => KeyRole::Fallback,
            _ => KeyRole::Current,
        };
        assert_eq!(verified.key(), expected, "{case}");
        if let Some(canonical) = case["canonical"].as_str() {
            assert_eq!(bytes, canonical.as_bytes(), "{case}");
            let form = if text(&case, "body") == canonical {
                Form::Raw
            } else {
                Form::Canonical
            };
            assert_eq!(verified.form(), form, "{case}");
        }
        if case["canonicalize"] == false {
            assert_eq!(verified.form(), Form::Raw, "{case}");
        }
    }
}

#[test]
fn wrongly_signed_requests_do_not_verify() {
    for case in cases("request_signature_reject", 3) {
        assert!(judged(&case, &keys(&case)).is_none(), "{case}");
    }
}

#[test]
fn responses_are_signed_as_sdks_sign_them() {
    for case in cases("response_signature", 4) {
        let signature = odd_key(text(&case, "key"))
            .sign(text(&case, "body").as_bytes(), case["t"].as_u64().unwrap());
        assert_eq!(signature.to_string(), text(&case, "header"), "{case}");
    }
}

#[test]
fn bearers_are_the_prefix_and_the_hash() {
    for case in cases("bearer_hash", 14) {
        let expected = format!("{}{}", text(&case, "prefix"), text(&case, "sha256"));
        let key = key(text(&case, "key"));
        assert_eq!(key.bearer().as_str(), expected, "{case}");
        assert_eq!(
            key.fingerprint().to_string(),
            text(&case, "sha256")[..12],
            "{case}"
        );
    }
    for case in cases("fingerprint", 2) {
        let fingerprint = key(text(&case, "key")).fingerprint();
        assert_eq!(
            fingerprint.to_string(),
            text(&case, "fingerprint"),
            "{case}"
        );
    }
}

/// No genuine sender holds such a key, because it has no bearer token.
#[test]
fn a_text_without_a_bearer_is_not_a_key() {
    for case in cases("bearer_hash_error", 10) {
        let error = text(&case, "key").parse::<SigningKey>().unwrap_err();
        assert!(
            matches!(error, KeyError::NotHex | KeyError::OddLength),
            "{case}: {error}"
        );
    }
}

#[test]
fn keys_are_normalized_once() {
    for case in cases("normalize_key", 19) {
        let given = text(&case, "key");
        let Some(normal) = case["normalized"].as_str() else {
            let error = given.parse::<SigningKey>().unwrap_err();
            assert!(
                matches!(error, KeyError::Blank | KeyError::OnlyPrefix),
                "{case}: {error}"
            );
            continue;
        };
        // The remainder may look like a prefix, which `odd_key` would remove too.
        let expected = odd_key(&format!("signkey-other-{normal}")).sign(b"{}", NOW);
        assert_eq!(odd_key(given.trim()).sign(b"{}", NOW), expected, "{case}");
        if let Ok(parsed) = given.parse::<SigningKey>() {
            assert_eq!(parsed.sign(b"{}", NOW), expected, "{case}");
        }
    }
}

#[test]
fn a_prefix_is_signkey_one_word_and_a_dash() {
    for (text, shown) in [
        (
            "signkey-prod-12345678",
            "SigningKey(signkey-prod-…, fingerprint b2ed992186a5)",
        ),
        (
            "signkey-a_1-12345678",
            "SigningKey(signkey-a_1-…, fingerprint b2ed992186a5)",
        ),
        ("12345678", "SigningKey(fingerprint b2ed992186a5)"),
    ] {
        assert_eq!(format!("{:?}", key(text)), shown, "{text}");
    }
    // Without a prefix of exactly one word, the whole text must be hex, and it is not.
    for text in [
        "signkey--12345678",
        "signkey-é-12345678",
        "signkey-12345678",
        "signkey-my-env-12345678",
    ] {
        assert_eq!(text.parse::<SigningKey>(), Err(KeyError::NotHex), "{text}");
    }
    let fingerprint = key("12345678").fingerprint();
    assert_eq!(
        format!("{fingerprint} {fingerprint:?}"),
        "b2ed992186a5 b2ed992186a5"
    );
}

#[test]
fn keys_are_equal_in_secret_and_prefix() {
    let one = key("signkey-test-aa");
    assert_eq!(one, key(" signkey-test-aa\n"));
    for other in [
        "signkey-test-AA",
        "signkey-test-bb",
        "signkey-prod-aa",
        "aa",
    ] {
        assert_ne!(one, key(other), "{other}");
    }
    let both = Keys::new(one.clone(), Some(key("bb")));
    assert_eq!(both, Keys::new(one.clone(), Some(key("bb"))));
    for other in [
        Keys::from(one.clone()),
        Keys::new(one, Some(key("cc"))),
        Keys::new(key("cc"), Some(key("bb"))),
    ] {
        assert_ne!(both, other);
    }
}

#[test]
fn a_key_signs_at_a_time_of_ten_digits() {
    let key = key("12345678");
    for (at, signed_at) in [
        (0, 1_000_000_000),
        (999_999_999, 1_000_000_000),
        (1_000_000_000, 1_000_000_000),
        (NOW, NOW),
        (9_999_999_999, 9_999_999_999),
        (10_000_000_000, 9_999_999_999),
        (u64::MAX, 9_999_999_999),
    ] {
        let signature = key.sign(b"{}", at);
        assert_eq!(signature.signed_at(), signed_at, "{at}");
        assert!(
            signature
                .to_string()
                .starts_with(&format!("t={signed_at}&s=")),
            "{at}"
        );
    }
}

#[test]
fn a_text_that_is_not_a_key_says_why() {
    for (text, error) in [
        ("", KeyError::Blank),
        (" \n", KeyError::Blank),
        ("signkey-test-", KeyError::OnlyPrefix),
        (" signkey-test-\n", KeyError::OnlyPrefix),
        ("signkey-test-12345", KeyError::OddLength),
        ("0", KeyError::OddLength),
        ("signkey-test-1234567g", KeyError::NotHex),
        ("signkey-test-1234 5678", KeyError::NotHex),
        ("signkey-test-12é", KeyError::NotHex),
        ("\u{feff}12345678", KeyError::NotHex),
        ("undefined", KeyError::NotHex),
    ] {
        assert_eq!(text.parse::<SigningKey>().unwrap_err(), error, "{text:?}");
    }
}
