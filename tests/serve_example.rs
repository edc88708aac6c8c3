//! The router that people copy, over a real socket, with requests as a real Inngest server sent them.
//!
//! Some were sent to other paths. The path is not signed, so all of them are sent to `/api/inngest` here.

#[path = "../examples/serve/app.rs"]
mod app;

use std::net::SocketAddr;

use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, Keys, SIGNATURE_HEADER, SigningKey};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

const CURRENT: &str = "f7b964cc6e44c90645e5623ffc7e6076d5a69fca99b543490691d114d37afc69";
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

async fn started(auth: InngestAuth) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app::app(auth)).await });
    address
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
async fn captured_requests_reach_inspect_signed_and_get_401_unsigned() {
    let captured = Captured::all();
    let other = captured.iter().map(|it| it.text("signed_with"));
    let other = other.clone().find(|key| !["", CURRENT].contains(key)).unwrap();
    let key = |text: &str| text.parse::<SigningKey>().unwrap();
    let clock = TestClock::at(0);
    let auth = InngestAuth::new(Keys::new(key(CURRENT), Some(key(other)))).clock(clock.clone());
    let server = started(auth).await;

    let mut seen = [0, 0];
    for it in &captured {
        clock.set(it.0["received_at"].as_u64());
        let answer = send(server, it.request(server)).await;
        let what = it.text("what");
        let key = match it.text("signed_with") {
            "" => {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
                assert_eq!(answer.body, r#"{"message":"Unauthorized"}"#, "{what}");
                seen[0] += 1;
                continue;
            }
            CURRENT => "current",
            _ => "fallback",
        };
        let expected = told(
            Some((key, it.text("signed_form"), it.signed_at())),
            "cloud",
            &it.authenticated(),
        );
        assert_eq!(answer.status, StatusCode::OK, "{what}");
        assert_eq!(answer.body, expected, "{what}");
        assert_eq!(answer.header("x-inngest-sdk"), Some(SDK), "{what}");
        assert_eq!(answer.header("x-inngest-req-version"), Some("2"), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        seen[1] += 1;
    }
    assert_eq!(seen, [5, 40], "unsigned and signed requests in the file");
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
async fn an_unsigned_sync_reaches_inspect_without_its_body_where_that_was_chosen() {
    let key: SigningKey = CURRENT.parse().unwrap();
    let server = started(InngestAuth::new(key).unauthenticated_sync(true)).await;
    let request = Request::put("/api/inngest").header("host", "localhost");
    let answer = send(
        server,
        request.body(Full::from(r#"{"url":"http://elsewhere"}"#)).unwrap(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, told(None, "cloud", b""));
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
