//! The router that people copy, over a real socket, with requests as a real Inngest server sent them.
//!
//! Some were sent to other paths. The path is not signed, so all of them are sent to `/api/inngest` here.
#![cfg(feature = "layer")]

#[path = "../examples/serve/app.rs"]
mod app;
#[path = "../examples/serve/register.rs"]
mod register;

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
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

const CURRENT: &str = "f7b964cc6e44c90645e5623ffc7e6076d5a69fca99b543490691d114d37afc69";
const ORIGIN: &str = "https://app.example";
const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Current key, fallback, and an API that stands in for Inngest's.
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

/// The example's app, with an API that nobody listens at.
async fn started(auth: InngestAuth) -> SocketAddr {
    let registry = register::Registry::new(&config("", "http://127.0.0.1:1"), ORIGIN).unwrap();
    listening(app::app(auth, registry)).await
}

/// The one registration that the API has seen: its URI, its headers, its body.
type Seen = Arc<Mutex<Vec<(Uri, HeaderMap, Value)>>>;

/// An API that knows one key.
async fn api(known: &SigningKey, status: StatusCode, answer: &'static str) -> (String, Seen) {
    let bearer = format!("Bearer {}", *known.bearer());
    let seen = Seen::default();
    let register = move |State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        if headers["authorization"] != bearer {
            return (StatusCode::UNAUTHORIZED, "");
        }
        let body = serde_json::from_slice(&body).unwrap();
        seen.lock().unwrap().push((uri, headers, body));
        (status, answer)
    };
    let app = Router::new().route("/fn/register", axum::routing::post(register));
    let address = listening(app.with_state(Arc::clone(&seen))).await;
    (format!("http://{address}"), seen)
}

