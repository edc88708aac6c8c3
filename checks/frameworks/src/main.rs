//! Sends the same requests to each server, and prints one table. See `README.md`.

mod actix;
mod axum07;
mod by_hand;
mod lambda;
mod layered;
mod poem;
mod tls;

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, KeyRing, Keys, SIGNATURE_HEADER, SigningKey, Verifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use lambda::Event;

pub(crate) const PATH: &str = "/api/inngest";
pub(crate) const SYNC_KIND: &str = "x-inngest-sync-kind";
const NOW: u64 = 1_700_000_000;

/// The settings of a server.
#[derive(Clone)]
pub(crate) struct Setup {
    /// `None` in dev mode.
    keys: Option<KeyRing>,
    body_limit: usize,
}

impl Setup {
    pub(crate) fn auth(&self) -> InngestAuth {
        let auth = self
            .keys
            .clone()
            .map_or_else(InngestAuth::insecure_unverified_dev, InngestAuth::new);
        auth.clock(TestClock::at(NOW)).body_limit(self.body_limit)
    }

    pub(crate) fn verifier(&self) -> Option<Verifier> {
        let verifier = Verifier::new(self.keys.clone()?);
        Some(
            verifier
                .clock(TestClock::at(NOW))
                .body_limit(self.body_limit),
        )
    }
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone, Copy)]
enum Host {
    Axum(Http),
    Axum07,
    AxumServer(Http),
    Hyper(Http),
    Tonic(Http),
    Lambda(Event, bool),
    Actix(Http),
    Poem(Http),
    PoemTower(Http),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

const HOSTS: [(&str, Host); 16] = [
    ("axum 0.8, HTTP/1", Host::Axum(Http::One)),
    ("axum 0.8, HTTP/2", Host::Axum(Http::Two)),
    ("axum 0.7, HTTP/1", Host::Axum07),
    ("axum-server, rustls, HTTP/1", Host::AxumServer(Http::One)),
    ("axum-server, rustls, HTTP/2", Host::AxumServer(Http::Two)),
    ("hyper, HTTP/1", Host::Hyper(Http::One)),
    ("hyper, HTTP/2", Host::Hyper(Http::Two)),
    ("axum beside tonic, HTTP/1", Host::Tonic(Http::One)),
    ("axum beside tonic, HTTP/2", Host::Tonic(Http::Two)),
    ("lambda_http, gateway", Host::Lambda(Event::Gateway, false)),
    (
        "lambda_http, gateway, base64",
        Host::Lambda(Event::Gateway, true),
    ),
    ("lambda_http, URL", Host::Lambda(Event::FunctionUrl, false)),
    (
        "lambda_http, URL, base64",
        Host::Lambda(Event::FunctionUrl, true),
    ),
    ("poem, as a Tower service", Host::PoemTower(Http::One)),
    ("actix-web, by Verifier", Host::Actix(Http::One)),
    ("poem, by Verifier", Host::Poem(Http::One)),
];

impl Host {
    async fn send(self, setup: &Setup, method: Method, headers: &HeaderMap, body: &[u8]) -> Reply {
        let (address, http) = match self {
            Self::Axum(http) => (layered::axum(setup).await, http),
            Self::Axum07 => (axum07::start(setup).await, Http::One),
            Self::Hyper(http) => (layered::hyper(setup).await, http),
            Self::Tonic(http) => (layered::tonic(setup).await, http),
            Self::Actix(http) => (actix::start(setup), http),
            Self::Poem(http) => (poem::start(setup).await, http),
            Self::PoemTower(http) => (poem::start_tower(setup).await, http),
            Self::AxumServer(http) => {
                let address = tls::start(setup);
                let socket = tls::connect(address, http).await;
                return over(socket, address, http, method, headers, body).await;
            }
            Self::Lambda(event, base64) => {
                return lambda::send(setup, event, base64, method, headers, body).await;
            }
        };
        let socket = TcpStream::connect(address).await.expect("it listens");
        over(socket, address, http, method, headers, body).await
    }
}

/// Sends a request over a connection.
async fn over(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    http: Http,
    method: Method,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{PATH}"))
        .body(Full::new(Bytes::copy_from_slice(body)))
        .expect("it is a request");
    *request.headers_mut() = headers.clone();
    let socket = TokioIo::new(socket);
    let response = match http {
        Http::One => {
            let host = HeaderValue::from_str(&address.to_string()).expect("an address is a host");
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = PATH.parse().expect("it is a path");
            let (mut client, connection) =
                http1::handshake(socket).await.expect("it speaks HTTP/1");
            tokio::spawn(connection);
            client.send_request(request).await
        }
        Http::Two => {
            let (mut client, connection) = http2::handshake(TokioExecutor::new(), socket)
                .await
                .expect("it speaks HTTP/2");
            tokio::spawn(connection);
            client.send_request(request).await
        }
    };
    let (head, body) = response.expect("it responds").into_parts();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body
            .collect()
            .await
            .expect("the response is whole")
            .to_bytes(),
    }
}

