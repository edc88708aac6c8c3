//! Bodies with their canonical form, if they have one. A feature may turn an accept into a
//! rejection, but never a rejection into an accept.

use inngest_auth::{Form, Keys, SigningKey, Tolerance, verify};

const NOW: u64 = 1_700_000_000;

/// Returns the bytes that are accepted for `sent` if only `signed` was signed.
fn accepted(sent: &str, signed: &str) -> Option<String> {
    let key: SigningKey = "signkey-test-12345678".parse().unwrap();
    let signature = key.sign(signed.as_bytes(), NOW);
    let keys = Keys::from(key);
    let authentic = verify(
        sent.as_bytes(),
        &signature,
        &keys,
        NOW,
        Tolerance::default(),
    )
    .ok()?;
    assert_eq!(authentic.verified().form(), Form::Canonical);
    Some(String::from_utf8(authentic.into_bytes().into_owned()).unwrap())
}

#[test]
fn real_requests_signed_in_canonical_form_are_accepted_under_all_features() {
    for (sent, canonical) in [
        (
            r#"{"url":"http://a/?a=1\u0026b=2"}"#,
            r#"{"url":"http://a/?a=1&b=2"}"#,
        ),
        (
            r#"{"z":"1","a":["x",null,true]}"#,
            r#"{"a":["x",null,true],"z":"1"}"#,
        ),
        (
            r#"{"\ufb33":"1","\ud83d\ude00":"2","\u20ac":"3"}"#,
            "{\"€\":\"3\",\"😀\":\"2\",\"\u{fb33}\":\"1\"}",
        ),
        (r#"{"a":"1","a":"2"}"#, r#"{"a":"2"}"#),
    ] {
        assert_eq!(
            accepted(sent, canonical).as_deref(),
            Some(canonical),
            "{sent}"
        );
    }
}

#[test]
fn numbers_are_accepted_except_perhaps_under_a_feature_that_disguises_them() {
    for (sent, canonical) in [
        (" 1", "1"),
        ("1.0", "1"),
        ("9007199254740993", "9007199254740992"),
        ("-0.0", "0"),
        ("1e21 ", "1e+21"),
        (r#"{"b":1,"a":2.50}"#, r#"{"a":2.5,"b":1}"#),
    ] {
        let accepted = accepted(sent, canonical);
        if cfg!(feature = "arbitrary_precision") && accepted.is_none() {
            continue;
        }
        assert_eq!(accepted.as_deref(), Some(canonical), "{sent}");
    }
}

#[test]
fn what_is_rejected_is_rejected_under_all_features() {
    let deep = |n: usize| " ".to_owned() + &"[".repeat(n) + &"]".repeat(n);
    for (sent, signed) in [
        // How other readers interpret these.
        (r#"{"$serde_json::private::Number":"1"}"#, "1"),
        (r#"{"\u0024serde_json::private::Number":"1"}"#, "1"),
        (r#"[{"$serde_json::private::Number":"1"}]"#, "[1]"),
        (r#"{"$serde_json::private::RawValue":"[1]"}"#, "[1]"),
        (r#"{"$serde_json::private::RawValue":"\"x\""}"#, r#""x""#),
        ("1e400", "1e400 "),
        ("1e400", "null"),
        ("9007199254740993", "9007199254740993 "),
        (r#""\ud800""#, ""),
        ("not json", ""),
        ("1e400", ""),
        (&deep(200), &deep(200)[1..]),
    ] {
        assert_eq!(
            accepted(sent, signed),
            None,
            "{}",
            &sent[..sent.len().min(50)]
        );
    }
}
