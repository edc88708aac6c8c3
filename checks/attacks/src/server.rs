//! The attacked server, in its own process: Axum with the layer on one route, over hyper-util's
//! server for HTTP/1 and HTTP/2, as in `axum::serve`.

use std::io::{Read, Write};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::routing::any;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::{InngestAuth, Keys, SigningKey, SystemClock};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tracing_subscriber::filter::LevelFilter as Level;

#[expect(dead_code, reason = "its `main` and handler are not used here")]
#[path = "../../../examples/bounded.rs"]
mod bounded;

/// The key that genuine calls are signed with. Attackers do not have it.
pub(crate) const KEY: &str =
    "signkey-test-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const FALLBACK: &str =
    "signkey-test-00000000000000000000000000000000000000000000000000000000000000aa";

/// How the servers of the attacks differ. Each field is one word on the command line.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) threads: usize,
    /// In bytes; 0 for the default.
    pub(crate) budget: usize,
    /// In bytes; 0 for the default.
    pub(crate) backlog: usize,
    /// In milliseconds; 0 for the default.
    pub(crate) deadline: u64,
    pub(crate) replay: bool,
    /// How many calls the handler accepts at once.
    pub(crate) permits: usize,
    /// How many milliseconds the handler sleeps.
    pub(crate) handler: u64,
    /// hyper's largest read buffer on HTTP/1, in bytes; 0 for the default.
    pub(crate) buffer: usize,
    /// Without warnings in the log, wrong signatures are not diagnosed either.
    pub(crate) warnings: bool,
    /// In milliseconds. If it is set, connections are served by the example `bounded`, which closes
    /// idle ones after this time, and has this many [`PLACES`].
    pub(crate) idle: u64,
}

/// How many connections the example `bounded` serves at a time.
pub(crate) const PLACES: usize = 40;

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 2,
            budget: 0,
            backlog: 0,
            deadline: 0,
            replay: false,
            permits: 1024,
            handler: 0,
            buffer: 0,
            warnings: true,
            idle: 0,
        }
    }
}

impl Options {
    pub(crate) fn to_words(self) -> Vec<String> {
        [
            self.threads.to_string(),
            self.budget.to_string(),
            self.backlog.to_string(),
            self.deadline.to_string(),
            u8::from(self.replay).to_string(),
            self.permits.to_string(),
            self.handler.to_string(),
            self.buffer.to_string(),
            u8::from(self.warnings).to_string(),
            self.idle.to_string(),
        ]
        .into()
    }

    fn from_words(words: &[String]) -> Self {
        let [
            threads,
            budget,
            backlog,
            deadline,
            replay,
            permits,
            handler,
            buffer,
            warnings,
            idle,
        ] = words
        else {
            panic!("the server takes ten words, not {words:?}");
        };
        let number = |word: &String| word.parse::<usize>().expect("a number");
        Self {
            threads: number(threads),
            budget: number(budget),
            backlog: number(backlog),
            deadline: number(deadline) as u64,
            replay: number(replay) == 1,
            permits: number(permits),
            handler: number(handler) as u64,
            buffer: number(buffer),
            warnings: number(warnings) == 1,
            idle: number(idle) as u64,
        }
    }
}

/// Serves until standard input ends, so that the server never outlives the attacker.
pub(crate) fn main(words: &[String]) {
    let options = Options::from_words(words);
    let level = if options.warnings {
        Level::INFO
    } else {
        Level::ERROR
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(options));
}

async fn serve(options: Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    std::io::stdout().flush().expect("the attacker reads");
    let app = app(options);
    if options.idle > 0 {
        let idle = Duration::from_millis(options.idle);
        bounded::serve(listener, app, PLACES, idle).await;
    }
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        socket.set_nodelay(true).expect("an option of the socket");
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            server.http2().timer(TokioTimer::new());
            if options.buffer > 0 {
                server.http1().max_buf_size(options.buffer);
            }
            // Attackers break connections, so errors are expected.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

fn app(options: Options) -> Router {
    let key = |text: &str| text.parse::<SigningKey>().expect("a key");
    let mut auth = InngestAuth::new(Keys::new(key(KEY), Some(key(FALLBACK))));
    if options.budget > 0 {
        auth = auth.body_budget(options.budget);
    }
    if options.backlog > 0 {
        auth = auth.verified_backlog(options.backlog);
    }
    if options.deadline > 0 {
        auth = auth.body_deadline(Duration::from_millis(options.deadline));
    }
    if options.replay {
        // Genuine calls begin as soon as the server has started.
        let store = MemoryReplayStore::new(1_000_000, &SystemClock);
        auth = auth.replay_guard(store.insecure_accept_signed_before_start(true));
    }
    // Responds with the length of the body, and the length that the headers declared.
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        if options.handler > 0 {
            tokio::time::sleep(Duration::from_millis(options.handler)).await;
        }
        let said = headers.get_all(CONTENT_LENGTH).iter();
        let said: Vec<_> = said
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        format!("{} {}", body.len(), said.join(" and "))
    };
    let stack = ServiceBuilder::new()
        .layer(auth)
        .layer(GlobalConcurrencyLimitLayer::new(options.permits));
    Router::new().route("/api/inngest", any(handler).layer(stack))
}
