//! What the layer costs a server, over keep-alive connections on loopback:
//! `cargo bench --bench http`.
//!
//! One thread serves, another calls. Judged is the CPU time of the server's thread: what the layer
//! adds to a call of 1 KB, as a ratio to the bare HMAC of its body, which is measured in the same
//! place, by a handler that makes eight of them. Requests a second and latencies depend on the
//! machine and its load, so they are only shown. Servers take turns in short slices and the cheapest
//! slice of each counts. The bare server takes part twice, and nothing is judged unless both agree
//! within 1 %. Exit status 1 if a row is over its limit.
#![allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and counts, for people"
)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::routing::any;
use common::timing::Report;
use common::{NOW, auth, bare_hmac, captured_call, keys, ready_hmac};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use inngest_auth::{SIGNATURE_HEADER, SignResponses};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// What is reached, with room for a busy machine. BENCHMARKS.md says what it is made of.
const LIMIT: f64 = 3.5;
const LIMIT_SIGNED: f64 = 5.0;
const CONNECTIONS: usize = 8;
/// How many HMACs the server makes whose cost is compared with that of none.
const HMACS: usize = 8;

fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// A thread that serves apps, each on its own port, and reports the CPU time that it has used.
struct Server(mpsc::UnboundedSender<oneshot::Sender<Duration>>);

impl Server {
    fn start<const N: usize>(apps: [Router; N]) -> (Self, [SocketAddr; N]) {
        let bound = apps.map(|app| (TcpListener::bind("127.0.0.1:0").expect("a port"), app));
        let addresses = bound
            .each_ref()
            .map(|(listener, _)| listener.local_addr().expect("bound"));
        let (asks, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<_>>();
        thread::spawn(move || {
            runtime().block_on(async {
                for (listener, app) in bound {
                    listener.set_nonblocking(true).expect("a socket");
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                    tokio::spawn(async { axum::serve(listener, app).await });
                }
                while let Some(report) = asked.recv().await {
                    report.send(cpu_time()).expect("it is waited for");
                }
            });
        });
        (Self(asks), addresses)
    }

    async fn cpu_time(&self) -> Duration {
        let (report, reported) = oneshot::channel();
        self.0.send(report).expect("the server runs");
        reported.await.expect("the server runs")
    }
}

/// Returns the CPU time of this thread, including that in the kernel.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("not negative")
}

/// Responds to every call with the same text, after reading its body and making `hmacs` of the
/// text.
fn app(text: &Bytes, hmacs: usize) -> Router {
    let text = text.clone();
    let ready = ready_hmac();
    let handler = move |body: Bytes| async move {
        drop(body);
        for _ in 0..hmacs {
            bare_hmac(&ready, &text);
        }
        ([(CONTENT_TYPE, "application/json")], text)
    };
    Router::new().route("/api/inngest", any(handler))
}

/// One app under calls, and what was seen of it.
struct Run {
    name: &'static str,
    signed: bool,
    clients: Vec<SendRequest<Full<Bytes>>>,
    latencies: Vec<Duration>,
    rates: Vec<f64>,
    /// Nanoseconds a call, in the cheapest slice.
    cpu: f64,
}

impl Run {
    async fn connect(name: &'static str, signed: bool, server: SocketAddr) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let socket = tokio::net::TcpStream::connect(server)
                .await
                .expect("a server");
            socket.set_nodelay(true).expect("a socket");
            let (client, connection) = handshake(TokioIo::new(socket)).await.expect("a connection");
            tokio::spawn(connection);
            clients.push(client);
        }
        Self {
            name,
            signed,
            clients,
            latencies: Vec::new(),
            rates: Vec::new(),
            cpu: f64::INFINITY,
        }
    }

    /// Makes `calls` on each connection.
    async fn slice(&mut self, server: &Server, request: &Request<Full<Bytes>>, calls: usize) {
        let all = (calls * CONNECTIONS) as f64;
        let cpu_before = server.cpu_time().await;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for client in self.clients.drain(..) {
            tasks.spawn(drive(client, request.clone(), calls, self.signed));
        }
        while let Some(done) = tasks.join_next().await {
            let (client, latencies) = done.expect("no panic");
            self.clients.push(client);
            self.latencies.extend(latencies);
        }
        self.rates.push(all / began.elapsed().as_secs_f64());
        let cpu = server.cpu_time().await.checked_sub(cpu_before);
        let cpu = cpu.expect("a clock that goes forward").as_nanos() as f64;
        self.cpu = self.cpu.min(cpu / all);
    }

    fn print(&mut self, call: &str) {
        self.latencies.sort_unstable();
        self.rates.sort_unstable_by(f64::total_cmp);
        let latency =
            |percent: usize| self.latencies[self.latencies.len() * percent / 100].as_micros();
        let (p50, p99) = (latency(50), latency(99));
        let rate = self.rates[self.rates.len() / 2];
        let cpu = self.cpu / 1000.0;
        println!(
            "{call:<6} {:<14} {rate:>12.0} {p50:>8} {p99:>8} {cpu:>8.1}",
            self.name
        );
    }
}

