//! Attacks on memory: `padded`, `tiny-frames`, `backlog`, `fragments`, `many-headers`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::{Genuine, Protocol, now};
use crate::lockout::on_threads;
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{Limit, Table};
use crate::wire::{Block, DATA, FRAME, Http2, UNKNOWN, connect, forged, head, hear};

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const BODY_LIMIT: usize = 8 * MIB;
/// What a server may use in addition to the budget.
const BESIDE: f64 = 64.0;

#[derive(Clone, Copy)]
enum Pad {
    Zeros,
    Blanks,
    Extension,
}

impl Pad {
    fn name(self) -> &'static str {
        match self {
            Self::Zeros => "zeros",
            Self::Blanks => "blanks",
            Self::Extension => "extension",
        }
    }

    /// Returns the line before a chunk of `chunk` bytes, with `pad` meaningless bytes.
    fn line(self, chunk: usize, pad: usize) -> String {
        match self {
            Self::Zeros => format!("{}{chunk:x}\r\n", "0".repeat(pad)),
            Self::Blanks => format!("{chunk:x}{}\r\n", " ".repeat(pad)),
            Self::Extension => format!("{chunk:x};{}\r\n", "x".repeat(pad)),
        }
    }
}

/// Sends all but the last byte of a body of the maximum length, in padded chunks, and then nothing
/// more.
fn send_padded(server: SocketAddr, pad: Pad, chunk: usize, padding: usize) -> TcpStream {
    let mut socket = connect(server);
    let head = head(Some(&forged()), &[("Transfer-Encoding", "chunked")]);
    let mut piece = pad.line(chunk, padding).into_bytes();
    piece.extend(vec![b'x'; chunk]);
    piece.extend(b"\r\n");
    let mut sent = socket.write_all(&head);
    // At most about 220 MB.
    for _ in 0..((BODY_LIMIT - 1) / chunk).min(220_000_000 / piece.len()) {
        if sent.is_err() {
            break;
        }
        sent = socket.write_all(&piece);
    }
    socket
}

pub(crate) fn padded(run: Run, table: &mut Table) {
    // hyper's largest read buffer minus the chunk, so that each chunk is in its own buffer.
    let fill = |chunk: usize| 8192 + 4096 * 100 - chunk - 16;
    let mut cases = vec![
        (4, Pad::Zeros, 16 * 1024, fill(16 * 1024), 0),
        (1, Pad::Zeros, 16 * 1024, fill(16 * 1024), 0),
        (1, Pad::Blanks, 16 * 1024, fill(16 * 1024), 0),
    ];
    if !run.short {
        cases.extend([
            (4, Pad::Zeros, 16 * 1024, fill(16 * 1024), 16 * MIB),
            (4, Pad::Blanks, 64 * 1024, fill(64 * 1024), 0),
            (4, Pad::Zeros, 1024, 16 * 1024, 0),
            (4, Pad::Zeros, 1, 100, 0),
            (4, Pad::Extension, 16 * 1024, 31, 0),
        ]);
    }
    for (connections, pad, chunk, padding, budget) in cases {
        let server = Server::start(Options {
            budget,
            ..Options::default()
        });
        let sockets: Vec<_> = (0..connections)
            .map(|_| {
                let address = server.address();
                std::thread::spawn(move || send_padded(address, pad, chunk, padding))
            })
            .collect();
        let sockets: Vec<_> = sockets.into_iter().map(JoinHandle::join).collect();
        server.settle();
        let budget = if budget == 0 { 256 * MIB } else { budget };
        // If the bodies are fewer than the budget has room for, memory must not exceed the bodies.
        let allowed = budget.min(connections * BODY_LIMIT) / MIB;
        table.row(
            &format!(
                "{connections} × {chunk} B chunks after {padding} {}: peak",
                pad.name()
            ),
            server.peak(),
            "MiB",
            &Limit::AtMost(allowed as f64 + BESIDE),
        );
        table.note(&format!("server CPU {:.1} s", server.cpu().as_secs_f64()));
        drop(sockets);
    }
}

/// Sends the first byte of each of many streams, in a read buffer that is full of other data.
pub(crate) fn tiny_frames(run: Run, table: &mut Table) {
    let connections = if run.short { 3 } else { 10 };
    let streams = connections * 200;
    let peak = |bytes: bool| {
        let server = Server::start(Options::default());
        let nothing = vec![0; FRAME];
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let mut client = Http2::connect(server.address());
                for _ in 0..200 {
                    let stream = client.open(&forged());
                    client.frame(UNKNOWN, 0, 0, &nothing);
                    if bytes {
                        client.frame(DATA, 0, stream, b"x");
                    }
                    client.frame(UNKNOWN, 0, 0, &nothing);
                }
                client
            })
            .collect();
        server.settle();
        drop(clients);
        server.peak()
    };
    let (without, with) = (peak(false), peak(true));
    table.row(
        &format!("{streams} HTTP/2 streams of one byte each, more than of none: each"),
        (with - without) * 1024.0 / f64::from(streams),
        "KiB",
        &Limit::AtMost(4.0),
    );
    table.note(&format!(
        "peak {with:.1} MiB, without the bytes {without:.1} MiB"
    ));
}

