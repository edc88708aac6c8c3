//! Clients that hold connections without a request: `silent`. The server is the example `bounded`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::Run;
use crate::lockout::servers;
use crate::process::Server;
use crate::server::{Options, PLACES};
use crate::table::{Beside, Limit, Table};
use crate::wire::{Http2, PREFACE, connect, forged};

/// How long a connection may be idle, and how often some clients send a byte.
const IDLE: Duration = Duration::from_millis(600);
const DRIP: Duration = Duration::from_millis(50);
/// When to give up waiting for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client sends.
#[derive(Clone, Copy)]
enum Silent {
    /// This, and then nothing more.
    Text(&'static [u8]),
    /// This, and then one of the other text's bytes at a time, repeatedly.
    Drip(&'static [u8], &'static [u8]),
    /// HTTP/2 with responses to pings, but no request.
    Pings,
    /// The same after a request that was rejected.
    PingsLater,
    /// The same, and no byte of the response fits into the client's window.
    NoWindow,
}

pub(crate) fn silent(run: Run, table: &mut Table) {
    // After an idle time, a handshake or a response has as long again.
    for (name, kind, periods) in [
        ("nothing", Silent::Text(b""), 1),
        ("half of HTTP/2's preface", Silent::Text(&PREFACE[..12]), 1),
        ("the preface in drops", Silent::Drip(b"", PREFACE), 1),
        ("HTTP/2's preface", Silent::Text(PREFACE), 2),
        ("half a head", Silent::Text(b"POST / HTTP/1.1\r\nHost:"), 1),
        (
            "a head in drops",
            Silent::Drip(b"POST / HTTP/1.1\r\nx: ", b"x"),
            1,
        ),
        ("pings only", Silent::Pings, 1),
        ("a request, then pings", Silent::PingsLater, 1),
        (
            "a request without a window, then pings",
            Silent::NoWindow,
            2,
        ),
    ] {
        for (server_name, options) in servers(run).into_iter().take(2) {
            let server = Server::start(Options {
                idle: u64::try_from(IDLE.as_millis()).expect("a short time"),
                ..options
            });
            let name = format!("{} × {name}, {server_name}", 2 * PLACES);
            let calls = Beside {
                // They wait for their place.
                p99: Limit::None,
                ..Beside::default()
            };
            let start = Instant::now();
            // They are in front of the genuine calls.
            let sockets: Vec<_> = (0..2 * PLACES).map(|_| connect(server.address())).collect();
            let lived = table.beside(&name, &server, calls, || {
                std::thread::scope(|scope| {
                    let hold = |socket| scope.spawn(move || kind.hold(socket));
                    let clients: Vec<_> = sockets.into_iter().map(hold).collect();
                    let join = |it: ScopedJoinHandle<'_, _>| it.join().expect("no panic");
                    clients.into_iter().map(join).collect::<Vec<_>>()
                })
            });
            let last = lived.into_iter().max().expect("some connections");
            // The second half of them gets the places of the first.
            let limit = 2 * periods * IDLE + Duration::from_millis(500);
            table.row(
                &format!("{name}: all closed after"),
                (last - start).as_secs_f64(),
                "s",
                &Limit::AtMost(limit.as_secs_f64()),
            );
        }
    }
}

impl Silent {
    /// Returns when the server closed the connection.
    fn hold(self, mut socket: TcpStream) -> Instant {
        let end = Instant::now() + PATIENCE;
        match self {
            Self::Text(text) => {
                let _ = socket.write_all(text);
                while Instant::now() < end && !closed(&mut socket, PATIENCE) {}
            }
            Self::Drip(first, drops) => {
                let mut sent = socket.write_all(first);
                for drop in drops.chunks(1).cycle() {
                    sent = sent.and_then(|()| socket.write_all(drop));
                    if sent.is_err() || Instant::now() >= end || closed(&mut socket, DRIP) {
                        break;
                    }
                }
            }
            Self::Pings | Self::PingsLater | Self::NoWindow => {
                let window = if let Self::NoWindow = self { 0 } else { 65_535 };
                let mut client = Http2::over(socket, window);
                if !matches!(self, Self::Pings) {
                    let stream = client.open(&forged());
                    client.end(&[stream], b"x");
                }
                while !client.ended && Instant::now() < end {
                    client.pump(DRIP);
                }
            }
        }
        Instant::now()
    }
}

/// Returns `true` if the peer closes the connection within `patience`.
fn closed(socket: &mut TcpStream, patience: Duration) -> bool {
    socket
        .set_read_timeout(Some(patience))
        .expect("an option of the socket");
    match socket.read(&mut [0; 4096]) {
        Ok(len) => len == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}
