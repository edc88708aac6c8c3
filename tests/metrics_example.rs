//! The metrics example, scraped over a real socket. Every outcome is counted once, under the right
//! labels.
#![cfg(feature = "layer")]

mod common;
#[path = "../examples/metrics/count.rs"]
mod count;

use std::net::SocketAddr;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::routing::any;
use common::{CALL, key, send, serve};
use count::Metrics;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{
    Clock, Config, InngestApiAuth, InngestAuth, KeyRing, Keys, SIGNATURE_HEADER, SigningKey,
    SystemClock,
};
use tower::{ServiceBuilder, ServiceExt};

const NEW: &str = "signkey-test-22222222";
const OLD: &str = "signkey-test-11111111";

async fn started(auth: InngestAuth) -> SocketAddr {
    let metrics = Metrics::new(auth.keys().cloned());
    let app = Router::new().route(
        "/api/inngest",
        metrics.watch(any(|| async { "ran" }).layer(auth)),
    );
    serve(app.merge(metrics.router())).await
}

async fn call(server: SocketAddr, method: &str, signature: Option<String>) -> StatusCode {
    let mut request = Request::builder().method(method).uri(CALL);
    if let Some(signature) = signature {
        request = request.header(SIGNATURE_HEADER, signature);
    }
    send(server, request.body(Full::from("{}")).unwrap())
        .await
        .status
}

async fn scraped(server: SocketAddr) -> String {
    let response = send(
        server,
        Request::get("/metrics").body(Full::default()).unwrap(),
    )
    .await;
    assert_eq!(response.status, StatusCode::OK);
    assert!(
        response
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    String::from_utf8(response.body.to_vec()).unwrap()
}

/// Returns the value of the sample with exactly this name and these labels.
fn sample<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[tokio::test]
async fn each_outcome_is_counted_once_by_key_and_by_kind() {
    let (new, old) = (key(NEW), key(OLD));
    let ring = KeyRing::from(Keys::new(new.clone(), Some(old.clone())));
    let server = started(InngestAuth::new(ring.clone())).await;
    let text = scraped(server).await;
    assert_eq!(
        sample(&text, "inngest_fallback_last_used_timestamp_seconds"),
        Some("0")
    );

    let now = SystemClock.now().unwrap();
    let signed = |key: &SigningKey, at| Some(key.sign(b"{}", at).to_string());
    for (signature, status) in [
        (signed(&new, now), 200),
        (signed(&new, now - 40), 200),
        // Signed by a clock ahead of this machine's.
        (signed(&new, now + 40), 200),
        (signed(&old, now), 200),
        (signed(&new, now - 600), 401),
        (signed(&key("signkey-test-00"), now), 401),
        (signed(&key("signkey-test-00"), now), 401),
        (None, 401),
    ] {
        assert_eq!(call(server, "POST", signature).await, status);
    }
    let foreign = signed(&key("signkey-test-00"), now);
    for (method, signature) in [("GET", foreign), ("BREW", None)] {
        assert_eq!(call(server, method, signature).await, 401);
    }
    let text = scraped(server).await;
    for (name, value) in [
        (
            r#"inngest_requests_total{outcome="verified",key="current"}"#,
            "3",
        ),
        (
            r#"inngest_requests_total{outcome="verified",key="fallback"}"#,
            "1",
        ),
        (
            r#"inngest_requests_total{outcome="rejected",key="none"}"#,
            "6",
        ),
        (
            r#"inngest_rejections_total{kind="wrong_signature",method="POST"}"#,
            "2",
        ),
        (
            r#"inngest_rejections_total{kind="stale",method="POST"}"#,
            "1",
        ),
        (
            r#"inngest_rejections_total{kind="missing",method="POST"}"#,
            "1",
        ),
        // Inngest Cloud's probes, and invented methods.
        (
            r#"inngest_rejections_total{kind="wrong_signature",method="GET"}"#,
            "1",
        ),
        (
            r#"inngest_rejections_total{kind="missing",method="other"}"#,
            "1",
        ),
        // Counts verified requests, whether older or from the future.
        ("inngest_signature_age_seconds_count", "4"),
        (r#"inngest_signature_age_seconds_bucket{le="15.0"}"#, "2"),
        (r#"inngest_signature_age_seconds_bucket{le="60.0"}"#, "4"),
    ] {
        assert_eq!(sample(&text, name), Some(value), "{name} in\n{text}");
    }
    let last = sample(&text, "inngest_fallback_last_used_timestamp_seconds").unwrap();
    let last: u64 = last.parse().unwrap();
    assert!((now..now + 100).contains(&last), "{last}");

    // The end of a rotation restarts the count.
    ring.retire_fallback();
    let text = scraped(server).await;
    assert_eq!(
        sample(&text, "inngest_fallback_last_used_timestamp_seconds"),
        Some("0")
    );
}

#[tokio::test]
async fn requests_in_dev_mode_are_not_counted_as_verified() {
    let server = started(InngestAuth::insecure_unverified_dev()).await;
    assert_eq!(call(server, "POST", None).await, StatusCode::OK);
    let text = scraped(server).await;
    assert_eq!(
        sample(
            &text,
            r#"inngest_requests_total{outcome="unverified",key="none"}"#
        ),
        Some("1")
    );
    assert!(!text.contains("verified\",key=\"current\"}"), "{text}");
}

#[tokio::test]
async fn an_api_call_that_needed_the_fallback_is_counted_as_such() {
    let known = format!("Bearer {}", key(OLD).bearer().as_str());
    let api = Router::new().fallback(move |headers: HeaderMap| async move {
        if headers[AUTHORIZATION] == *known {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    let address = format!("http://{}", serve(api).await);
    for (current, fallback, expected) in [
        (NEW, OLD, r#"{key="fallback",status="200"}"#),
        (OLD, NEW, r#"{key="current",status="200"}"#),
        (NEW, "signkey-test-33", r#"{key="fallback",status="401"}"#),
    ] {
        let config = Config::from_vars([
            ("INNGEST_SIGNING_KEY", current),
            ("INNGEST_SIGNING_KEY_FALLBACK", fallback),
            ("INNGEST_API_BASE_URL", &address),
        ]);
        let config = config.unwrap();
        let metrics = Metrics::new(None);
        let counting = metrics.clone();
        let client = ServiceBuilder::new()
            .map_response(move |response| counting.count_api_call(response))
            .layer(InngestApiAuth::from_config(&config))
            .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
        let request =
            Request::get(format!("{}/v1/events", config.api_base().unwrap())).body(Full::default());
        client.oneshot(request.unwrap()).await.unwrap();
        let text = scraped(serve(metrics.router()).await).await;
        assert_eq!(
            sample(&text, &format!("inngest_api_calls_total{expected}")),
            Some("1"),
            "{text}"
        );
    }
}
