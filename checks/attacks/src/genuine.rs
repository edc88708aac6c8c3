//! Genuine signed calls beside an attack: how many get 200, and how soon.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use inngest_auth::{Clock, SIGNATURE_HEADER, SigningKey, SystemClock};
use tokio::net::TcpStream;

use crate::server::KEY;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
        }
    }
}

pub(crate) const CALL: &str = "/api/inngest?fnId=genuine&stepId=step";
const SMALL: usize = 1000;
const LARGE: usize = 4_000_000;
/// How often each is sent, and how long to wait for a response.
const EVERY_SMALL: Duration = Duration::from_millis(15);
const EVERY_LARGE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls of one size.
#[derive(Default)]
pub(crate) struct Calls {
    sent: usize,
    /// How long each call took that got 200.
    took: Vec<Duration>,
    /// The statuses of the other calls, or `None` without a response.
    other: Vec<Option<StatusCode>>,
}

impl Calls {
    /// In percent.
    pub(crate) fn succeeded(&self) -> f64 {
        100.0 * self.took.len() as f64 / self.sent.max(1) as f64
    }

    /// In milliseconds. A call without a 200 counts as infinitely long.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let at = (self.sent as f64 * share).ceil() as usize;
        took.get(at.max(1) - 1)
            .map_or(f64::INFINITY, |took| took.as_secs_f64() * 1e3)
    }

    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{} of {} got 200", self.took.len(), self.sent);
        for status in [400, 401, 408, 413, 500, 503] {
            let count = self
                .other
                .iter()
                .flatten()
                .filter(|s| s.as_u16() == status)
                .count();
            if count > 0 {
                let _ = write!(text, ", {count} × {status}");
            }
        }
        let lost = self.other.iter().filter(|status| status.is_none()).count();
        if lost > 0 {
            let _ = write!(text, ", {lost} without a response");
        }
        let [p50, p99] = [0.5, 0.99].map(|share| self.quantile(share));
        let _ = write!(text, ", p50 {p50:.1} ms, p99 {p99:.1} ms");
        text
    }
}

pub(crate) struct Report {
    pub(crate) small: Calls,
    pub(crate) large: Calls,
}

/// Calls that continue in their own threads until they are stopped.
pub(crate) struct Genuine {
    stop: Arc<AtomicBool>,
    small: JoinHandle<Calls>,
    large: JoinHandle<Calls>,
}

impl Genuine {
    pub(crate) fn start(server: SocketAddr, protocol: Protocol, uri: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = |len, every| {
            let stopped = Arc::clone(&stop);
            let client = Repeat {
                server,
                protocol,
                uri,
                len,
                every,
                first: 0,
            };
            std::thread::spawn(move || runtime().block_on(client.run(&stopped)))
        };
        Self {
            small: calls(SMALL, EVERY_SMALL),
            large: calls(LARGE, EVERY_LARGE),
            stop,
        }
    }

    pub(crate) fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let calls = |thread: JoinHandle<Calls>| thread.join().expect("genuine calls do not panic");
        Report {
            small: calls(self.small),
            large: calls(self.large),
        }
    }
}

/// Makes 1 KB calls without a pause for this long, one at a time on each of two connections.
/// Returns them, and how many got 200 per second.
pub(crate) fn at_full_speed(server: SocketAddr, time: Duration) -> (Calls, f64) {
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [0, 1].map(|first| {
        let stopped = Arc::clone(&stop);
        let client = Repeat {
            server,
            protocol: Protocol::Http1,
            uri: CALL,
            len: SMALL,
            every: Duration::ZERO,
            // Bodies of their own, so that a replay guard rejects none.
            first: first * 1_000_000_000,
        };
        std::thread::spawn(move || runtime().block_on(client.run(&stopped)))
    });
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let mut all = Calls::default();
    for thread in threads {
        let calls = thread.join().expect("genuine calls do not panic");
        all.sent += calls.sent;
        all.took.extend(calls.took);
        all.other.extend(calls.other);
    }
    let rate = all.took.len() as f64 / start.elapsed().as_secs_f64();
    (all, rate)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A client that makes calls of one length, one after the other.
struct Repeat {
    server: SocketAddr,
    protocol: Protocol,
    uri: &'static str,
    len: usize,
    every: Duration,
    /// The number in the first call's body.
    first: u64,
}

impl Repeat {
    async fn run(&self, stopped: &AtomicBool) -> Calls {
        let mut calls = Calls::default();
        let mut client = None;
        let mut number = self.first;
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            // Different in every call, so that a replay guard rejects none.
            let mut body = format!(r#"{{"call":{number},"data":""#).into_bytes();
            body.resize(self.len - 2, b'x');
            body.extend_from_slice(b"\"}");
            let request = signed(self.uri, body.into());
            let start = Instant::now();
            calls.sent += 1;
            let call = call(&mut client, self.server, self.protocol, request);
            match tokio::time::timeout(PATIENCE, call).await {
                Ok(Some(StatusCode::OK)) => calls.took.push(start.elapsed()),
                Ok(status) => {
                    calls.other.push(status);
                    client = None;
                }
                Err(_) => {
                    calls.other.push(None);
                    client = None;
                }
            }
            if !self.every.is_zero() {
                tokio::time::sleep(self.every).await;
            }
        }
        calls
    }
}

async fn call(
    client: &mut Option<Client>,
    server: SocketAddr,
    protocol: Protocol,
    request: Request<Full<Bytes>>,
) -> Option<StatusCode> {
    if client.is_none() {
        *client = Client::connect(server, protocol).await;
    }
    let response = client.as_mut()?.send(request).await?;
    let status = response.status();
    response.into_body().collect().await.ok()?;
    Some(status)
}

pub(crate) fn now() -> u64 {
    SystemClock.now().expect("the time")
}

pub(crate) fn signed(uri: &str, body: Bytes) -> Request<Full<Bytes>> {
    let key: SigningKey = KEY.parse().expect("a key");
    Request::post(uri)
        .header("host", "127.0.0.1")
        .header(SIGNATURE_HEADER, key.sign(&body, now()).to_string())
        .body(Full::new(body))
        .expect("a request")
}

/// One connection.
pub(crate) enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr, protocol: Protocol) -> Option<Self> {
        let socket = TcpStream::connect(server).await.ok()?;
        socket.set_nodelay(true).ok()?;
        let io = TokioIo::new(socket);
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.ok()?;
                tokio::spawn(connection);
                Some(Self::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
                tokio::spawn(connection);
                Some(Self::Http2(sender))
            }
        }
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Option<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()
            }
            Self::Http2(sender) => {
                let path = request.uri().to_string();
                *request.uri_mut() = format!("http://127.0.0.1{path}").parse().expect("a URI");
                request.headers_mut().remove("host");
                sender.ready().await.ok()?;
                sender.send_request(request).await.ok()
            }
        }
    }
}