async fn drive(
    mut client: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    calls: usize,
    signed: bool,
) -> (SendRequest<Full<Bytes>>, Vec<Duration>) {
    let mut latencies = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        let response = client
            .send_request(request.clone())
            .await
            .expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers().contains_key(SIGNATURE_HEADER), signed);
        response.into_body().collect().await.expect("a body");
        latencies.push(began.elapsed());
    }
    (client, latencies)
}

fn main() -> ExitCode {
    runtime().block_on(bench())
}

async fn bench() -> ExitCode {
    let (mut head, small) = captured_call();
    for changes in [CONNECTION, CONTENT_LENGTH] {
        head.headers_mut().remove(changes);
    }
    head.headers_mut()
        .insert(HOST, HeaderValue::from_static("localhost"));
    // Responses are as large as the small call.
    let app = |hmacs| app(&small, hmacs);
    let (server, [bare, again, layer, signed, hmacs]) = Server::start([
        app(0),
        app(0),
        app(0).layer(auth()),
        app(0).layer(auth().sign_responses(SignResponses::All)),
        app(HMACS),
    ]);
    let servers = [
        ("bare", false, bare),
        ("bare, again", false, again),
        ("layer", false, layer),
        ("layer, signed", true, signed),
        ("bare, 8 HMACs", false, hmacs),
    ];
    let large: Bytes = small.iter().copied().cycle().take(200_000).collect();
    let request = |body: &Bytes| {
        let mut request = head.clone().map(|()| Full::new(body.clone()));
        let signature = keys().current().sign(body, NOW).to_string();
        let signature = signature.parse().expect("a value");
        request.headers_mut().insert(SIGNATURE_HEADER, signature);
        request
    };

    println!("call   server           requests/s   p50 us   p99 us   CPU us");
    let (seconds, calls) = (Duration::from_secs(40), 4);
    let [bare, again, layer, signed, hmacs] =
        measure("1k", seconds, calls, &request(&small), &server, servers).await;
    let (seconds, calls) = (Duration::from_secs(10), 1);
    measure("200k", seconds, calls, &request(&large), &server, servers).await;

    let apart = (bare - again).abs() / bare;
    let bare = bare.min(again);
    let hmac = (hmacs - bare) / HMACS as f64;
    println!("\nbare HMAC of {} bytes: {hmac:.0} ns", small.len());
    println!("the two bare servers are {:.1} % apart", apart * 100.0);
    let mut report = Report::new();
    let rows = [
        ("http_cpu_1k", layer, LIMIT),
        ("http_cpu_signed_1k", signed, LIMIT_SIGNED),
    ];
    for (name, cpu, limit) in rows {
        let ratio = (cpu - bare) / hmac;
        if apart < 0.01 {
            report.row(name, ratio, limit);
        } else {
            report.show(name, ratio);
        }
    }
    report.exit_code()
}

/// Rounds until `time` is over. CPU nanoseconds a call, of each server.
async fn measure<const N: usize>(
    call: &str,
    time: Duration,
    calls: usize,
    request: &Request<Full<Bytes>>,
    server: &Server,
    servers: [(&'static str, bool, SocketAddr); N],
) -> [f64; N] {
    let mut runs = Vec::new();
    for (name, signed, address) in servers {
        runs.push(Run::connect(name, signed, address).await);
    }
    let began = Instant::now();
    while began.elapsed() < time {
        for run in &mut runs {
            run.slice(server, request, calls).await;
        }
    }
    for run in &mut runs {
        run.print(call);
    }
    std::array::from_fn(|at| runs[at].cpu)
}
