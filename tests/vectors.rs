//! Known answers, and requests as a real server sent them, judged as `tests/vectors/README.md` says.

mod common;

use axum::http::{Request, StatusCode};
use common::{NOW, Seen, key, send, serve};
use http_body_util::Full;
use hyper::body::Bytes;
use inngest_auth::testing::TestClock;
use inngest_auth::{
    Caller, Form, InngestAuth, KeyError, KeyRole, Keys, SIGNATURE_HEADER, Signature, SigningKey, Tolerance, Verified,
    verify,
};
use serde_json::Value;

/// The cases of a kind: there must be as many as when this was written.
fn cases(kind: &str, count: usize) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("vectors/known_answers.json")).unwrap();
    let cases = all[kind].as_array().unwrap().clone();
    assert_eq!(cases.len(), count, "cases of {kind}");
    cases
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} of {case}"))
}

/// The verdict at `now = t`, with the keys of the case.
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
        Some(keys) => keys.iter().filter_map(|key| key.as_str()?.parse().ok()).collect(),
        None => vec![key(text(case, "key"))],
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
fn wrongly_signed_requests_do_not() {
    for case in cases("request_signature_reject", 3) {
        assert!(judged(&case, &keys(&case)).is_none(), "{case}");
    }
}

#[test]
fn answers_are_signed_as_sdks_sign_them() {
    for case in cases("response_signature", 4) {
        let signature = key(text(&case, "key")).sign(text(&case, "body").as_bytes(), case["t"].as_u64().unwrap());
        assert_eq!(signature.to_string(), text(&case, "header"), "{case}");
    }
}

#[tokio::test]
async fn an_answer_is_signed_less_one_trailing_newline() {
    for case in cases("response_signature_newline", 1) {
        let inngest = common::inngest();
        let app = Seen::default().app(inngest.auth());
        let answer = common::ask(&app, inngest.call(common::CALL, text(&case, "body_sent").to_owned())).await;
        assert_eq!(answer.body, text(&case, "body_sent"));
        let expected = key("signkey-test-12345678").sign(text(&case, "body_signed").as_bytes(), NOW);
        assert_eq!(answer.header(SIGNATURE_HEADER), Some(&*expected.to_string()));
    }
}

#[test]
fn bearers_are_the_prefix_and_the_hash() {
    for case in cases("bearer_hash", 14) {
        let expected = format!("{}{}", text(&case, "prefix"), text(&case, "sha256"));
        let key = key(text(&case, "key"));
        assert_eq!(*key.bearer().unwrap(), expected, "{case}");
        assert_eq!(
            key.fingerprint().unwrap().to_string(),
            text(&case, "sha256")[..12],
            "{case}"
        );
    }
    for case in cases("fingerprint", 2) {
        let fingerprint = key(text(&case, "key")).fingerprint().unwrap();
        assert_eq!(fingerprint.to_string(), text(&case, "fingerprint"), "{case}");
    }
}

#[test]
fn a_key_without_a_bearer_verifies_all_the_same() {
    for case in cases("bearer_hash_error", 10) {
        let key = key(text(&case, "key"));
        assert!(key.bearer().is_err() && key.fingerprint().is_none(), "{case}");
        let signature = key.sign(b"{}", NOW);
        assert!(
            verify(b"{}", &signature, &key.into(), NOW, Tolerance::default()).is_ok(),
            "{case}"
        );
    }
}

#[test]
fn keys_are_normalized_once() {
    for case in cases("normalize_key", 19) {
        let parsed = text(&case, "key").parse::<SigningKey>();
        match case["normalized"].as_str() {
            // A bare key is its own normal form, unless it looks like one with a prefix.
            Some(normal) if !normal.starts_with("signkey-prod-") => {
                assert_eq!(parsed.unwrap().sign(b"{}", NOW), key(normal).sign(b"{}", NOW), "{case}");
            }
            Some(normal) => {
                let again = key(&format!("signkey-other-{normal}"));
                assert_eq!(parsed.unwrap().sign(b"{}", NOW), again.sign(b"{}", NOW), "{case}");
            }
            None => {
                assert!(matches!(parsed, Err(KeyError::Blank | KeyError::OnlyPrefix)), "{case}");
            }
        }
    }
}

