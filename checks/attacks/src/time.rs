//! Attacks on time and CPU: `flood`, `flood-unread`, `floods`, `hostile-json`, `forged`, `forgers`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::{Protocol, at_full_speed, now};
use crate::lockout::{Attackers, promised, servers};
use crate::memory::BODY_LIMIT;
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{Beside, Limit, Table};
use crate::wire::{self, DATA, Http2, UNKNOWN, connect, forged, head, hear, stale};

const DEADLINE: Duration = Duration::from_secs(3);

/// What is sent without end after the head and `first`: 64 KiB of `piece`, and then `last`.
struct Flood {
    name: &'static str,
    signature: fn() -> Option<String>,
    first: &'static str,
    piece: &'static str,
    last: &'static str,
}

#[rustfmt::skip]
const FLOODS: [Flood; 6] = [
    Flood { name: "chunk-size line of zeros", signature: fresh, first: "", piece: "0", last: "" },
    Flood { name: "chunk-size line of blanks", signature: fresh, first: "1", piece: " ", last: "" },
    Flood { name: "chunk extension", signature: fresh, first: "1;", piece: "x", last: "" },
    Flood { name: "trailers", signature: fresh, first: "0\r\n", piece: "a: b\r\n", last: "" },
    Flood { name: "one-byte chunks", signature: fresh, first: "", piece: "1\r\nx\r\n", last: "" },
    Flood { name: "the same, padded", signature: fresh, first: "", piece: "0", last: "1\r\nx\r\n" },
];

/// The same for requests that are rejected by their headers, while the body is drained.
#[rustfmt::skip]
const UNREAD: [Flood; 4] = [
    Flood { name: "stale, zeros", signature: old, first: "", piece: "0", last: "" },
    Flood { name: "unsigned, zeros", signature: none, first: "", piece: "0", last: "" },
    Flood {
        name: "unsigned, one-byte chunks",
        signature: none,
        first: "",
        piece: "1\r\nx\r\n",
        last: "",
    },
    Flood { name: "the same, padded", signature: none, first: "", piece: "0", last: "1\r\nx\r\n" },
];

#[expect(clippy::unnecessary_wraps, reason = "one of three")]
fn fresh() -> Option<String> {
    Some(forged())
}

#[expect(clippy::unnecessary_wraps, reason = "one of three")]
fn old() -> Option<String> {
    Some(stale())
}

fn none() -> Option<String> {
    None
}

impl Flood {
    fn run(&self, server: SocketAddr, limit: Duration) -> Duration {
        let mut socket = connect(server);
        let chunked = [("Transfer-Encoding", "chunked")];
        let mut start = head((self.signature)().as_deref(), &chunked);
        start.extend(self.first.as_bytes());
        let piece = self.piece.repeat(64 * 1024 / self.piece.len()) + self.last;
        if socket.write_all(&start).is_err() {
            return Duration::ZERO;
        }
        wire::flood(&mut socket, piece.as_bytes(), limit)
    }
}

/// Opens four connections with chunk-size lines of zeros. Returns how long the last of them lived.
fn four(server: SocketAddr, limit: Duration) -> Duration {
    let four = [(); 4].map(|()| std::thread::spawn(move || FLOODS[0].run(server, limit)));
    let lived = four.map(|thread| thread.join().expect("no attacker panics"));
    lived.into_iter().max().expect("four")
}

/// Returns the servers that a flood is tried on. The other settings do not matter before a body is
/// read to its end.
fn flooded(run: Run) -> impl Iterator<Item = (&'static str, Options)> {
    let servers = servers(run).into_iter().take(2);
    servers.map(|(name, options)| {
        let deadline = u64::try_from(DEADLINE.as_millis()).expect("a short time");
        (
            name,
            Options {
                deadline,
                ..options
            },
        )
    })
}

pub(crate) fn flood(run: Run, table: &mut Table) {
    for server in flooded(run) {
        // This deadline passes during the first poll, which takes a second. A second poll tells
        // hyper to close the connection.
        let (server_name, options) = server;
        let deadline = 500;
        let soon = (
            server_name,
            Options {
                deadline,
                ..options
            },
        );
        let what = (FLOODS[0].name, Protocol::Http1);
        let limits = Limits {
            past: 2.5,
            ..single(options)
        };
        past_the_deadline(table, what, soon, limits, |to, limit| {
            FLOODS[0].run(to, limit)
        });
        for flood in &FLOODS {
            let what = (flood.name, Protocol::Http1);
            past_the_deadline(table, what, server, single(server.1), |to, limit| {
                flood.run(to, limit)
            });
        }
    }
}

