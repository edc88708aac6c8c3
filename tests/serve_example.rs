//! The router that users copy, over a real socket, with requests as a real Inngest server sent
//! them.
//!
//! Some were sent to other paths. The path is not signed, so all of them are sent to `/api/inngest`
//! here.
#![cfg(feature = "layer")]

#[path = "../examples/serve/app.rs"]
mod app;
#[path = "../examples/serve/register.rs"]
mod register;
#[path = "../examples/serve/url.rs"]
mod url;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use inngest_auth::testing::TestClock;
use inngest_auth::{Config, InngestAuth, SIGNATURE_HEADER, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use register::{Registry, Serve};
use url::AppUrl;

const CURRENT: &str = "f7b964cc6e44c90645e5623ffc7e6076d5a69fca99b543490691d114d37afc69";
const NOW: u64 = 1_700_000_000;
const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Returns a configuration with a current key, a fallback key, and an API that stands in for
/// Inngest's.
fn config(fallback: &str, api: &str) -> Config {
    Config::from_vars([
        ("INNGEST_SIGNING_KEY", CURRENT),
        ("INNGEST_SIGNING_KEY_FALLBACK", fallback),
        ("INNGEST_API_BASE_URL", api),
    ])
    .unwrap()
}

async fn listening(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// Returns the app's URL settings: `INNGEST_SERVE_ORIGIN`, if any, and the address that it listens
/// on.
fn serve(configured: Option<&str>) -> Serve {
    Serve {
        configured: configured.map(|url| AppUrl::parse(url).unwrap()),
        listening: AppUrl::parse("http://127.0.0.1:3000/api/inngest").unwrap(),
    }
}

async fn started(auth: InngestAuth, config: &Config, configured: Option<&str>) -> SocketAddr {
    let registry = Registry::new(config, app::description(), serve(configured));
    listening(app::app(auth, registry, app::inspect)).await
}

/// Serves the example's app, with an API address on which nothing listens.
async fn alone(auth: InngestAuth) -> SocketAddr {
    started(auth, &config("", "http://127.0.0.1:1"), None).await
}

/// The only registration that the API has received: its URI, headers and body.
type Seen = Arc<Mutex<Vec<(Uri, HeaderMap, Value)>>>;

/// Starts an API that accepts one key.
async fn api(known: &SigningKey, status: StatusCode, response: &'static str) -> (String, Seen) {
    let bearer = format!("Bearer {}", known.bearer().as_str());
    let seen = Seen::default();
    let register = move |State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        if headers["authorization"] != bearer {
            return (StatusCode::UNAUTHORIZED, "");
        }
        let body = serde_json::from_slice(&body).unwrap();
        seen.lock().unwrap().push((uri, headers, body));
        (status, response)
    };
    let app = Router::new().route("/fn/register", axum::routing::post(register));
    let address = listening(app.with_state(Arc::clone(&seen))).await;
    (format!("http://{address}"), seen)
}

async fn send(server: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let socket = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    Reply {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Returns the response of `inspect`.
fn inspected(verified: Option<(&str, &str, u64)>, mode: &str, body: &[u8]) -> Value {
    json!({
        "mode": mode,
        "key": verified.map(|it| it.0),
        "form": verified.map(|it| it.1),
        "signed_at": verified.map(|it| it.2),
        "bytes": body.len(),
        "sha256": hex::encode(Sha256::digest(body)),
    })
}

/// Returns the functions as they are registered at this URL.
fn functions(url: &str) -> Value {
    json!([{
        "id": "inngest-auth-demo-inspect", "name": "inspect", "triggers": [{"event": "demo/inspect"}],
        "steps": {"step": {
            "id": "step", "name": "step", "retries": {"attempts": 1},
            "runtime": {"type": "http", "url": url},
        }},
    }])
}

/// Returns the response to a verified `GET`.
fn inspection(config: &Config, mut more: Value) -> Value {
    let keys = config.keys().unwrap().snapshot();
    let mut told = json!({
        "schema_version": "2024-05-24",
        "authentication_succeeded": true,
        "api_origin": config.api_base().unwrap(),
        "app_id": "inngest-auth-demo",
        "capabilities": {"in_band_sync": "v1", "trust_probe": "v1"},
        "event_api_origin": config.api_base().unwrap(),
        "framework": "axum",
        "function_count": 1,
        "has_event_key": false,
        "has_signing_key": true,
        "has_signing_key_fallback": keys.fallback().is_some(),
        "mode": "cloud",
        "sdk_language": "rust",
        "sdk_version": env!("CARGO_PKG_VERSION"),
        "signing_key_hash": keys.current().fingerprint().to_string(),
    });
    if let Some(fallback) = keys.fallback() {
        told["signing_key_fallback_hash"] = json!(fallback.fingerprint().to_string());
    }
    told.as_object_mut()
        .unwrap()
        .append(more.as_object_mut().unwrap());
    told
}

struct Captured(Value);

impl Captured {
    fn all() -> Vec<Self> {
        let lines = include_str!("vectors/server_requests.jsonl").lines();
        lines
            .map(|line| Self(serde_json::from_str(line).unwrap()))
            .collect()
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn body(&self) -> Vec<u8> {
        match self.0.get("body_base64") {
            // The only body that is not text.
            Some(encoded) => {
                assert_eq!(encoded, "/wBwbGFpbg0KdGV4dA==");
                b"\xff\0plain\r\ntext".to_vec()
            }
            None => self.text("body").into(),
        }
    }

    /// Returns the bytes that the handler must receive.
    fn authenticated(&self) -> Vec<u8> {
        match self.text("signed_form") {
            // For these bodies, any serializer that escapes no more than necessary produces the
            // canonical form.
            "canonical" => serde_json::from_slice::<Value>(&self.body())
                .unwrap()
                .to_string()
                .into(),
            _ => self.body(),
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.0["headers"].as_array().unwrap().iter();
        headers.map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap()))
    }

    fn request(&self, server: SocketAddr) -> Request<Full<Bytes>> {
        let query = self
            .text("target")
            .split_once('?')
            .map_or("", |(_, query)| query);
        let mut request = Request::builder()
            .method(self.text("method"))
            .uri(format!("/api/inngest?{query}"))
            .header("host", server.to_string());
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        request.body(Full::from(self.body())).unwrap()
    }

    fn signed_at(&self) -> u64 {
        let (_, signature) = self
            .headers()
            .find(|(name, _)| *name == "X-Inngest-Signature")
            .unwrap();
        signature[2..12].parse().unwrap()
    }
}

fn key() -> SigningKey {
    CURRENT.parse().unwrap()
}

/// Returns a signed request.
fn signed(method: &str, uri: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header(
            SIGNATURE_HEADER,
            key().sign(body.as_bytes(), NOW).to_string(),
        )
        .body(Full::from(body.to_owned()))
        .unwrap()
}

fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &'static str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn captured_requests_reach_the_app_signed_and_get_401_unsigned() {
    let captured = Captured::all();
    let other = captured.iter().map(|it| it.text("signed_with"));
    let other = other
        .clone()
        .find(|key| !["", CURRENT].contains(key))
        .unwrap();
    let clock = TestClock::at(0);
    let (api, registrations) = api(&key(), StatusCode::OK, r#"{"ok":true,"modified":true}"#).await;
    let config = config(other, &api);
    let auth = InngestAuth::from_config(&config).clock(clock.clone());
    let server = started(auth, &config, None).await;

    let (mut unsigned, mut signed, mut in_band) = (0, 0, 0);
    for it in &captured {
        clock.set(it.0["received_at"].as_u64());
        let response = send(server, it.request(server)).await;
        let what = it.text("what");
        let key = match it.text("signed_with") {
            "" => {
                assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{what}");
                assert_eq!(response.body, r#"{"message":"Unauthorized"}"#, "{what}");
                assert_eq!(response.header("x-inngest-sdk"), None, "{what}");
                unsigned += 1;
                continue;
            }
            CURRENT => "current",
            _ => "fallback",
        };
        signed += 1;
        let expected = match it.text("method") {
            "POST" => {
                let verified = Some((key, it.text("signed_form"), it.signed_at()));
                inspected(verified, "cloud", &it.authenticated())
            }
            "GET" => inspection(&config, json!({})),
            _ if response.header("x-inngest-sync-kind") == Some("in_band") => {
                in_band += 1;
                let url: Value = serde_json::from_slice(&it.authenticated()).unwrap();
                assert_eq!(response.json()["url"], url["url"], "{what}");
                response.json()
            }
            _ => json!({"message": "Successfully registered", "modified": true}),
        };
        assert_eq!(
            response.status,
            StatusCode::OK,
            "{what}: {:?}",
            response.body
        );
        assert_eq!(response.json(), expected, "{what}");
        assert_eq!(response.header("x-inngest-sdk"), Some(SDK), "{what}");
        assert_eq!(
            response.header("x-inngest-req-version"),
            Some("2"),
            "{what}"
        );
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{what}"
        );
        let key: SigningKey = it.text("signed_with").parse().unwrap();
        // Only what Inngest requires is signed.
        let expected = (response.header("x-inngest-sync-kind") == Some("in_band"))
            .then(|| key.sign(&response.body, it.signed_at()).to_string());
        assert_eq!(
            response.header(SIGNATURE_HEADER),
            expected.as_deref(),
            "{what}"
        );
    }
    assert_eq!((unsigned, signed), (5, 40), "requests in the file");
    assert_eq!(
        (registrations.lock().unwrap().len(), in_band),
        (3, 1),
        "syncs in the file"
    );
}

/// The URL comes from what Inngest signed, from `INNGEST_SERVE_ORIGIN` or from the address that the
/// app listens on, never from a header.
#[tokio::test]
async fn the_app_is_registered_at_the_url_by_which_inngest_reaches_it() {
    let (api, seen) = api(&key(), StatusCode::OK, r#"{"ok":true,"modified":false}"#).await;
    let config = config("", &api);
    for (configured, signed_url, expected) in [
        (None, None, "http://127.0.0.1:3000/api/inngest"),
        (
            None,
            Some("https://a.example/x/inngest"),
            "https://a.example/x/inngest",
        ),
        (
            None,
            Some("https://a.example/f?a=1&b=%262"),
            "https://a.example/f?a=1&b=%262",
        ),
        (
            Some("https://app.example"),
            None,
            "https://app.example/api/inngest",
        ),
        (
            Some("https://app.example/"),
            None,
            "https://app.example/api/inngest",
        ),
        (
            Some("https://app.example/api/inngest"),
            None,
            "https://app.example/api/inngest",
        ),
        (
            Some("https://app.example/in/api/inngest?x=1"),
            None,
            "https://app.example/in/api/inngest?x=1",
        ),
        (
            Some("https://app.example"),
            Some("http://10.0.0.7:80/f?a=1"),
            "https://app.example/f?a=1",
        ),
    ] {
        let auth = InngestAuth::from_config(&config).clock(TestClock::at(NOW));
        let server = started(auth, &config, configured).await;
        let body = signed_url.map_or_else(|| "{}".into(), |url| json!({ "url": url }).to_string());
        let what = format!("{configured:?} {body}");
        let step = |url: &str| {
            let mark = if url.contains('?') { '&' } else { '?' };
            functions(&format!(
                "{url}{mark}fnId=inngest-auth-demo-inspect&stepId=step"
            ))
        };

        let response = send(server, signed("PUT", "/api/inngest?deployId=1", &body)).await;
        assert_eq!(response.status, StatusCode::OK, "{what}");
        assert_eq!(
            response.header("x-inngest-sync-kind"),
            Some("out_of_band"),
            "{what}"
        );
        let (_, _, registered) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            (&registered["url"], &registered["functions"]),
            (&json!(expected), &step(expected)),
            "{what}"
        );

        let in_band = with(
            signed("PUT", "/api/inngest", &body),
            "x-inngest-sync-kind",
            "in_band",
        );
        let response = send(server, in_band).await;
        if signed_url.is_none() {
            assert_eq!(response.status, StatusCode::BAD_REQUEST, "{what}");
            continue;
        }
        let mut place = json!({});
        if let Some(configured) = configured {
            place["serve_origin"] = json!(configured);
        }
        let payload = json!({
            "app_id": "inngest-auth-demo",
            "framework": "axum",
            "functions": step(expected),
            "inspection": inspection(&config, place),
            "sdk_author": "inngest-auth",
            "sdk_language": "rust",
            "sdk_version": env!("CARGO_PKG_VERSION"),
            "url": expected,
        });
        assert_eq!(
            (response.status, response.json()),
            (StatusCode::OK, payload),
            "{what}"
        );
        assert!(response.header(SIGNATURE_HEADER).is_some(), "{what}");
        assert!(
            seen.lock().unwrap().is_empty(),
            "{what}: the API was called"
        );
    }
}

#[test]
fn a_url_of_a_function_keeps_the_query_and_names_one_function() {
    for (url, expected) in [
        (
            "http://a.example",
            Some("http://a.example?fnId=a%26b&stepId=step"),
        ),
        (
            "http://a.example/?x",
            Some("http://a.example?x&fnId=a%26b&stepId=step"),
        ),
        (
            "https://[::1]:8443/api/?x=%2F&fnId=old&fn%49d=old&y=%20&stepId=old",
            Some("https://[::1]:8443/api/?x=%2F&y=%20&fnId=a%26b&stepId=step"),
        ),
        (
            " http://a.example/x\n",
            Some("http://a.example/x?fnId=a%26b&stepId=step"),
        ),
        ("a.example", None),
        ("/api/inngest", None),
        ("ftp://a.example/", None),
        ("https://user:word@a.example/", None),
        ("https://", None),
        ("", None),
    ] {
        let made = AppUrl::parse(url).map(|url| url.of_function("a&b").to_string());
        assert_eq!(made.as_deref(), expected, "{url:?}");
    }
}

#[tokio::test]
async fn a_registration_says_all_that_the_api_reads() {
    let old: SigningKey = "signkey-prod-0123456789abcdef".parse().unwrap();
    // During a rotation the API may accept only the fallback key.
    for (known, environment, kind) in [
        (&key(), None, None),
        (&old, Some("my-branch"), Some("cloud")),
    ] {
        let (api, seen) = api(known, StatusCode::OK, r#"{"ok":true,"modified":false}"#).await;
        let mut vars = vec![
            ("INNGEST_SIGNING_KEY", CURRENT),
            (
                "INNGEST_SIGNING_KEY_FALLBACK",
                "signkey-prod-0123456789abcdef",
            ),
            ("INNGEST_API_BASE_URL", &api),
        ];
        vars.extend(environment.map(|name| ("INNGEST_ENV", name)));
        let config = Config::from_vars(vars).unwrap();
        let auth = InngestAuth::from_config(&config).clock(TestClock::at(NOW));
        let server = started(auth, &config, Some("https://app.example")).await;
        let mut request = signed("PUT", "/api/inngest?deployId=a%26b%3D%20c&x=1", "{}");
        if let Some(kind) = kind {
            request = with(request, "x-inngest-server-kind", kind);
        }
        let response = send(server, request).await;
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(
            response.json(),
            json!({"message": "Successfully registered", "modified": false})
        );

        let (uri, headers, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(uri, "/fn/register?deployId=a%26b%3D+c");
        for (name, value) in [
            ("content-type", Some("application/json")),
            ("user-agent", Some(SDK)),
            ("x-inngest-sdk", Some(SDK)),
            ("x-inngest-framework", Some("axum")),
            ("x-inngest-req-version", Some("2")),
            ("x-inngest-env", environment),
            ("x-inngest-expected-server-kind", kind),
        ] {
            assert_eq!(
                headers.get(name).map(|it| it.to_str().unwrap()),
                value,
                "{name}"
            );
        }
        let url = "https://app.example/api/inngest";
        let expected = json!({
            "url": url, "deployType": "ping", "appName": "inngest-auth-demo", "sdk": SDK, "v": "0.1", "framework": "axum",
            "capabilities": {"in_band_sync": "v1", "trust_probe": "v1"},
            "functions": functions(&format!("{url}?fnId=inngest-auth-demo-inspect&stepId=step")),
        });
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn an_unknown_server_kind_is_not_forwarded() {
    let (api, seen) = api(&key(), StatusCode::OK, r#"{"ok":true}"#).await;
    let config = config("", &api);
    let auth = InngestAuth::from_config(&config).clock(TestClock::at(NOW));
    let server = started(auth, &config, None).await;
    for (kind, passed_on) in [
        ("cloud", true),
        ("dev", true),
        ("Cloud", false),
        ("", false),
        ("else", false),
    ] {
        send(
            server,
            with(
                signed("PUT", "/api/inngest", "{}"),
                "x-inngest-server-kind",
                kind,
            ),
        )
        .await;
        let (_, headers, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            headers.contains_key("x-inngest-expected-server-kind"),
            passed_on,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_failed_sync_passes_on_the_apis_message() {
    for (status, said, message) in [
        (
            403,
            r#"{"error":"no such environment","ok":false}"#,
            "no such environment",
        ),
        (
            200,
            r#"{"ok":false,"error":"bad function"}"#,
            "bad function",
        ),
        (
            500,
            "oh no",
            "Inngest's API responded 500 Internal Server Error: oh no",
        ),
        (
            200,
            r#"{"ok":false}"#,
            r#"Inngest's API responded 200 OK: {"ok":false}"#,
        ),
        (200, "not json", "Inngest's API responded 200 OK: not json"),
    ] {
        let (api, _) = api(&key(), StatusCode::from_u16(status).unwrap(), said).await;
        let config = config("", &api);
        let auth = InngestAuth::from_config(&config).insecure_unsigned_sync(true);
        let server = started(auth, &config, None).await;
        let request = Request::put("/api/inngest")
            .header("host", "localhost")
            .body(Full::default());
        let response = send(server, request.unwrap()).await;
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR, "{said}");
        assert_eq!(
            response.json(),
            json!({"message": message, "modified": false}),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_sync_without_a_url_is_a_400_that_says_so() {
    let server = alone(InngestAuth::new(key()).clock(TestClock::at(NOW))).await;
    for url in [
        json!(1),
        json!("app.example"),
        json!("ftp://app.example"),
        json!("https://u@app.example"),
    ] {
        for kind in ["in_band", "out_of_band"] {
            let request = signed("PUT", "/api/inngest", &json!({ "url": url }).to_string());
            let response = send(server, with(request, "x-inngest-sync-kind", kind)).await;
            assert_eq!(response.status, StatusCode::BAD_REQUEST, "{url}");
            assert!(
                response.json()["message"]
                    .as_str()
                    .unwrap()
                    .contains("`url`"),
                "{url}"
            );
        }
    }
}

/// The API's default is an https URL. There is no certificate here; the test only checks that the
/// client speaks TLS.
#[tokio::test]
async fn an_https_api_is_called_over_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(
        "",
        &format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        ),
    );
    let auth = InngestAuth::from_config(&config).clock(TestClock::at(NOW));
    let server = started(auth, &config, None).await;
    let hello = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut record = [0; 6];
        socket.read_exact(&mut record).await.unwrap();
        (record[0], record[5])
    };
    let (hello, response) = tokio::join!(hello, send(server, signed("PUT", "/api/inngest", "{}")));
    // A handshake record with a ClientHello (RFC 8446, sections 4 and 5.1).
    assert_eq!(hello, (22, 1));
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_trust_probe_gets_a_signed_response() {
    let server = alone(InngestAuth::new(key()).clock(TestClock::at(NOW))).await;
    let response = send(server, signed("POST", "/api/inngest?probe=trust", "")).await;
    assert_eq!(
        (response.status, &response.body[..]),
        (StatusCode::OK, &b"{}"[..])
    );
    assert_eq!(response.header("x-inngest-sdk"), Some(SDK));
    assert_eq!(
        response.header(SIGNATURE_HEADER),
        Some(&*key().sign(b"{}", NOW).to_string())
    );
    let mut unsigned = signed("POST", "/api/inngest?probe=trust", "");
    unsigned.headers_mut().remove(SIGNATURE_HEADER);
    assert_eq!(
        send(server, unsigned).await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// Requests are not verified in dev mode, so a client learns only what is public.
#[tokio::test]
async fn in_dev_mode_calls_run_and_an_introspection_is_short() {
    let dev = Config::from_vars([("INNGEST_DEV", "1"), ("INNGEST_SIGNING_KEY", CURRENT)]).unwrap();
    let server = started(InngestAuth::from_config(&dev), &dev, None).await;
    let response = send(server, signed("POST", "/api/inngest", "{}")).await;
    assert_eq!(
        (response.status, response.json()),
        (StatusCode::OK, inspected(None, "dev", b"{}"))
    );
    let short = json!({
        "schema_version": "2024-05-24", "function_count": 1, "has_event_key": false, "has_signing_key": false,
        "has_signing_key_fallback": false, "mode": "dev",
    });
    let response = send(server, signed("GET", "/api/inngest", "")).await;
    assert_eq!((response.status, response.json()), (StatusCode::OK, short));
    // The conformance runner sends such syncs.
    let sync = signed("PUT", "/api/inngest", r#"{"url":"http://127.0.0.1:9/"}"#);
    let response = send(server, with(sync, "x-inngest-sync-kind", "in_band")).await;
    assert_eq!(
        (response.status, &response.json()["url"]),
        (StatusCode::OK, &json!("http://127.0.0.1:9"))
    );
}

/// The API accepts the whole hash of a key as a token, so no response may contain it.
#[tokio::test]
async fn no_response_contains_a_key_or_a_token() {
    let other = "signkey-prod-0123456789abcdef";
    let config = config(other, "http://127.0.0.1:1");
    let auth = InngestAuth::from_config(&config).clock(TestClock::at(NOW));
    let server = started(auth, &config, None).await;
    let sync = with(
        signed("PUT", "/api/inngest", r#"{"url":"http://a.example"}"#),
        "x-inngest-sync-kind",
        "in_band",
    );
    for request in [
        signed("GET", "/api/inngest", ""),
        sync,
        signed("POST", "/api/inngest", "{}"),
    ] {
        let body = String::from_utf8(send(server, request).await.body.into()).unwrap();
        for key in [CURRENT, other] {
            let key: SigningKey = key.parse().unwrap();
            let hash = key.bearer().as_str().rsplit('-').next().unwrap().to_owned();
            for secret in [CURRENT, "0123456789abcdef", &hash] {
                assert!(!body.contains(secret), "{body}");
            }
        }
    }
}

#[tokio::test]
async fn an_unsigned_sync_registers_the_app_if_that_was_chosen() {
    let (api, seen) = api(&key(), StatusCode::OK, r#"{"ok":true,"modified":true}"#).await;
    let config = config("", &api);
    let auth = InngestAuth::from_config(&config).insecure_unsigned_sync(true);
    let server = started(auth, &config, None).await;
    // An in-band sync needs a signature: an unsigned one gets no payload, and the app registers
    // with the API instead. Nor does an unsigned body determine the app's URL.
    let mut request = with(
        signed("PUT", "/api/inngest", r#"{"url":"http://elsewhere"}"#),
        "x-inngest-sync-kind",
        "in_band",
    );
    request.headers_mut().remove(SIGNATURE_HEADER);
    let response = send(server, request).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(
        response.json(),
        json!({"message": "Successfully registered", "modified": true})
    );
    assert_eq!(response.header(SIGNATURE_HEADER), None);
    let seen = seen.lock().unwrap();
    assert_eq!(
        (seen.len(), &seen[0].2["url"]),
        (1, &json!("http://127.0.0.1:3000/api/inngest"))
    );
}

#[tokio::test]
async fn only_the_endpoint_is_guarded() {
    let server = alone(InngestAuth::new(key())).await;
    for (path, status) in [("/healthz", 200), ("/api/inngest", 401), ("/nowhere", 404)] {
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Full::default());
        assert_eq!(
            send(server, request.unwrap()).await.status,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn one_changed_byte_is_rejected() {
    let server = alone(InngestAuth::new(key()).clock(TestClock::at(NOW))).await;
    for (body, status) in [("{}", 200), ("[}", 401)] {
        let mut request = signed("POST", "/api/inngest", "{}");
        *request.body_mut() = Full::from(body);
        assert_eq!(send(server, request).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn a_method_that_inngest_does_not_use_is_a_405() {
    let server = alone(InngestAuth::new(key()).clock(TestClock::at(NOW))).await;
    let response = send(server, signed("DELETE", "/api/inngest", "")).await;
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.json(), json!({"message": "Method not allowed"}));
}