/// A template with `{now}`, `{mac}` and the like filled in.
fn filled(template: &str, body: &[u8]) -> String {
    let mac_over = |suffix: &str| mac(&[body, suffix.as_bytes()].concat());
    let now = NOW.to_string();
    template
        .replace("{mac over body||'<now>abc'}", &mac_over(&format!("{now}abc")))
        .replace("{mac over body||' <now>'}", &mac_over(&format!(" {now}")))
        .replace("{mac over body||'0<now>'}", &mac_over(&format!("0{now}")))
        .replace("{mac over body}", &mac_over(""))
        .replace("{mac}", &mac_over(&now))
        .replace("{MAC upper}", &mac_over(&now).to_uppercase())
        .replace("{hex(now)}", &format!("{NOW:x}"))
        .replace("{now*1000}", &(NOW * 1000).to_string())
        .replace("{now-3600}", &(NOW - 3600).to_string())
        .replace("{now}", &now)
}

/// HMAC-SHA256 by the library, with the key of the test below.
fn mac(message: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"12345678").unwrap();
    mac.update(message);
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn headers_are_judged_by_the_grammar() {
    let key = key("signkey-test-12345678");
    let seen = Seen::default();
    let app = seen.app(InngestAuth::new(key).clock(TestClock::at(NOW)));
    for case in cases("header_case", 23) {
        let header = filled(text(&case, "template"), b"{}");
        let value = axum::http::HeaderValue::from_bytes(header.as_bytes()).unwrap();
        let request = Request::post("/")
            .header(SIGNATURE_HEADER, value)
            .body("{}".into())
            .unwrap();
        let status = common::ask(&app, request).await.status;
        match text(&case, "expected") {
            "accept" => assert_eq!(status, StatusCode::OK, "{case}"),
            "reject" => assert_eq!(status, StatusCode::UNAUTHORIZED, "{case}"),
            other => assert_eq!(other, "either"),
        }
    }
}

#[tokio::test]
async fn times_are_judged_by_the_window() {
    let key = key("signkey-test-12345678");
    let app = Seen::default().app(InngestAuth::new(key.clone()).clock(TestClock::at(NOW)));
    for case in cases("timestamp_case", 12) {
        let at = NOW
            .checked_add_signed(case["offset_seconds"].as_i64().unwrap())
            .unwrap();
        let request = Request::post("/").header(SIGNATURE_HEADER, key.sign(b"{}", at).to_string());
        let status = common::ask(&app, request.body("{}".into()).unwrap()).await.status;
        let expected = if case["expected"] == "accept" {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(status, expected, "{case}");
    }
}

/// The canonical form by the library, of bodies that are known to have one.
fn canonical(body: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(body).unwrap();
    serde_json_canonicalizer::to_vec(&value).unwrap()
}

#[tokio::test]
async fn captured_requests_pass_with_byte_exact_bodies_and_unsigned_ones_do_not() {
    let lines = include_str!("vectors/server_requests.jsonl").lines();
    let captured: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let clock = TestClock::at(0);
    let seen = Seen::default();
    let (mut signed, mut unsigned, mut canonical_only) = (0, 0, 0);
    for it in &captured {
        let body = match it["body_base64"].as_str() {
            Some(encoded) => {
                assert_eq!(encoded, "/wBwbGFpbg0KdGV4dA==", "the one body that is not text");
                b"\xff\0plain\r\ntext".to_vec()
            }
            None => text(it, "body").into(),
        };
        clock.set(it["received_at"].as_u64());
        let signing = it["signed_with"]
            .as_str()
            .unwrap_or("f7b964cc6e44c90645e5623ffc7e6076d5a69fca99b543490691d114d37afc69");
        let server = serve(seen.app(InngestAuth::new(key(signing)).clock(clock.clone()))).await;
        let mut request = Request::builder().method(text(it, "method")).uri(text(it, "target"));
        for header in it["headers"].as_array().unwrap() {
            request = request.header(header[0].as_str().unwrap(), header[1].as_str().unwrap());
        }
        let answer = send(server, request.body(Full::new(Bytes::from(body.clone()))).unwrap()).await;
        if it["signed_with"].is_null() {
            assert_eq!((answer.status, seen.count()), (StatusCode::UNAUTHORIZED, 0), "{it}");
            unsigned += 1;
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{it}");
        let (parts, got) = seen.one();
        let (form, expected) = match text(it, "signed_form") {
            "canonical" => (Form::Canonical, canonical(&body)),
            _ => (Form::Raw, body),
        };
        assert_eq!(got, expected, "{it}");
        let Some(Caller::Verified(verified)) = parts.extensions.get() else {
            panic!("not marked: {it}")
        };
        assert_eq!((verified.key(), verified.form()), (KeyRole::Current, form), "{it}");
        signed += 1;
        canonical_only += usize::from(form == Form::Canonical);
    }
    assert_eq!((signed, unsigned, canonical_only), (40, 5, 2), "requests in the file");
}