pub(crate) fn flood_unread(run: Run, table: &mut Table) {
    for server in flooded(run) {
        for flood in &UNREAD {
            let what = (flood.name, Protocol::Http1);
            past_the_deadline(table, what, server, single(server.1), |to, limit| {
                flood.run(to, limit)
            });
        }
        for (name, kind) in [
            ("DATA of one byte", DATA),
            ("frames of no meaning", UNKNOWN),
        ] {
            let what = (name, Protocol::Http2);
            past_the_deadline(table, what, server, single(server.1), |to, limit| {
                http2_flood(to, kind, limit)
            });
        }
    }
}

/// Floods over several connections at once.
pub(crate) fn floods(run: Run, table: &mut Table) {
    for (server_name, options) in flooded(run) {
        let small = Options {
            buffer: 64 * 1024,
            ..options
        };
        let name = "four lines of zeros, read buffer of 64 KiB";
        let limits = Limits {
            p99: Limit::AtMost(250.0),
            ..single(options)
        };
        let what = (name, Protocol::Http1);
        past_the_deadline(table, what, (server_name, small), limits, four);
        // One poll of such a connection makes up to 128 reads, whatever the layer does. The
        // server's setting determines how much each of them reads.
        let name = "four lines of zeros, default read buffer";
        let limits = Limits {
            // Three polls, each after those of the other connections of its worker.
            past: 32.0 / options.threads as f64,
            answered: Limit::None,
            p99: Limit::None,
        };
        let what = (name, Protocol::Http1);
        past_the_deadline(table, what, (server_name, options), limits, four);
    }
}

/// What is allowed beside floods.
#[derive(Clone, Copy)]
struct Limits {
    /// How many seconds the connection may live after its deadline.
    past: f64,
    /// As in [`Beside`].
    answered: Limit,
    p99: Limit,
}

/// Returns what is allowed beside a single flood. A single worker does nothing else during the
/// polls of a flood, each of which takes a second.
fn single(options: Options) -> Limits {
    let (past, p99) = if options.threads == 1 {
        (2.5, 2500.0)
    } else {
        (1.0, 100.0)
    };
    Limits {
        past,
        answered: Limit::AtLeast(99.0),
        p99: Limit::AtMost(p99),
    }
}

fn past_the_deadline(
    table: &mut Table,
    (name, protocol): (&str, Protocol),
    (server_name, options): (&str, Options),
    limits: Limits,
    attack: impl FnOnce(SocketAddr, Duration) -> Duration,
) {
    let name = format!("{name}, {}, {server_name}", protocol.name());
    let server = Server::start(options);
    let start = Instant::now();
    let calls = Beside {
        protocol,
        answered: limits.answered,
        p99: limits.p99,
        ..Beside::default()
    };
    let lived = table.beside(&name, &server, calls, || {
        let lived = attack(server.address(), Duration::from_secs(25));
        // The figures of the calls beside it need some calls.
        std::thread::sleep(Duration::from_secs(2).saturating_sub(start.elapsed()));
        lived
    });
    let deadline = Duration::from_millis(options.deadline);
    table.row(
        &format!("{name}: past the deadline of {deadline:?}"),
        lived.saturating_sub(deadline).as_secs_f64(),
        "s",
        &Limit::AtMost(limits.past),
    );
    table.note(&format!("lived {:.1} s", lived.as_secs_f64()));
}

/// Opens one stream that is never silent. Returns how long it stayed open, or `limit`.
fn http2_flood(server: SocketAddr, kind: u8, limit: Duration) -> Duration {
    let mut client = Http2::connect(server);
    let stream = client.open(&forged());
    let start = Instant::now();
    while client.is_open(stream) && start.elapsed() < limit {
        for _ in 0..256 {
            if kind == DATA {
                client.data(stream, b"x", Duration::from_millis(100));
            } else {
                client.frame(kind, 0, stream, b"xxxxxxxx");
            }
        }
        client.pump(Duration::ZERO);
    }
    start.elapsed()
}

