//! Requests as a real server sent them, and headers and times, checked as `tests/vectors/README.md`
//! says.
#![cfg(feature = "layer")]

mod common;
#[path = "vectors/cases.rs"]
mod vectors;

use axum::http::{Request, StatusCode};
use common::{NOW, Seen, key, send, serve};
use http_body_util::Full;
use hyper::body::Bytes;
use inngest_auth::testing::TestClock;
use inngest_auth::{Caller, Form, InngestAuth, KeyRole, SIGNATURE_HEADER, SignResponses};
use serde_json::Value;
use vectors::{cases, text};

#[tokio::test]
async fn a_response_is_signed_without_one_trailing_newline() {
    for case in cases("response_signature_newline", 1) {
        let inngest = common::inngest();
        let app = Seen::default().app(inngest.auth().sign_responses(SignResponses::All));
        let response = common::ask(
            &app,
            inngest.call(common::CALL, text(&case, "body_sent").to_owned()),
        )
        .await;
        assert_eq!(response.body, text(&case, "body_sent"));
        let expected =
            key("signkey-test-12345678").sign(text(&case, "body_signed").as_bytes(), NOW);
        assert_eq!(
            response.header(SIGNATURE_HEADER),
            Some(&*expected.to_string())
        );
    }
}

/// Returns a template with `{now}`, `{mac}` and similar filled in.
fn filled(template: &str, body: &[u8]) -> String {
    let mac_over = |suffix: &str| mac(&[body, suffix.as_bytes()].concat());
    let now = NOW.to_string();
    template
        .replace(
            "{mac over body||'<now>abc'}",
            &mac_over(&format!("{now}abc")),
        )
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

/// Returns the HMAC-SHA256 by the library, with the key of the test below.
fn mac(message: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"12345678").unwrap();
    mac.update(message);
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn headers_are_accepted_exactly_by_the_grammar() {
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
async fn times_are_accepted_exactly_within_the_window() {
    let key = key("signkey-test-12345678");
    let app = Seen::default().app(InngestAuth::new(key.clone()).clock(TestClock::at(NOW)));
    for case in cases("timestamp_case", 12) {
        let at = NOW
            .checked_add_signed(case["offset_seconds"].as_i64().unwrap())
            .unwrap();
        let request = Request::post("/").header(SIGNATURE_HEADER, key.sign(b"{}", at).to_string());
        let status = common::ask(&app, request.body("{}".into()).unwrap())
            .await
            .status;
        let expected = if case["expected"] == "accept" {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(status, expected, "{case}");
    }
}

/// Returns the canonical form by the library, for bodies that have one.
fn canonical(body: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(body).unwrap();
    serde_json_canonicalizer::to_vec(&value).unwrap()
}

#[tokio::test]
async fn captured_requests_are_accepted_with_byte_exact_bodies_and_unsigned_ones_rejected() {
    let lines = include_str!("vectors/server_requests.jsonl").lines();
    let captured: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let clock = TestClock::at(0);
    let seen = Seen::default();
    let (mut signed, mut unsigned, mut canonical_only) = (0, 0, 0);
    for it in &captured {
        let body = match it["body_base64"].as_str() {
            Some(encoded) => {
                assert_eq!(
                    encoded, "/wBwbGFpbg0KdGV4dA==",
                    "the one body that is not text"
                );
                b"\xff\0plain\r\ntext".to_vec()
            }
            None => text(it, "body").into(),
        };
        clock.set(it["received_at"].as_u64());
        let signing = it["signed_with"]
            .as_str()
            .unwrap_or("f7b964cc6e44c90645e5623ffc7e6076d5a69fca99b543490691d114d37afc69");
        let server = serve(seen.app(InngestAuth::new(key(signing)).clock(clock.clone()))).await;
        let mut request = Request::builder()
            .method(text(it, "method"))
            .uri(text(it, "target"));
        for header in it["headers"].as_array().unwrap() {
            request = request.header(header[0].as_str().unwrap(), header[1].as_str().unwrap());
        }
        let response = send(
            server,
            request.body(Full::new(Bytes::from(body.clone()))).unwrap(),
        )
        .await;
        if it["signed_with"].is_null() {
            assert_eq!(
                (response.status, seen.count()),
                (StatusCode::UNAUTHORIZED, 0),
                "{it}"
            );
            unsigned += 1;
            continue;
        }
        assert_eq!(response.status, StatusCode::OK, "{it}");
        let (parts, got) = seen.one();
        let (form, expected) = match text(it, "signed_form") {
            "canonical" => (Form::Canonical, canonical(&body)),
            _ => (Form::Raw, body),
        };
        assert_eq!(got, expected, "{it}");
        let Some(Caller::Verified(verified)) = parts.extensions.get() else {
            panic!("not marked: {it}")
        };
        assert_eq!(
            (verified.key(), verified.form()),
            (KeyRole::Current, form),
            "{it}"
        );
        signed += 1;
        canonical_only += usize::from(form == Form::Canonical);
    }
    assert_eq!(
        (signed, unsigned, canonical_only),
        (40, 5, 2),
        "requests in the file"
    );
}
