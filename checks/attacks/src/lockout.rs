//! Attacks that try to lock others out: `stalled`, `http2-streams`, `drip`, `burst`, `evict`.
//! Genuine calls run beside each.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inngest_auth::SigningKey;

use crate::Run;
use crate::genuine::{Protocol, now};
use crate::memory::{BODY_LIMIT, MIB, many_headers_block};
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{BESIDE, Beside, Limit, Table};
use crate::wire::{Block, Http2, connect, forged, head, hear};

/// Attackers in threads, until the time is over.
pub(crate) struct Attackers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attackers {
    pub(crate) fn start(
        count: usize,
        attack: impl Fn(&AtomicBool) + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let (stop, attack) = (Arc::clone(&stop), attack.clone());
                std::thread::spawn(move || attack(&stop))
            })
            .collect();
        Self { stop, threads }
    }

    pub(crate) fn stop(self) {
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
    Duration::from_secs(if run.short { 4 } else { 15 })
}

/// Returns the servers that an attack is tried on.
pub(crate) fn servers(run: Run) -> Vec<(&'static str, Options)> {
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
    let name = format!("{name}, {}, {server_name}", protocol.name());
    let calls = Beside {
        protocol,
        p99: promised(options),
        ..Beside::default()
    };
    table.beside(&name, &server, calls, || std::thread::sleep(seconds(run)));
    attackers.stop();
}

/// Returns the limit for the 99th percentile of small genuine calls, which includes the handler's
/// time.
pub(crate) fn promised(options: Options) -> Limit {
    Limit::AtMost(100.0 + options.handler as f64)
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

/// Holds many bodies of 64 KiB without their last byte, and then completes all at one moment.
pub(crate) fn burst(run: Run, table: &mut Table) {
    let plain = vec![b'x'; 64 * 1024];
    // Equal keys take longest to bring into canonical form.
    let fields = r#""":0,"#.repeat((64 * 1024 - 2) / 5);
    let json = format!("{{{}}}", fields.trim_end_matches(',')).into_bytes();
    let all = servers(run);
    for (name, body, servers) in [
        ("bodies that are no JSON", plain, &all[..1]),
        ("bodies of JSON", json, &all[..]),
    ] {
        for &(server_name, options) in servers {
            complete_at_once(run, table, name, &body, (server_name, options));
        }
    }
}

fn complete_at_once(
    run: Run,
    table: &mut Table,
    name: &str,
    body: &[u8],
    (server_name, options): (&str, Options),
) {
    // As many as fit into the budget.
    const CONNECTIONS: usize = 21;
    const STREAMS: usize = 190;
    let server = Server::start(options);
    let (last, most) = body.split_last().expect("it is not empty");
    let mut clients = on_threads(CONNECTIONS, |_| {
        let mut client = Http2::connect(server.address());
        let open = |_| {
            let stream = client.open(&forged());
            client.data(stream, most, Duration::from_secs(5));
            stream
        };
        let streams: Vec<_> = (0..STREAMS).map(open).collect();
        (client, streams)
    });
    let name = format!(
        "{} {name} end at once, {server_name}",
        CONNECTIONS * STREAMS
    );
    let calls = Beside {
        // The streams are not in the budget.
        peak: Limit::AtMost(256.0 + BESIDE + 32.0),
        p99: promised(options),
        ..Beside::default()
    };
    table.beside(&name, &server, calls, || {
        for (client, streams) in &mut clients {
            client.end(streams, &[*last]);
        }
        std::thread::sleep(Duration::from_secs(if run.short { 5 } else { 10 }));
    });
    let mut open = 0;
    for (client, streams) in &mut clients {
        client.pump(Duration::from_millis(1));
        open += streams.iter().filter(|&&it| client.is_open(it)).count();
    }
    table.note(&format!("{open} bodies still wait"));
}

/// Runs a number of threads to their end.
pub(crate) fn on_threads<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|at| scope.spawn(move || work(at))).collect();
        let join = |it: std::thread::ScopedJoinHandle<'_, T>| it.join().expect("no panic");
        threads.into_iter().map(join).collect()
    })
}

/// Tries to take the room of genuine calls over slow links with few bytes on the wire.
pub(crate) fn evict(run: Run, table: &mut Table) {
    const SLOW: usize = 6;
    let time = Duration::from_secs(if run.short { 4 } else { 10 });
    let remembered = {
        let mut block = Block::post(None);
        block.remember([("x-inngest-signature", &*forged())]);
        block
    };
    let few = {
        let mut block = Block::post(None);
        block.repeat(0);
        block
    };
    for (name, connections, first, block, byte) in [
        ("no byte of body", 370, &remembered, &few, &b""[..]),
        ("a byte each", 370, &remembered, &few, b"x"),
        (
            "440 headers each",
            10,
            &many_headers_block(true),
            &many_headers_block(false),
            b"",
        ),
    ] {
        for (server_name, options) in servers(run) {
            // A budget of 64 MiB, so that fewer connections would do.
            let server = Server::start(Options {
                budget: 64 * MIB,
                ..options
            });
            let mut clients = on_threads(10, |_| {
                let connect = |_| {
                    let mut client = Http2::connect(server.address());
                    client.open_with(first);
                    client
                };
                (0..connections / 10).map(connect).collect::<Vec<_>>()
            });
            let name = format!("{} streams with {name}, {server_name}", connections * 198);
            let calls = Beside {
                // The streams, which are not in the budget, take most of it.
                peak: Limit::None,
                p99: Limit::None,
                ..Beside::default()
            };
            let answered = table.beside(&name, &server, calls, || {
                std::thread::scope(|scope| {
                    let slow = || slow_call(server.address(), time);
                    let slow: Vec<_> = (0..SLOW).map(|_| scope.spawn(slow)).collect();
                    std::thread::sleep(time / 8);
                    for client in clients.iter_mut().flatten() {
                        for _ in 0..198 {
                            let stream = client.open_with(block);
                            if !byte.is_empty() {
                                client.data(stream, byte, Duration::from_secs(1));
                            }
                        }
                    }
                    let ok = |call: std::thread::ScopedJoinHandle<'_, bool>| {
                        usize::from(call.join().expect("no panic"))
                    };
                    slow.into_iter().map(ok).sum::<usize>()
                })
            });
            table.row(
                &format!("{name}: calls over slow links answered 200"),
                answered as f64,
                &format!("of {SLOW}"),
                &Limit::AtLeast(SLOW as f64),
            );
        }
    }
}

/// Sends a genuine call of 4 MB that takes so long. Returns `true` if it is answered 200.
fn slow_call(server: SocketAddr, time: Duration) -> bool {
    const PIECES: u32 = 40;
    let key: SigningKey = KEY.parse().expect("a key");
    let body = vec![b'x'; 4_000_000];
    let signature = key.sign(&body, now()).to_string();
    let length = body.len().to_string();
    let fields = [("Content-Length", &*length), ("Connection", "close")];
    let mut socket = connect(server);
    let mut sent = socket.write_all(&head(Some(&signature), &fields));
    for piece in body.chunks(body.len() / PIECES as usize) {
        sent = sent.and_then(|()| socket.write_all(piece));
        std::thread::sleep(time / PIECES);
    }
    hear(&mut socket, Duration::from_secs(5))
        .0
        .starts_with(b"HTTP/1.1 200 ")
}