async fn send(server: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let socket = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// What `inspect` says, byte for byte.
fn told(verified: Option<(&str, &str, u64)>, mode: &str, body: &[u8]) -> String {
    let (key, form, signed_at) = match verified {
        Some((key, form, at)) => (format!("{key:?}"), format!("{form:?}"), at.to_string()),
        None => ("null".into(), "null".into(), "null".into()),
    };
    let sha256 = hex::encode(Sha256::digest(body));
    format!(
        r#"{{"mode":"{mode}","key":{key},"form":{form},"signed_at":{signed_at},"bytes":{},"sha256":"{sha256}"}}"#,
        body.len()
    )
}

struct Captured(Value);

impl Captured {
    fn all() -> Vec<Self> {
        let lines = include_str!("vectors/server_requests.jsonl").lines();
        lines.map(|line| Self(serde_json::from_str(line).unwrap())).collect()
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    fn body(&self) -> Vec<u8> {
        match self.0.get("body_base64") {
            // The one body that is not text.
            Some(encoded) => {
                assert_eq!(encoded, "/wBwbGFpbg0KdGV4dA==");
                b"\xff\0plain\r\ntext".to_vec()
            }
            None => self.text("body").into(),
        }
    }

    /// The bytes that the handler must get.
    fn authenticated(&self) -> Vec<u8> {
        match self.text("signed_form") {
            // Of these bodies the canonical form is what any serializer that escapes no more than it must makes.
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
        let query = self.text("target").split_once('?').map_or("", |(_, query)| query);
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
        let (_, signature) = self.headers().find(|(name, _)| *name == "X-Inngest-Signature").unwrap();
        signature[2..12].parse().unwrap()
    }
}

#[tokio::test]
async fn captured_requests_reach_the_app_signed_and_get_401_unsigned() {
    let captured = Captured::all();
    let other = captured.iter().map(|it| it.text("signed_with"));
    let other = other.clone().find(|key| !["", CURRENT].contains(key)).unwrap();
    let clock = TestClock::at(0);
    let (api, registrations) = api(
        &CURRENT.parse().unwrap(),
        StatusCode::OK,
        r#"{"ok":true,"modified":true}"#,
    )
    .await;
    let config = config(other, &api);
    let auth = InngestAuth::from_config(&config).clock(clock.clone());
    let server = listening(app::app(auth, register::Registry::new(&config, ORIGIN).unwrap())).await;

    let (mut unsigned, mut signed, mut in_band) = (0, 0, 0);
    for it in &captured {
        clock.set(it.0["received_at"].as_u64());
        let answer = send(server, it.request(server)).await;
        let what = it.text("what");
        let key = match it.text("signed_with") {
            "" => {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
                assert_eq!(answer.body, r#"{"message":"Unauthorized"}"#, "{what}");
                unsigned += 1;
                continue;
            }
            CURRENT => "current",
            _ => "fallback",
        };
        signed += 1;
        let verified = Some((key, it.text("signed_form"), it.signed_at()));
        let inspected = told(verified, "cloud", &it.authenticated());
        let expected = match it.text("method") {
            "POST" => inspected,
            "GET" => inspected.replace('}', r#","function_count":1,"has_signing_key":true}"#),
            _ if answer.header("x-inngest-sync-kind") == Some("in_band") => {
                in_band += 1;
                register::Registry::new(&config, ORIGIN).unwrap().payload().to_string()
            }
            _ => r#"{"message":"Successfully registered","modified":true}"#.into(),
        };
        assert_eq!(answer.status, StatusCode::OK, "{what}");
        assert_eq!(answer.body, expected, "{what}");
        assert_eq!(answer.header("x-inngest-sdk"), Some(SDK), "{what}");
        assert_eq!(answer.header("x-inngest-req-version"), Some("2"), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        let key: SigningKey = it.text("signed_with").parse().unwrap();
        // Only what Inngest requires is signed.
        let expected = (answer.header("x-inngest-sync-kind") == Some("in_band"))
            .then(|| key.sign(&answer.body, it.signed_at()).to_string());
        assert_eq!(answer.header(SIGNATURE_HEADER), expected.as_deref(), "{what}");
    }
    assert_eq!((unsigned, signed), (5, 40), "requests in the file");
    assert_eq!(
        (registrations.lock().unwrap().len(), in_band),
        (3, 1),
        "syncs in the file"
    );
}

#[tokio::test]
async fn a_sync_registers_what_a_real_server_accepted() {
    let current: SigningKey = CURRENT.parse().unwrap();
    let old: SigningKey = "signkey-prod-0123456789abcdef".parse().unwrap();
    // In a rotation the API may know the fallback only.
    for known in [&current, &old] {
        let (api, seen) = api(known, StatusCode::OK, r#"{"ok":true,"modified":false}"#).await;
        let config = config("signkey-prod-0123456789abcdef", &api);
        let registry = register::Registry::new(&config, ORIGIN).unwrap();
        let auth = InngestAuth::from_config(&config).clock(TestClock::at(1_700_000_000));
        let server = listening(app::app(auth, registry)).await;
        let request = Request::put("/api/inngest?deployId=a%26b%3D%20c&x=1")
            // Nobody signs these.
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header(SIGNATURE_HEADER, current.sign(b"{}", 1_700_000_000).to_string())
            .body(Full::from("{}"));
        let answer = send(server, request.unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body, r#"{"message":"Successfully registered","modified":false}"#);

        let (uri, headers, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(uri, "/fn/register?deployId=a%26b%3D+c");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-inngest-sdk"], SDK);
        assert_eq!(headers["x-inngest-req-version"], "2");
        let url = "https://app.example/api/inngest";
        let expected = serde_json::json!({
            "url": url, "deployType": "ping", "appName": "inngest-auth-demo", "sdk": SDK, "v": "0.1", "framework": "axum",
            "functions": [{
                "id": "inngest-auth-demo-inspect", "name": "inspect", "triggers": [{"event": "demo/inspect"}],
                "steps": {"step": {
                    "id": "step", "name": "step", "retries": {"attempts": 1},
                    "runtime": {"type": "http", "url": format!("{url}?fnId=inngest-auth-demo-inspect&stepId=step")},
                }},
            }],
        });
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_sync_that_failed_is_a_500_that_says_why() {
    let key: SigningKey = CURRENT.parse().unwrap();
    for (status, said) in [
        (403, "no such environment"),
        (500, "oh no"),
        (200, r#"{"ok":false}"#),
        (200, "not json"),
    ] {
        let (api, _) = api(&key, StatusCode::from_u16(status).unwrap(), said).await;
        let config = config("", &api);
        let auth = InngestAuth::from_config(&config).insecure_unsigned_sync(true);
        let server = listening(app::app(auth, register::Registry::new(&config, ORIGIN).unwrap())).await;
        let request = Request::put("/api/inngest")
            .header("host", "localhost")
            .body(Full::default());
        let answer = send(server, request.unwrap()).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{said}");
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(answer["message"].as_str().unwrap().contains(said), "{answer}");
    }
}

#[tokio::test]
async fn a_trust_probe_is_answered_signed() {
    let key: SigningKey = CURRENT.parse().unwrap();
    let server = started(InngestAuth::new(key.clone()).clock(TestClock::at(1_700_000_000))).await;
    let probe = || Request::post("/api/inngest?probe=trust").header("host", "localhost");
    let signed = probe().header(SIGNATURE_HEADER, key.sign(b"", 1_700_000_000).to_string());
    let answer = send(server, signed.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"{}"[..]));
    assert_eq!(answer.header("x-inngest-sdk"), Some(SDK));
    assert_eq!(
        answer.header(SIGNATURE_HEADER),
        Some(&*key.sign(b"{}", 1_700_000_000).to_string())
    );
    let answer = send(server, probe().body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn inspect_is_told_apart_in_dev_mode() {
    let server = started(InngestAuth::unverified_dev()).await;
    let request = Request::post("/api/inngest").header("host", "localhost");
    let answer = send(server, request.body(Full::from("{}")).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, told(None, "dev", b"{}"));
}

#[tokio::test]
async fn an_unsigned_sync_registers_where_that_was_chosen() {
    let key: SigningKey = CURRENT.parse().unwrap();
    let (api, seen) = api(&key, StatusCode::OK, r#"{"ok":true,"modified":true}"#).await;
    let config = config("", &api);
    let auth = InngestAuth::from_config(&config).insecure_unsigned_sync(true);
    let server = listening(app::app(auth, register::Registry::new(&config, ORIGIN).unwrap())).await;
    // In-band needs a signature: unsigned, the payload is shown to nobody but the API.
    let request = Request::put("/api/inngest")
        .header("host", "localhost")
        .header("x-inngest-sync-kind", "in_band");
    let answer = send(
        server,
        request.body(Full::from(r#"{"url":"http://elsewhere"}"#)).unwrap(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, r#"{"message":"Successfully registered","modified":true}"#);
    assert_eq!(answer.header(SIGNATURE_HEADER), None);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_endpoint_is_guarded() {
    let key: SigningKey = CURRENT.parse().unwrap();
    let server = started(InngestAuth::new(key)).await;
    for (path, status) in [("/healthz", 200), ("/api/inngest", 401), ("/nowhere", 404)] {
        let request = Request::get(path).header("host", "localhost").body(Full::default());
        assert_eq!(send(server, request.unwrap()).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn one_changed_byte_is_refused() {
    let key: SigningKey = CURRENT.parse().unwrap();
    let signature = key.sign(b"{}", 1_700_000_000).to_string();
    let server = started(InngestAuth::new(key).clock(TestClock::at(1_700_000_000))).await;
    for (body, status) in [("{}", 200), ("[}", 401)] {
        let request = Request::post("/api/inngest")
            .header("host", "localhost")
            .header(SIGNATURE_HEADER, &signature)
            .body(Full::from(body));
        assert_eq!(send(server, request.unwrap()).await.status, status, "{body}");
    }
}