const CASES: [&str; 11] = [
    "genuine",
    "fallback",
    "canonical",
    "tampered",
    "stale",
    "missing",
    "doubled",
    "3 MB",
    "too long",
    "in band",
    "dev mode",
];

/// Sends the case's request. Returns what is wrong with the response.
async fn run(case: &str, host: Host) -> Result<(), String> {
    let current: SigningKey = "signkey-test-12345678".parse().expect("it is a key");
    let fallback: SigningKey = "signkey-test-87654321".parse().expect("it is a key");
    let mut setup = Setup {
        keys: Some(Keys::new(current.clone(), Some(fallback.clone())).into()),
        body_limit: 4 * 1024 * 1024,
    };
    let mut body = br#"{"event":{"name":"a"}}"#.to_vec();
    let mut method = Method::POST;
    let (mut expected, mut handed_on) = (200, None);
    let (mut key, mut at) = (&current, NOW);
    let mut signatures = None;
    match case {
        "genuine" => {}
        "fallback" => key = &fallback,
        "canonical" => {
            signatures = Some(vec![current.sign(&body, NOW).to_string()]);
            handed_on = Some(body.clone());
            body.insert(0, b' ');
        }
        "tampered" => {
            (signatures, expected) = (Some(vec![current.sign(&body, NOW).to_string()]), 401);
            body[3] ^= 1;
        }
        "stale" => (at, expected) = (NOW - 301, 401),
        "missing" => (signatures, expected) = (Some(Vec::new()), 401),
        "doubled" => {
            (signatures, expected) = (Some(vec![current.sign(&body, NOW).to_string(); 2]), 401);
        }
        "3 MB" => body = format!("[\"{}\"]", "x".repeat(3_000_000)).into_bytes(),
        "too long" => (setup.body_limit, expected) = (body.len() - 1, 413),
        "in band" => method = Method::PUT,
        "dev mode" => (setup.keys, signatures) = (None, Some(Vec::new())),
        _ => unreachable!("{case} is in the list"),
    }
    let mut headers =
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    for signature in signatures.unwrap_or_else(|| vec![key.sign(&body, at).to_string()]) {
        headers.append(
            SIGNATURE_HEADER,
            signature.parse().expect("it is a header's value"),
        );
    }
    let reply = host.send(&setup, method.clone(), &headers, &body).await;
    if reply.status != expected {
        return Err(format!("status {} instead of {expected}", reply.status));
    }
    let handed_on = handed_on.unwrap_or(body);
    if expected == 200 && reply.body != handed_on {
        return Err("the handler got bytes that were not authenticated".into());
    }
    let signed = reply
        .headers
        .get(SIGNATURE_HEADER)
        .map(HeaderValue::as_bytes);
    let required = (method == Method::PUT).then(|| current.sign(&reply.body, NOW).to_string());
    if signed != required.as_deref().map(str::as_bytes) {
        return Err(format!("the response's signature is {signed:?}"));
    }
    Ok(())
}

/// The page of the guide, which contains the table, and code from these files.
const GUIDE: &str = include_str!("../../../src/guide/outside_axum.md");
const FILES: [&str; 7] = [
    include_str!("actix.rs"),
    include_str!("axum07.rs"),
    include_str!("by_hand.rs"),
    include_str!("lambda.rs"),
    include_str!("layered.rs"),
    include_str!("poem.rs"),
    include_str!("tls.rs"),
];

/// Returns the guide's blocks of code that are not in any file.
fn unchecked() -> impl Iterator<Item = &'static str> {
    let mut blocks = GUIDE.split("```text\n").skip(1).peekable();
    assert!(blocks.peek().is_some(), "the guide shows code");
    let code = blocks.map(|block| block.split("```").next().expect("it has a first part"));
    code.filter(|code| !FILES.iter().any(|file| file.contains(code)))
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut failures = Vec::new();
    let mut table = format!("| server | {} |\n|---|", CASES.join(" | "));
    table += &"---|".repeat(CASES.len());
    for (name, host) in HOSTS {
        write!(table, "\n| {name} |").expect("a string can grow");
        for case in CASES {
            let verdict = match run(case, host).await {
                Ok(()) => "ok",
                Err(problem) => {
                    failures.push(format!("{name}, {case}: {problem}"));
                    "FAILED"
                }
            };
            write!(table, " {verdict} |").expect("a string can grow");
        }
    }
    println!("{table}");
    if !GUIDE.contains(&table) {
        failures.push("src/guide/outside_axum.md has another table".into());
    }
    failures.extend(
        unchecked().map(|code| format!("src/guide/outside_axum.md has other code:\n{code}")),
    );
    for failure in &failures {
        eprintln!("{failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
