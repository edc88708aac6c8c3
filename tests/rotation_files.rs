//! Rotations through watched files, with calls over real sockets, in every order that keeps the key
//! that Inngest signs with in the files.
#![cfg(all(unix, feature = "layer"))]

mod common;
mod files;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use common::{CALL, NOW};
use files::{A as OLD, B as NEW, Dir, held, key, pair};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use inngest_auth::testing::TestClock;
use inngest_auth::{Config, InngestAuth, SIGNATURE_HEADER};
use tokio::net::TcpStream;
use tokio::sync::RwLock;

const CLIENTS: usize = 8;
/// Contents that are no key. A blank fallback file is legal, so the blank one is only for the
/// current key.
const BAD: [&str; 7] = [
    "",
    "undefined",
    "signkey-test-",
    "signkey-test-abc",
    "\u{0}",
    "\"signkey-test-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"",
    // As long as an event key, and with its characters.
    "mK3v-ZpQ0xWl8hYc2RtNs5_BdGfJuE7oTiAyL4gXqVrPwMzUe1SkHjCnOb6D9IaFmK3vZpQ0xWl8hYc2RtNs5",
];

/// What the files contain, and what Inngest signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    current: &'static str,
    fallback: &'static str,
    signer: &'static str,
}

impl State {
    /// Returns these files with one or both of them damaged. Every bad text comes up in `current`
    /// and, apart from the blank one, in `fallback` as `step` counts up.
    fn damaged(self, step: usize) -> Self {
        let current = BAD[step / 3 % BAD.len()];
        let fallback = BAD[1 + step / 3 % (BAD.len() - 1)];
        match step % 3 {
            0 => Self { current, ..self },
            1 => Self { fallback, ..self },
            _ => Self {
                current,
                fallback,
                ..self
            },
        }
    }

    /// Returns every state that one step reaches without losing a call.
    fn next(self) -> Vec<Self> {
        let files = [(OLD, ""), (NEW, ""), (OLD, NEW), (NEW, OLD)];
        let published = files.map(|(current, fallback)| Self {
            current,
            fallback,
            ..self
        });
        let switched = [OLD, NEW].map(|signer| Self { signer, ..self });
        let legal = |it: &Self| *it != self && [it.current, it.fallback].contains(&it.signer);
        published
            .into_iter()
            .chain(switched)
            .filter(legal)
            .collect()
    }
}

/// Returns every way from the end of `path` to the end of a rotation that meets no state twice.
fn orders(path: &[State]) -> Vec<Vec<State>> {
    let here = *path.last().unwrap();
    if here
        == (State {
            current: NEW,
            fallback: "",
            signer: NEW,
        })
    {
        return vec![path.to_vec()];
    }
    let onward = here.next().into_iter().filter(|next| !path.contains(next));
    onward
        .flat_map(|next| orders(&[path, &[next]].concat()))
        .collect()
}

/// How files are replaced.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One after the other, each by a rename. The file that does not hold Inngest's key is first,
    /// so that this key is never missing from both.
    Rename,
    /// Both at once, by a symbolic link to their directory.
    Link(usize),
}

