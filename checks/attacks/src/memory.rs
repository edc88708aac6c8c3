//! Attacks on memory: `padded`, `tiny-frames`, `backlog`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::{Genuine, Protocol, now};
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{Limit, Table};
use crate::wire::{DATA, FRAME, Http2, UNKNOWN, connect, forged, head, hear};

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