/// Sends one request on its own connection, and reads up to its response.
fn send(server: SocketAddr, signature: &str, body: &[u8]) {
    let mut socket = connect(server);
    let length = body.len().to_string();
    let more = [("Content-Length", &*length), ("Connection", "close")];
    let _ = socket.write_all(&head(Some(signature), &more));
    let _ = socket.write_all(body);
    hear(&mut socket, Duration::from_secs(30));
}

/// Returns the server's CPU time per request, for `count` requests.
fn cpu_each(options: Options, count: u32, body: &[u8], signature: impl Fn() -> String) -> Duration {
    let server = Server::start(options);
    send(server.address(), &signature(), body);
    let before = server.cpu();
    for _ in 0..count {
        send(server.address(), &signature(), body);
    }
    server.cpu().saturating_sub(before) / count
}

/// Measures the CPU time of a forged request, and of an unsigned one with the longest query.
pub(crate) fn forged_body(run: Run, table: &mut Table) {
    let count = if run.short { 40 } else { 100 };
    let body = vec![b'x'; BODY_LIMIT];
    let key: SigningKey = KEY.parse().expect("a key");
    let hmac = (0..7).map(|_| {
        let start = Instant::now();
        std::hint::black_box(key.sign(&body, now()));
        start.elapsed()
    });
    let hmac = hmac.min().expect("seven times");
    let signature = key.sign(&body, now()).to_string();
    let genuine = cpu_each(Options::default(), count, &body, || signature.clone());
    let cost = cpu_each(Options::default(), count, &body, forged);
    table.note(&format!(
        "8 MiB: HMAC {:.1} ms, genuine request {:.1} ms, forged {:.1} ms of CPU",
        ms(hmac),
        ms(genuine),
        ms(cost)
    ));
    table.row(
        "forged 8 MiB / genuine 8 MiB",
        ms(cost) / ms(genuine),
        "",
        &Limit::AtMost(2.5),
    );
    // Two keys are tried, and the body has to pass through a socket.
    table.row(
        "forged 8 MiB / two HMACs",
        ms(cost) / ms(hmac) / 2.0,
        "",
        &Limit::None,
    );
    diagnosed(table, run);
    let count = if run.short { 1000 } else { 5000 };
    let [post, put] = ["POST", "PUT"].map(|method| unsigned_query(method, count));
    table.row(
        "unsigned PUT with a query of 60 KB: CPU, more than a POST's",
        ms(put) - ms(post),
        "ms",
        &Limit::AtMost(0.2),
    );
    table.note(&format!("POST {:.2} ms, PUT {:.2} ms", ms(post), ms(put)));
    for (server_name, options) in servers(run) {
        let server = Server::start(options);
        let calls = Beside {
            p99: promised(options),
            ..Beside::default()
        };
        let name = format!("one sender of 8 MiB without pause, {server_name}");
        table.beside(&name, &server, calls, || {
            without_pause(server.address(), &body, Duration::from_secs(3));
        });
    }
}