/// Makes a hundred verified calls of 4 MiB wait for a permit of the handler.
pub(crate) fn backlog(run: Run, table: &mut Table) {
    let server = Server::start(Options {
        budget: 16 * MIB,
        permits: 1,
        handler: 3_600_000,
        ..Options::default()
    });
    let key: SigningKey = KEY.parse().expect("a key");
    let body = vec![b'x'; 4 * MIB];
    let length = body.len().to_string();
    let mut calls = Vec::new();
    for _ in 0..100 {
        let signature = key.sign(&body, now()).to_string();
        let mut socket = connect(server.address());
        let head = head(Some(&signature), &[("Content-Length", &length)]);
        let _ = socket.write_all(&head);
        let _ = socket.write_all(&body);
        calls.push(socket);
    }
    server.settle();
    // The layer responds to this itself, so it waits for no permit.
    let probe = "/api/inngest?probe=trust";
    let genuine = Genuine::start(server.address(), Protocol::Http1, probe);
    std::thread::sleep(Duration::from_secs(if run.short { 3 } else { 8 }));
    let report = genuine.stop();
    let mut turned_away = 0;
    for socket in &mut calls {
        turned_away += usize::from(!hear(socket, Duration::from_millis(5)).0.is_empty());
    }
    table.row(
        "100 verified calls of 4 MiB wait, budget 16 MiB, backlog 256: peak",
        server.peak(),
        "MiB",
        &Limit::AtMost(16.0 + 256.0 + BESIDE),
    );
    table.note(&format!("{turned_away} of them were rejected at once"));
    table.genuine("trust probes beside", &report, 0.0);
}

/// Leaves holes between small bodies that stay, and then sends large ones, which should fit there.
pub(crate) fn fragments(_: Run, table: &mut Table) {
    // 240 MiB of holes.
    const CONNECTIONS: usize = 77;
    const PAIRS: usize = 100;
    const HOLE: usize = 32 * 1024;
    let server = Server::start(Options::default());
    let hole = vec![b'x'; HOLE];
    let mut clients = on_threads(CONNECTIONS, |_| {
        let mut client = Http2::connect(server.address());
        let pair = |_| {
            [&*hole, b"x"].map(|body| {
                let stream = client.open(&forged());
                client.data(stream, body, Duration::from_secs(5));
                stream
            })
        };
        let pairs: Vec<_> = (0..PAIRS).map(pair).collect();
        (client, pairs)
    });
    server.settle();
    let before = server.peak();
    // The control: what the same streams and connections take beside their bodies.
    let streams = before - (CONNECTIONS * PAIRS * HOLE) as f64 / MIB as f64;
    for (client, pairs) in &mut clients {
        for [hole, _] in pairs {
            client.reset(*hole);
        }
    }
    server.settle();
    let large = on_threads(33, |_| {
        let mut socket = connect(server.address());
        let length = BODY_LIMIT.to_string();
        let _ = socket.write_all(&head(Some(&forged()), &[("Content-Length", &length)]));
        let _ = socket.write_all(&vec![b'x'; BODY_LIMIT - 1]);
        socket
    });
    server.settle();
    table.row(
        "33 × 8 MiB − 1 after 240 MiB in holes of 32 KiB: peak without streams",
        server.peak() - streams,
        "MiB",
        &Limit::AtMost(256.0 + BESIDE),
    );
    table.note(&format!(
        "before the large bodies {before:.0} MiB, {streams:.0} of it for {} streams; at the end \
         {:.0} MiB",
        2 * CONNECTIONS * PAIRS,
        server.peak()
    ));
    drop((clients, large));
}

/// How many headers a request of [`many_headers_block`] has beside its own. The server's limit for
/// the list, 16 KiB, has room for as many.
const HEADERS: usize = 440;

/// Returns the block of a forged request with many headers, most of them in one byte or two. The
/// first block of a connection names the fields that the others repeat.
pub(crate) fn many_headers_block(first: bool) -> Block {
    signed_block(Some(&forged()), HEADERS, first)
}

fn signed_block(signature: Option<&str>, headers: usize, first: bool) -> Block {
    // As many as the peer remembers.
    const FIELDS: u8 = 115;
    let names: Vec<_> = (0..FIELDS).map(|at| format!("x{at}")).collect();
    let mut block = Block::post(signature);
    if first {
        block.remember(names.iter().map(|name| (&**name, "")));
    }
    let new = if first { usize::from(FIELDS) } else { 0 };
    for at in (0..FIELDS).cycle().take(headers.saturating_sub(new)) {
        block.repeat(at);
    }
    block
}

/// Opens requests whose headers take far more memory than bytes on the wire, and whose bodies never
/// come.
pub(crate) fn many_headers(run: Run, table: &mut Table) {
    let connections = if run.short { 60 } else { 150 };
    let peak = |signature: Option<&str>, headers: usize| {
        let server = Server::start(Options::default());
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let mut client = Http2::connect(server.address());
                client.open_with(&signed_block(signature, headers, true));
                let block = signed_block(signature, headers, false);
                for _ in 1..200 {
                    client.open_with(&block);
                }
                client
            })
            .collect();
        server.settle();
        drop(clients);
        server.peak()
    };
    let streams = connections * 200;
    let signature = forged();
    for (name, signature) in [("forged", Some(&*signature)), ("unsigned", None)] {
        let few = peak(signature, 0);
        table.note(&format!(
            "{streams} {name} with 5 headers each: {few:.0} MiB"
        ));
        // What is counted in the budget, and what is not.
        for (headers, limit) in [(60, Limit::None), (HEADERS, Limit::AtMost(256.0 + BESIDE))] {
            table.row(
                &format!("{streams} {name} with {headers} more headers each: peak, more"),
                peak(signature, headers) - few,
                "MiB",
                &limit,
            );
        }
    }
}
