//! Attacks that try to lock others out: `stalled`, `http2-streams`, `drip`. Genuine calls run
//! beside each.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Run;
use crate::genuine::{Protocol, beside};
use crate::memory::BODY_LIMIT;
use crate::process::Server;
use crate::server::Options;
use crate::table::{Limit, Table};
use crate::wire::{Http2, connect, forged, head};

/// Attackers in threads, until the time is over.
struct Attackers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attackers {
    fn start(count: usize, attack: impl Fn(&AtomicBool) + Clone + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let (stop, attack) = (Arc::clone(&stop), attack.clone());
                std::thread::spawn(move || attack(&stop))
            })
            .collect();
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("attackers do not panic");
        }
    }
}

/// Sends all of a body but `less` bytes, and then one more byte every `drip`, or nothing more.
fn stall(server: SocketAddr, less: usize, drip: Option<Duration>, stop: &AtomicBool) {
    let mut socket = connect(server);
    let length = BODY_LIMIT.to_string();
    let head = head(Some(&forged()), &[("Content-Length", &length)]);
    if socket.write_all(&head).is_err() || socket.write_all(&vec![b'x'; BODY_LIMIT - less]).is_err()
    {
        return;
    }
    let pause = drip.unwrap_or(Duration::from_millis(50));
    socket
        .set_read_timeout(Some(pause))
        .expect("an option of the socket");
    for _ in 1..less.max(1_000_000) {
        // There is a response, or the connection ended: the server has given up on this client.
        if stop.load(Ordering::Relaxed) || socket.read(&mut [0; 512]).is_ok() {
            return;
        }
        if drip.is_some() && socket.write_all(b"x").is_err() {
            return;
        }
    }
}

/// Runs attackers that return a quarter of a second after they were cut off.
fn persistent(count: usize, attack: impl Fn(&AtomicBool) + Clone + Send + 'static) -> Attackers {
    Attackers::start(count, move |stop| {
        while !stop.load(Ordering::Relaxed) {
            attack(stop);
            std::thread::sleep(Duration::from_millis(250));
        }
    })
}

fn seconds(run: Run) -> Duration {
    Duration::from_secs(if run.short { 6 } else { 15 })
}

/// Returns the servers that an attack is tried on.
fn servers(run: Run) -> Vec<(&'static str, Options)> {
    let plain = Options::default();
    let mut servers = vec![("2 threads", plain)];
    if !run.short {
        servers.extend([
            (
                "1 thread",
                Options {
                    threads: 1,
                    ..plain
                },
            ),
            (
                "replay guard",
                Options {
                    replay: true,
                    ..plain
                },
            ),
            (
                "slow handler",
                Options {
                    handler: 50,
                    ..plain
                },
            ),
        ]);
    }
    servers
}

fn measure(
    run: Run,
    table: &mut Table,
    name: &str,
    (server_name, options): (&str, Options),
    protocol: Protocol,
    attack: impl FnOnce(SocketAddr) -> Attackers,
) {
    let server = Server::start(options);
    let attackers = attack(server.address());
    // Genuine calls begin when everything has been sent.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let ((), report) = beside(server.address(), protocol, || {
        std::thread::sleep(seconds(run).saturating_sub(start.elapsed()));
    });
    attackers.stop();
    let name = format!("{name}, {}, {server_name}", protocol.name());
    table.row(
        &format!("{name}: peak"),
        server.peak(),
        "MiB",
        &Limit::AtMost(256.0 + 64.0),
    );
    table.note(&format!("server CPU {:.1} s", server.cpu().as_secs_f64()));
    table.genuine(&name, &report, options.handler as f64);
}

/// Runs without an attack: shows what the machine itself does to genuine calls.
pub(crate) fn quiet(run: Run, table: &mut Table) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for server in servers(run) {
            measure(run, table, "no attack", server, protocol, |_| {
                Attackers::start(0, |_| ())
            });
        }
    }
}

pub(crate) fn stalled(run: Run, table: &mut Table) {
    for server in servers(run) {
        let name = "34 × 8 MiB − 1";
        measure(run, table, name, server, Protocol::Http1, |address| {
            Attackers::start(34, move |stop| stall(address, 1, None, stop))
        });
        let name = "34 × 8 MiB − 1, persistent";
        measure(run, table, name, server, Protocol::Http1, |address| {
            persistent(34, move |stop| stall(address, 1, None, stop))
        });
        let name = "34 streams of 8 MiB − 1";
        measure(run, table, name, server, Protocol::Http2, |address| {
            persistent(34, move |stop| {
                stalled_streams(address, 1, BODY_LIMIT - 1, stop);
            })
        });
    }
}

/// Opens this many streams on a connection, sends this many bytes on each, and keeps them open.
fn stalled_streams(server: SocketAddr, streams: usize, bytes: usize, stop: &AtomicBool) {
    let mut client = Http2::connect(server);
    let body = vec![b'x'; bytes];
    for _ in 0..streams {
        let stream = client.open(&forged());
        client.data(stream, &body, Duration::from_secs(5));
        if client.gone || stop.load(Ordering::Relaxed) {
            return;
        }
    }
    while !client.gone && !stop.load(Ordering::Relaxed) {
        client.pump(Duration::from_millis(50));
    }
}

pub(crate) fn http2_streams(run: Run, table: &mut Table) {
    // Together a little more than the budget of 256 MiB; and many small ones.
    for (name, bytes) in [
        ("600 streams of 450 KB", 450_000),
        ("600 streams of 1 byte", 1),
    ] {
        for server in servers(run) {
            measure(run, table, name, server, Protocol::Http2, |address| {
                persistent(3, move |stop| stalled_streams(address, 200, bytes, stop))
            });
        }
    }
}

pub(crate) fn drip(run: Run, table: &mut Table) {
    let drip = Some(Duration::from_millis(50));
    for server in servers(run) {
        measure(
            run,
            table,
            "34 × 8 MiB, the last 560 KiB dripping",
            server,
            Protocol::Http1,
            |to| Attackers::start(34, move |stop| stall(to, 560 * 1024, drip, stop)),
        );
    }
    let plain = servers(run)[0];
    measure(
        run,
        table,
        "300 that drip from the start",
        plain,
        Protocol::Http1,
        |address| {
            Attackers::start(3, move |stop| {
                let length = BODY_LIMIT.to_string();
                let head = head(Some(&forged()), &[("Content-Length", &length)]);
                let mut sockets: Vec<_> = (0..100).map(|_| connect(address)).collect();
                for socket in &mut sockets {
                    let _ = socket.write_all(&head);
                }
                while !stop.load(Ordering::Relaxed) {
                    sockets.retain_mut(|socket| socket.write_all(b"x").is_ok());
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        },
    );
}
