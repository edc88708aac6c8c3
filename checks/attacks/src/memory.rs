//! Attacks on memory: `padded`, `tiny-frames`, `backlog`, `fragments`, `many-headers`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::now;
use crate::lockout::{on_threads, promised, servers};
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{BESIDE, Beside, Limit, Table};
use crate::wire::{Block, DATA, FRAME, Http2, UNKNOWN, connect, forged, head, hear};

pub(crate) const MIB: usize = 1024 * 1024;
pub(crate) const BODY_LIMIT: usize = 8 * MIB;

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

/// Sends chunks of a body of the maximum length, padded, and then nothing more.
fn send_padded(
    server: SocketAddr,
    pad: Pad,
    chunk: usize,
    padding: usize,
    most: usize,
) -> TcpStream {
    let mut socket = connect(server);
    let head = head(Some(&forged()), &[("Transfer-Encoding", "chunked")]);
    let mut piece = pad.line(chunk, padding).into_bytes();
    piece.extend(vec![b'x'; chunk]);
    piece.extend(b"\r\n");
    let mut sent = socket.write_all(&head);
    for _ in 0..((BODY_LIMIT - 1) / chunk).min(most / piece.len()) {
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
    let zeros = (4, Pad::Zeros, 16 * 1024, fill(16 * 1024), 0);
    let mut cases: Vec<_> = servers(run).into_iter().map(|it| (it, zeros)).collect();
    let plain = cases[0].0;
    cases.push((plain, (1, Pad::Blanks, 16 * 1024, fill(16 * 1024), 0)));
    if !run.short {
        let more = [
            (1, Pad::Zeros, 16 * 1024, fill(16 * 1024), 0),
            (4, Pad::Zeros, 16 * 1024, fill(16 * 1024), 16 * MIB),
            (4, Pad::Blanks, 64 * 1024, fill(64 * 1024), 0),
            (4, Pad::Zeros, 1024, 16 * 1024, 0),
            (4, Pad::Zeros, 1, 100, 0),
            (4, Pad::Extension, 16 * 1024, 31, 0),
        ];
        cases.extend(more.map(|it| (plain, it)));
    }
    // The server reads as many bytes a second from each connection as from any flood.
    let most = if run.short { 110_000_000 } else { 220_000_000 };
    for ((server_name, options), (connections, pad, chunk, padding, budget)) in cases {
        let server = Server::start(Options { budget, ..options });
        let budget = if budget == 0 { 256 * MIB } else { budget };
        // If the bodies are fewer than the budget has room for, memory must not exceed the bodies.
        let allowed = budget.min(connections * BODY_LIMIT) / MIB;
        let name = format!(
            "{connections} × {chunk} B chunks after {padding} {}, {server_name}",
            pad.name()
        );
        let calls = Beside {
            peak: Limit::AtMost(allowed as f64 + BESIDE),
            // While it sends, this is a flood.
            p99: Limit::None,
            ..Beside::default()
        };
        let sockets = table.beside(&name, &server, calls, || {
            on_threads(connections, |_| {
                send_padded(server.address(), pad, chunk, padding, most)
            })
        });
        drop(sockets);
    }
}

/// Sends the first byte of each of many streams, in a read buffer that is full of other data.
pub(crate) fn tiny_frames(run: Run, table: &mut Table) {
    let connections = if run.short { 3 } else { 10 };
    let streams = connections * 200;
    let open = |server: &Server, bytes: bool| {
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
        clients
    };
    for (server_name, options) in servers(run) {
        let [without, with] = [false, true].map(|bytes| {
            let server = Server::start(options);
            let clients = open(&server, bytes);
            let peak = server.peak();
            if bytes {
                let name = format!("{streams} HTTP/2 streams of one byte each, {server_name}");
                let calls = Beside {
                    p99: promised(options),
                    ..Beside::default()
                };
                table.beside(&name, &server, calls, pause);
            }
            drop(clients);
            peak
        });
        table.row(
            "the same, more than streams of none: each",
            (with - without) * 1024.0 / f64::from(streams),
            "KiB",
            &Limit::AtMost(4.0),
        );
        table.note(&format!(
            "peak {with:.1} MiB, without the bytes {without:.1} MiB"
        ));
    }
}

/// Lets genuine calls run beside what an attack has left.
fn pause() {
    std::thread::sleep(Duration::from_secs(2));
}

/// Makes a hundred verified calls of 4 MiB wait for a permit of the handler.
pub(crate) fn backlog(run: Run, table: &mut Table) {
    // All but the slow handler.
    for (server_name, options) in servers(run).into_iter().take(3) {
        let server = Server::start(Options {
            budget: 16 * MIB,
            permits: 1,
            handler: 3_600_000,
            ..options
        });
        let key: SigningKey = KEY.parse().expect("a key");
        let mut calls = Vec::new();
        for number in 0..100 {
            // Different in every call, so that a replay guard rejects none.
            let mut body = format!("{number:03}").into_bytes();
            body.resize(4 * MIB, b'x');
            let length = body.len().to_string();
            let signature = key.sign(&body, now()).to_string();
            let mut socket = connect(server.address());
            let head = head(Some(&signature), &[("Content-Length", &length)]);
            let _ = socket.write_all(&head);
            let _ = socket.write_all(&body);
            calls.push(socket);
        }
        server.settle();
        let name = format!("100 verified calls of 4 MiB wait, {server_name}");
        let probes = Beside {
            // The layer responds to this itself, so it waits for no permit.
            uri: "/api/inngest?probe=trust",
            // Of both kinds of body.
            peak: Limit::AtMost(16.0 + 256.0 + BESIDE),
            ..Beside::default()
        };
        table.beside(&name, &server, probes, || {
            std::thread::sleep(Duration::from_secs(if run.short { 3 } else { 8 }));
        });
        let mut turned_away = 0;
        for socket in &mut calls {
            turned_away += usize::from(!hear(socket, Duration::from_millis(5)).0.is_empty());
        }
        table.note(&format!(
            "the calls beside are trust probes; {turned_away} of the 100 were rejected at once"
        ));
    }
}

/// Leaves holes between small bodies that stay, and then sends large ones, which should fit there.
pub(crate) fn fragments(run: Run, table: &mut Table) {
    for (server_name, options) in servers(run) {
        holes(table, server_name, options);
    }
}

fn holes(table: &mut Table, server_name: &str, options: Options) {
    // 240 MiB of holes.
    const CONNECTIONS: usize = 77;
    const PAIRS: usize = 100;
    const HOLE: usize = 32 * 1024;
    let server = Server::start(options);
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
    let peak = server.peak();
    let name = format!("33 × 8 MiB − 1 after 240 MiB in holes of 32 KiB, {server_name}");
    table.row(
        &format!("{name}: peak without streams"),
        peak - streams,
        "MiB",
        &Limit::AtMost(256.0 + BESIDE),
    );
    table.note(&format!(
        "before the large bodies {before:.0} MiB, {streams:.0} of it for {} streams; at the end \
         {peak:.0} MiB",
        2 * CONNECTIONS * PAIRS,
    ));
    let calls = Beside {
        // The same limit, with the streams.
        peak: Limit::AtMost(256.0 + BESIDE + streams),
        p99: promised(options),
        ..Beside::default()
    };
    table.beside(&name, &server, calls, pause);
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
    let streams = connections * 200;
    let signature = forged();
    for (name, signature) in [("forged", Some(&*signature)), ("unsigned", None)] {
        for (server_name, options) in servers(run) {
            let mut few = 0.0;
            // What is counted in the budget, and what is not.
            for (headers, limit) in [
                (0, Limit::None),
                (60, Limit::None),
                (HEADERS, Limit::AtMost(256.0 + BESIDE)),
            ] {
                let server = Server::start(options);
                let clients = many_requests(&server, connections, signature, headers);
                let peak = server.peak();
                let name = format!("{streams} {name} with {headers} more headers each");
                if headers == 0 {
                    few = peak;
                    table.note(&format!("{name}: {few:.0} MiB"));
                    continue;
                }
                table.row(&format!("{name}: peak, more"), peak - few, "MiB", &limit);
                if headers == HEADERS {
                    let calls = Beside {
                        // The same limit, with the streams.
                        peak: Limit::AtMost(256.0 + BESIDE + few),
                        p99: promised(options),
                        ..Beside::default()
                    };
                    table.beside(&format!("{name}, {server_name}"), &server, calls, pause);
                }
                drop(clients);
            }
        }
    }
}

/// Opens 200 streams on each connection.
fn many_requests(
    server: &Server,
    connections: u32,
    signature: Option<&str>,
    headers: usize,
) -> Vec<Http2> {
    let clients = (0..connections).map(|_| {
        let mut client = Http2::connect(server.address());
        client.open_with(&signed_block(signature, headers, true));
        let block = signed_block(signature, headers, false);
        for _ in 1..200 {
            client.open_with(&block);
        }
        client
    });
    let clients = clients.collect();
    server.settle();
    clients
}
