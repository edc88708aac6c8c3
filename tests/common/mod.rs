//! Shared by the tests: a real server, a real client, and a handler that records its requests.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use inngest_auth::testing::TestInngest;
use inngest_auth::{InngestAuth, SigningKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

/// The initial time of every `TestInngest` clock.
pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const CALL: &str = "/api/inngest?fnId=hello&stepId=step";

pub(crate) fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

/// Returns an Inngest with a current key and a fallback key.
pub(crate) fn inngest() -> TestInngest {
    TestInngest::new(key("signkey-test-12345678")).fallback(key("signkey-test-87654321"))
}

/// Every request that reached the handler, with its body.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(Parts, Bytes)>>>);

impl Seen {
    /// Returns the app: one guarded route for all paths, which responds with the request's body.
    pub(crate) fn app(&self, auth: InngestAuth) -> Router {
        self.unguarded().layer(auth)
    }

    pub(crate) fn unguarded(&self) -> Router {
        let seen = self.clone();
        let handler = move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                seen.0.lock().unwrap().push((parts, body.clone()));
                body
            }
        };
        Router::new().fallback(handler)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Returns the only request since the last call.
    pub(crate) fn one(&self) -> (Parts, Bytes) {
        let mut seen = self.0.lock().unwrap();
        assert_eq!(seen.len(), 1, "requests that reached the handler");
        seen.pop().unwrap()
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: axum::http::Extensions,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends a request in process.
pub(crate) async fn ask(app: &Router, request: Request<Body>) -> Reply {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        extensions: parts.extensions,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Starts a real server on a free port.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// Sends a request over its own socket.
pub(crate) async fn send(server: SocketAddr, mut request: Request<Full<Bytes>>) -> Reply {
    if !request.headers().contains_key("host") {
        request
            .headers_mut()
            .insert("host", server.to_string().parse().unwrap());
    }
    let socket = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        extensions: parts.extensions,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Sends exactly these bytes to the server, and returns what the server sends until it closes.
pub(crate) async fn say(server: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    hear(&mut socket).await
}

pub(crate) async fn hear(socket: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).await.unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

/// Returns a request's head as bytes, up to where its body begins.
pub(crate) fn head(method: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let headers = headers.concat();
    format!("{method} {CALL} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}