impl Way {
    fn publish(&mut self, dir: &Dir, state: State) {
        match self {
            Self::Rename => {
                let mut files = [("current", state.current), ("fallback", state.fallback)];
                let holds = fs::read_to_string(dir.at("current")).unwrap_or_default();
                if holds == state.signer {
                    files.reverse();
                }
                for (name, text) in files {
                    dir.write("written", text);
                    fs::rename(dir.at("written"), dir.at(name)).unwrap();
                }
            }
            Self::Link(count) => {
                *count += 1;
                dir.swap(
                    "..data",
                    &format!("..{count}"),
                    state.current,
                    state.fallback,
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_rejected_in_any_legal_order_by_rename_or_link_with_bad_files_in_between() {
    let start = State {
        current: OLD,
        fallback: "",
        signer: OLD,
    };
    let orders = orders(&[start]);
    assert!(orders.len() >= 8, "{orders:?}");
    for mut way in [Way::Rename, Way::Link(0)] {
        let dir = Dir::new();
        way.publish(&dir, start);
        if let Way::Link(_) = way {
            for name in ["current", "fallback"] {
                symlink(format!("..data/{name}"), dir.at(name)).unwrap();
            }
        }
        let config = dir.config().unwrap();
        let watch = tokio::spawn(config.watch(Duration::from_millis(1)));
        let mut load = Load::start(&config).await;
        let mut steps = 0;
        for order in &orders {
            for (at, &state) in order.iter().chain([&start]).enumerate() {
                // Back to the start of the next order, where Inngest signs with the old key again.
                if at == order.len() {
                    way.publish(
                        &dir,
                        State {
                            current: NEW,
                            fallback: OLD,
                            signer: NEW,
                        },
                    );
                    load.until(|| held(&config) == pair(NEW, OLD)).await;
                }
                *load.signs_with.write().await = state.signer;
                way.publish(&dir, state);
                load.until(|| held(&config) == pair(state.current, state.fallback))
                    .await;
                let bad = state.damaged(steps);
                steps += 1;
                way.publish(&dir, bad);
                // The watch may not have polled yet.
                assert!(config.reload().is_err(), "{bad:?}");
                let before = load.calls.load(Ordering::SeqCst);
                load.until(|| load.calls.load(Ordering::SeqCst) >= before + CLIENTS)
                    .await;
                assert_eq!(
                    held(&config),
                    pair(state.current, state.fallback),
                    "{order:?}"
                );
                for good in [state.current, state.fallback] {
                    if !good.is_empty() {
                        let status = load.probe.call(good, "{}".into()).await;
                        assert_eq!(status, 200, "{good} of {state:?} after {bad:?}");
                    }
                }
                way.publish(&dir, state);
            }
        }
        assert!(steps >= 3 * BAD.len(), "{steps} steps");
        watch.abort();
        let calls = load.end().await;
        println!(
            "{way:?}: {} orders, {steps} steps, {calls} calls, 0 rejected",
            orders.len()
        );
    }
}

/// A connection to the server.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(server: SocketAddr) -> Self {
        let socket = TokioIo::new(TcpStream::connect(server).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn call(&mut self, signed_with: &str, body: String) -> StatusCode {
        let header = key(signed_with).sign(body.as_bytes(), NOW).to_string();
        let request = Request::post(CALL)
            .header("host", "localhost")
            .header(SIGNATURE_HEADER, header)
            .body(Full::new(Bytes::from(body)));
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request.unwrap()).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    }
}

/// Clients that call without a pause.
struct Load {
    /// Calls only when the test does.
    probe: Client,
    signs_with: Arc<RwLock<&'static str>>,
    calls: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(config: &Config) -> Self {
        let auth = InngestAuth::from_config(config).clock(TestClock::at(NOW));
        let app = Router::new()
            .fallback(|body: Bytes| async { body })
            .layer(auth);
        let server = common::serve(app).await;
        let signs_with = Arc::new(RwLock::new(OLD));
        let (calls, done) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let client = |client: usize| {
            let (signs_with, calls, done) = (
                Arc::clone(&signs_with),
                Arc::clone(&calls),
                Arc::clone(&done),
            );
            async move {
                let mut connection = Client::connect(server).await;
                let mut number = 0;
                while !done.load(Ordering::SeqCst) {
                    number += 1;
                    let body = format!("{{\"client\":{client},\"call\":{number}}}");
                    // Held until the response arrives: Inngest switches between calls.
                    let signs_with = signs_with.read().await;
                    let status = connection.call(&signs_with, body).await;
                    drop(signs_with);
                    assert_eq!(status, 200, "call {number} of client {client}");
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let clients = (0..CLIENTS).map(|at| tokio::spawn(client(at))).collect();
        Self {
            probe: Client::connect(server).await,
            signs_with,
            calls,
            done,
            clients,
        }
    }

    /// Waits, as long as all clients keep calling.
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            let stopped = self
                .clients
                .iter()
                .any(tokio::task::JoinHandle::is_finished);
            assert!(!stopped, "a call was rejected");
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) -> usize {
        self.done.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.calls.load(Ordering::SeqCst)
    }
}