/// Compares forged requests that are diagnosed for the log with ones that are not.
fn diagnosed(table: &mut Table, run: Run) {
    let silent = Options {
        warnings: false,
        ..Options::default()
    };
    // Bodies of up to 64 KiB are hashed again for the diagnosis, which has a CPU budget of its own.
    // The kernel counts CPU in ticks of 10 ms, so these limits are wide.
    for (name, len, count, limit) in [
        ("8 MiB", BODY_LIMIT, 40, Limit::AtMost(1.1)),
        ("64 KiB", 64 * 1024, 1000, Limit::AtMost(1.5)),
        ("1 KiB", 1024, 4000, Limit::AtMost(2.0)),
    ] {
        let count = if run.short { count } else { 3 * count };
        let body = vec![b'x'; len];
        let [with, without] =
            [Options::default(), silent].map(|options| cpu_each(options, count, &body, forged));
        table.row(
            &format!("forged {name}, diagnosed for the log / not"),
            ms(with) / ms(without),
            "",
            &limit,
        );
        table.note(&format!("{:.3} ms, {:.3} ms", ms(with), ms(without)));
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Sends forged requests one after the other.
fn without_pause(server: SocketAddr, body: &[u8], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        send(server, &forged(), body);
    }
}

/// Measures the CPU time of one unsigned request with a query as long as the server accepts.
fn unsigned_query(method: &str, count: u32) -> Duration {
    let server = Server::start(Options::default());
    let query = "+&".repeat(30_000);
    let request = format!("{method} /api/inngest?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let mut socket = connect(server.address());
    let before = server.cpu();
    for _ in 0..count {
        socket
            .write_all(request.as_bytes())
            .expect("the server reads");
        let len = socket.read(&mut [0; 4096]).expect("the server responds");
        assert!(len > 0, "the connection goes on");
    }
    server.cpu().saturating_sub(before) / count
}

/// Sends JSON that is expensive to bring into canonical form, of the maximum length for it.
pub(crate) fn hostile_json(run: Run, table: &mut Table) {
    let count = if run.short { 100 } else { 1000 };
    let fill = |open: &str, item: &str, close: &str| {
        let items = (64 * 1024 - open.len() - close.len()) / item.len();
        let text = format!("{open}{}", item.repeat(items));
        format!("{}{close}", text.trim_end_matches(','))
    };
    let plain = cpu_each(Options::default(), count, &vec![b'x'; 64 * 1024], forged);
    let keys = {
        let keys = (0..6500).map(|number| format!(r#""{:05}":0"#, 99_999 - number));
        format!("{{{}}}", keys.collect::<Vec<_>>().join(","))
    };
    for (name, body) in [
        ("arrays", fill("[", "[],", "]")),
        ("numbers", fill("[", "1e9,", "]")),
        ("long numbers", fill("[", "1.7976931348623157e308,", "]")),
        ("escapes", fill("\"", r"\u0026", "\"")),
        ("equal keys", fill("{", r#""":0,"#, "}")),
        ("keys in the wrong order", keys),
        ("nesting", "[".repeat(64 * 1024)),
    ] {
        assert!(body.len() <= 64 * 1024, "{name}: as long as is looked at");
        let cost = cpu_each(Options::default(), count, body.as_bytes(), forged);
        let more = cost.saturating_sub(plain).as_secs_f64() * 1e3;
        table.row(
            &format!("64 KiB of {name}: CPU, more than no JSON"),
            more,
            "ms",
            &LIMIT_JSON,
        );
    }
    let body = fill("[", "[],", "]");
    for (server_name, options) in servers(run) {
        let server = Server::start(options);
        let calls = Beside {
            p99: promised(options),
            ..Beside::default()
        };
        let name = format!("one sender of arrays without pause, {server_name}");
        let time = Duration::from_secs(if run.short { 4 } else { 15 });
        table.beside(&name, &server, calls, || {
            without_pause(server.address(), body.as_bytes(), time);
        });
    }
}

/// As much as a forged body of 4 MiB costs anyway.
const LIMIT_JSON: Limit = Limit::AtMost(10.0);

/// Measures genuine calls at full speed, without and with a forger at full speed.
pub(crate) fn forgers(run: Run, table: &mut Table) {
    let time = Duration::from_secs(if run.short { 2 } else { 8 });
    let arrays = format!("[{}[]]", "[],".repeat(21_000)).into_bytes();
    for (server_name, options) in servers(Run { short: false }).into_iter().take(2) {
        let mut alone = 0.0;
        for (name, body) in [
            ("no forger", None),
            ("a forger of 1 KB", Some(vec![b'x'; 1000])),
            ("a forger of 64 KB of arrays", Some(arrays.clone())),
            ("a forger of 8 MiB", Some(vec![b'x'; BODY_LIMIT])),
        ] {
            let server = Server::start(options);
            let address = server.address();
            let forgers = body.map(|body| {
                Attackers::start(1, move |stop| {
                    while !stop.load(Ordering::Relaxed) {
                        send(address, &forged(), &body);
                    }
                })
            });
            let before = server.cpu();
            let (calls, rate) = at_full_speed(address, time);
            let cpu = server.cpu().saturating_sub(before);
            if let Some(forgers) = forgers {
                forgers.stop();
            } else {
                alone = rate;
            }
            let name = format!("{name}, {server_name}");
            table.row(
                &format!("{name}: genuine 1 KB at full speed"),
                rate,
                "/s",
                &Limit::None,
            );
            table.note(&format!(
                "{:.0} % of the calls without a forger; server CPU {:.1} s",
                100.0 * rate / alone,
                cpu.as_secs_f64()
            ));
            table.note(&calls.summary());
            table.row(
                &format!("{name}: p99"),
                calls.quantile(0.99),
                "ms",
                &Limit::AtMost(100.0),
            );
        }
    }
}
