//! Attacks on time and CPU: `flood`, `hostile-json`, `forged`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::{Protocol, beside, now};
use crate::memory::BODY_LIMIT;
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{Limit, Table};
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
const FLOODS: [Flood; 10] = [
    Flood { name: "chunk-size line of zeros", signature: fresh, first: "", piece: "0", last: "" },
    Flood { name: "chunk-size line of blanks", signature: fresh, first: "1", piece: " ", last: "" },
    Flood { name: "chunk extension", signature: fresh, first: "1;", piece: "x", last: "" },
    Flood { name: "trailers", signature: fresh, first: "0\r\n", piece: "a: b\r\n", last: "" },
    Flood { name: "one-byte chunks", signature: fresh, first: "", piece: "1\r\nx\r\n", last: "" },
    Flood { name: "the same, padded", signature: fresh, first: "", piece: "0", last: "1\r\nx\r\n" },
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

pub(crate) fn flood(run: Run, table: &mut Table) {
    let seconds = Limit::AtMost(1.0);
    for &threads in if run.short { &[2][..] } else { &[2, 1] } {
        let server = Options {
            threads,
            deadline: u64::try_from(DEADLINE.as_millis()).expect("a short time"),
            ..Options::default()
        };
        for flood in &FLOODS {
            let attack = |to, limit| flood.run(to, limit);
            measure(
                run,
                table,
                flood.name,
                server,
                Protocol::Http1,
                &seconds,
                attack,
            );
        }
        for (name, kind) in [
            ("DATA of one byte", DATA),
            ("frames of no meaning", UNKNOWN),
        ] {
            let attack = |to, limit| http2_flood(to, kind, limit);
            measure(run, table, name, server, Protocol::Http2, &seconds, attack);
        }
        // One poll of such a connection makes up to 128 reads, whatever the layer does. The
        // server's setting determines how much each of them reads.
        let name = "four lines of zeros, read buffer of 64 KiB";
        let small = Options {
            buffer: 64 * 1024,
            ..server
        };
        measure(run, table, name, small, Protocol::Http1, &seconds, four);
        let name = "four lines of zeros, default read buffer";
        measure(
            run,
            table,
            name,
            server,
            Protocol::Http1,
            &Limit::None,
            four,
        );
    }
}

/// Measures how long a connection lives, and the calls beside it. `past` limits the time after the
/// connection's deadline. Without a limit, the calls have none either.
fn measure(
    run: Run,
    table: &mut Table,
    name: &str,
    options: Options,
    protocol: Protocol,
    past: &Limit,
    attack: impl FnOnce(SocketAddr, Duration) -> Duration,
) {
    let name = format!("{name}, threads: {}", options.threads);
    let limit = Duration::from_secs(if run.short { 8 } else { 20 });
    let server = Server::start(options);
    let (before, start) = (server.cpu(), Instant::now());
    let (lived, report) = beside(server.address(), protocol, || {
        let lived = attack(server.address(), limit);
        // The figures of the calls beside it need some calls.
        std::thread::sleep(Duration::from_secs(3).saturating_sub(start.elapsed()));
        lived
    });
    let cpu = server.cpu().saturating_sub(before);
    table.row(
        &format!("{name}, {}: past the deadline of 3 s", protocol.name()),
        lived.saturating_sub(DEADLINE).as_secs_f64(),
        "s",
        past,
    );
    table.note(&format!(
        "lived {:.1} s; server CPU {:.1} s in {:.1} s, with genuine calls",
        lived.as_secs_f64(),
        cpu.as_secs_f64(),
        start.elapsed().as_secs_f64()
    ));
    match past {
        Limit::None => table.note(&report.summary()),
        _ => table.calls(&name, &report, &Limit::None),
    }
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

/// Measures the CPU time of a forged request of the maximum length, and of an unsigned one with the
/// longest query.
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
    let forged = cpu_each(Options::default(), count, &body, forged);
    let silent = Options {
        log: false,
        ..Options::default()
    };
    let undiagnosed = cpu_each(silent, count, &body, wire::forged);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    table.note(&format!(
        "8 MiB: HMAC {:.1} ms, genuine request {:.1} ms, forged {:.1} ms of CPU",
        ms(hmac),
        ms(genuine),
        ms(forged)
    ));
    table.row(
        "forged 8 MiB / genuine 8 MiB",
        ms(forged) / ms(genuine),
        "",
        &Limit::AtMost(2.5),
    );
    table.row(
        "forged 8 MiB, diagnosed for the log / not",
        ms(forged) / ms(undiagnosed),
        "",
        &Limit::AtMost(1.1),
    );
    // Two keys are tried, and the body has to pass through a socket.
    table.row(
        "forged 8 MiB / two HMACs",
        ms(forged) / ms(hmac) / 2.0,
        "",
        &Limit::None,
    );
    let count = if run.short { 1000 } else { 5000 };
    let [post, put] = ["POST", "PUT"].map(|method| unsigned_query(method, count));
    table.row(
        "unsigned PUT with a query of 60 KB: CPU, more than a POST's",
        ms(put) - ms(post),
        "ms",
        &Limit::AtMost(0.2),
    );
    table.note(&format!("POST {:.2} ms, PUT {:.2} ms", ms(post), ms(put)));
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
    let server = Server::start(Options::default());
    let ((), report) = beside(server.address(), Protocol::Http1, || {
        let end = Instant::now() + Duration::from_secs(if run.short { 4 } else { 15 });
        while Instant::now() < end {
            send(server.address(), &forged(), body.as_bytes());
        }
    });
    table.genuine("one sender of arrays without pause", &report, 0.0);
}

/// As much as a forged body of 4 MiB costs anyway.
const LIMIT_JSON: Limit = Limit::AtMost(10.0);
