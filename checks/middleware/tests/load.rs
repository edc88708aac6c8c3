//! Many clients at once, over real sockets: what they can make the server hold, and that genuine
//! calls continue meanwhile.
//!
//! Memory is counted by the allocator. The clients' side counts too, but holds next to nothing:
//! plain sockets, and bytes that existed before. There is a single test, so that nothing else
//! allocates.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use axum::{Router, routing::any};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use inngest_auth::{InngestAuth, KeyRing, SIGNATURE_HEADER, SignResponses, Verified};
use peak_alloc::PeakAlloc;
use testkit::server::{Count, Server, head, in_time, status_in};
use testkit::{CALL, NOW, inngest, key};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tower::limit::ConcurrencyLimitLayer;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What may be held in any case: by genuine calls, the buffers of one connection, and the runtime.
const FIXED: usize = MIB;

/// Connections that are not accepted yet. If there are more than the system queues, a connection
/// waits for seconds.
const BACKLOG: usize = 250;

/// The most that clients without a key send of their bodies.
static DATA: [u8; 64 * KIB] = [b'x'; 64 * KIB];

/// Memory above the initial level.
struct Memory(usize);

impl Memory {
    /// Starts measuring when no client is connected.
    async fn of_idle(server: &Server) -> Self {
        server.until("idle", |count| count.open == 0).await;
        MEMORY.reset_peak_usage();
        Self(MEMORY.current_usage())
    }

    /// Returns the peak since then.
    fn peak(&self) -> usize {
        MEMORY.peak_usage().saturating_sub(self.0)
    }

    fn held(&self) -> usize {
        MEMORY.current_usage().saturating_sub(self.0)
    }
}

/// Returns a fresh signature of another body.
fn forged() -> String {
    key("signkey-test-00")
        .sign(b"something else", NOW)
        .to_string()
}

/// Runs for Inngest only.
fn app(auth: InngestAuth) -> Router {
    let handler = any(|_: Verified, body: Bytes| async { body });
    Router::new()
        .fallback_service(handler)
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(auth.sign_responses(SignResponses::All))
}

/// Checks that a call signed with the current key is verified, and that its response is signed with
/// the same key.
async fn genuine_call(server: &Server, body: Bytes) {
    let it = inngest();
    let request = it
        .call(CALL, body.clone())
        .map(|_| Full::from(body.clone()));
    let response = in_time("a genuine call", server.send(request)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let expected = key("signkey-test-12345678").sign(&body, NOW).to_string();
    assert_eq!(response.headers()[SIGNATURE_HEADER], *expected);
    assert_eq!(*response.body(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_follows_what_arrives_and_genuine_calls_continue() {
    five_thousand_dribbling_clients_while_keys_are_swapped().await;
    sixty_four_mebibytes().await;
    two_hundred_streams_of_one_connection().await;
}

/// Returns how many of the wanted connections the limit of open files allows, with two ends each.
fn connections(wanted: usize) -> usize {
    let others = 200;
    let files = rlimit::increase_nofile_limit((2 * wanted + others) as u64).unwrap();
    let allowed = usize::try_from(files).unwrap().saturating_sub(others) / 2;
    if allowed < wanted {
        println!("{allowed} connections and not {wanted}: the limit of open files is {files}");
    }
    allowed.min(wanted)
}

/// Sends these bytes to each socket.
async fn to_each(sockets: Vec<TcpStream>, bytes: &'static [u8]) -> Vec<TcpStream> {
    spawn_blocking(move || {
        for mut socket in &sockets {
            socket.write_all(bytes).unwrap();
        }
        sockets
    })
    .await
    .unwrap()
}

/// Opens connections, each with a head that announces a body of this many bytes.
async fn connect_unverified(server: &Server, many: usize, announced: usize) -> Vec<TcpStream> {
    let length = announced.to_string();
    let headers = [(SIGNATURE_HEADER, &*forged()), ("Content-Length", &length)];
    let head = head("POST", CALL, &headers);
    let (address, before) = (server.address, server.now().accepted);
    let mut sockets = Vec::with_capacity(many);
    while sockets.len() < many {
        let head = head.clone();
        let connecting = spawn_blocking(move || {
            for _ in 0..BACKLOG.min(many - sockets.len()) {
                let mut socket = TcpStream::connect(address).unwrap();
                socket.set_nodelay(true).unwrap();
                socket.write_all(&head).unwrap();
                sockets.push(socket);
            }
            sockets
        });
        sockets = connecting.await.unwrap();
        let connected = before + sockets.len();
        server
            .until("connections", |count| count.accepted >= connected)
            .await;
    }
    sockets
}

/// Swaps in other keys, as fast as bytes arrive. The current key is always one of the two.
fn swap_keys(server: &Server, ring: KeyRing) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    /// In bytes.
    const PACE: usize = 16 * KIB;
    let swaps = Arc::new(AtomicUsize::new(0));
    let (count, mut now) = (Arc::clone(&swaps), server.changes());
    let stays = key("signkey-test-12345678");
    let swapping = async move {
        let mut next = 0;
        while let Ok(received) = now
            .wait_for(|now| now.received >= next)
            .await
            .map(|now| now.received)
        {
            next = received + PACE;
            let at = count.fetch_add(1, Ordering::SeqCst);
            let other = key(&format!("signkey-test-{at:08x}"));
            match at % 5 {
                0 => ring.rotate(other),
                1 => ring.rotate(stays.clone()),
                2 => ring.retire_fallback(),
                3 => ring.replace((other, Some(stays.clone()))),
                _ => ring.replace(stays.clone()),
            }
        }
    };
    (tokio::spawn(swapping), swaps)
}

async fn five_thousand_dribbling_clients_while_keys_are_swapped() {
    /// The memory of one connection before its body: mostly hyper's buffers and tasks, with or
    /// without the layer.
    const CONNECTION: usize = 32 * KIB;
    /// The smallest piece of memory that small frames are copied into.
    const PIECE: usize = KIB;
    /// What the budget stores about a body that waits for its client.
    const NOTE: usize = 256;
    /// Together less than hyper reads into its first buffer, so that only what the layer keeps is
    /// added.
    const DRIBBLES: [usize; 5] = [1, 7, 1000, 1460, 4000];

    let auth = inngest().auth().body_deadline(Duration::from_secs(500));
    let ring = auth.keys().unwrap().clone();
    let server = Server::start(app(auth)).await;
    genuine_call(&server, "{}".into()).await;
    let many = connections(5000);

    let memory = Memory::of_idle(&server).await;
    let (swapping, swaps) = swap_keys(&server, ring);
    // They announce much more than they ever send.
    let mut sockets = connect_unverified(&server, many, 4 * MIB).await;
    server.until("heads", |count| count.waiting == many).await;
    let connected = memory.held();
    let allowed = many * CONNECTION + FIXED;
    assert!(
        connected <= allowed,
        "{connected} bytes for {many} connections"
    );
    let mut sent = 0;
    for len in DRIBBLES {
        let writing = tokio::spawn(to_each(sockets, &DATA[..len]));
        while !writing.is_finished() {
            genuine_call(&server, "{\"while\":\"they write\"}".into()).await;
        }
        sockets = writing.await.unwrap();
        sent += len;
        let arrived = |count: &Count| (count.waiting, count.in_hand) == (many, many * sent);
        server.until("dribbles", arrived).await;
        genuine_call(&server, "{\"while\":\"they wait\"}".into()).await;
        let added = memory.peak() - connected;
        let allowed = many * (NOTE + PIECE + 2 * sent) + FIXED;
        assert!(
            added <= allowed,
            "{added} bytes were added for {many} times {sent}"
        );
    }
    let swaps = swaps.load(Ordering::SeqCst);
    assert!(swaps > many / 10, "{swaps} swaps");
    swapping.abort();

    drop(sockets);
    server.until("all are gone", |count| count.open == 0).await;
    assert!(memory.held() <= FIXED, "{} bytes are left", memory.held());
    genuine_call(&server, "{}".into()).await;
}

async fn sixty_four_mebibytes() {
    const LIMIT: usize = MIB;
    let auth = inngest()
        .auth()
        .body_limit(LIMIT)
        .body_budget(LIMIT + 64 * KIB);
    let server = Server::start(app(auth)).await;
    let forged = forged();
    let announced = (64 * MIB).to_string();
    let length = ("Content-Length", &*announced);
    let chunked = ("Transfer-Encoding", "chunked");
    let signed = (SIGNATURE_HEADER, &*forged);
    for (what, headers, status, may_read, may_hold) in [
        ("announced", &[length, signed][..], 413, 0, 0),
        ("not announced", &[chunked, signed], 413, LIMIT, 2 * LIMIT),
        ("announced, unsigned", &[length], 401, 0, 0),
        ("not announced, unsigned", &[chunked], 401, LIMIT, 0),
    ] {
        let head = head("POST", CALL, headers);
        let (before, address) = (server.now().received, server.address);
        let framing: [&[u8]; 2] = if headers[0] == chunked {
            [b"10000\r\n", b"\r\n"]
        } else {
            [b"", b""]
        };
        let memory = Memory::of_idle(&server).await;
        let sending = spawn_blocking(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.write_all(&head).unwrap();
            let mut pieces =
                (0..64 * MIB / DATA.len()).flat_map(|_| [framing[0], &DATA, framing[1]]);
            let closed = pieces.any(|bytes| socket.write_all(bytes).is_err());
            let mut response = [0; 12];
            let said = socket
                .read_exact(&mut response)
                .ok()
                .and_then(|()| status_in(&response));
            (closed, said)
        });
        let (closed, said) = in_time(what, sending).await.unwrap();
        // A client that does not read while it writes may only see that the connection is closed.
        assert!(
            said.map_or(closed, |said| said == status),
            "{what}: {said:?}"
        );
        let now = server.until(what, |count| count.open == 0).await;
        let read = now.received - before;
        assert!(read <= may_read + MIB, "{what}: {read} bytes were read");
        assert!(
            memory.peak() <= may_hold + FIXED,
            "{what}: {} bytes were held",
            memory.peak()
        );
        genuine_call(&server, Bytes::from(vec![b'g'; LIMIT])).await;
    }
}

async fn two_hundred_streams_of_one_connection() {
    const STREAMS: usize = 200;
    const EACH: usize = 2 * DATA.len();
    /// No number of these bodies fills it to the last byte, and the rest is for others.
    const BUDGET: usize = 32 * EACH + 32 * KIB;
    /// The memory of one stream, at both ends, whatever it sends.
    const STREAM: usize = 8 * KIB;
    /// What HTTP/2 lets a connection send before it is read: hyper's default.
    const WINDOW: usize = MIB;
    let server = Server::start(app(inngest().auth().body_budget(BUDGET))).await;
    genuine_call(&server, "{}".into()).await;

    let memory = Memory::of_idle(&server).await;
    let before = server.now().dropped;
    let socket = TokioIo::new(
        tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap(),
    );
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), socket)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut responses: JoinSet<Response<hyper::body::Incoming>> = JoinSet::new();
    let mut unfinished = Vec::with_capacity(STREAMS);
    let uri = format!("http://{}{CALL}", server.address);
    for _ in 0..STREAMS {
        let (mut sends, body) = Channel::<Bytes>::new(2);
        for _ in 0..EACH / DATA.len() {
            sends.send_data(Bytes::from_static(&DATA)).await.unwrap();
        }
        unfinished.push(sends);
        let request = Request::post(&uri)
            .header(SIGNATURE_HEADER, forged())
            .body(Body::new(body));
        client.ready().await.unwrap();
        let response = client.send_request(request.unwrap());
        responses.spawn(async { response.await.unwrap() });
    }
    // Each body is held as a whole, or was rejected and its client given up.
    let settled = |now: &Count| {
        let rejected = now.dropped - before;
        now.waiting + rejected == STREAMS
            && now.in_hand == now.waiting * EACH
            && now.in_hand <= BUDGET
    };
    let held = server.until("streams", settled).await.waiting;
    assert!(held > 0, "no body is held");
    let allowed = BUDGET + WINDOW + STREAMS * STREAM + FIXED;
    assert!(
        memory.peak() <= allowed,
        "{} bytes, and {allowed} are allowed",
        memory.peak()
    );
    for _ in 0..20 {
        genuine_call(&server, "{\"on\":\"another connection\"}".into()).await;
    }
    let genuine = inngest().call(&uri, "{\"on\":\"the same connection\"}");
    assert_eq!(
        client.send_request(genuine).await.unwrap().status(),
        StatusCode::OK
    );

    drop(unfinished);
    let mut rejected = [0, 0];
    while let Some(response) = in_time("responses", responses.join_next()).await {
        let response = response.unwrap();
        match response.status() {
            StatusCode::UNAUTHORIZED => rejected[0] += 1,
            StatusCode::SERVICE_UNAVAILABLE if !response.headers().contains_key("retry-after") => {
                rejected[1] += 1;
            }
            status => panic!("{status}"),
        }
        drop(response.into_body().collect().await);
    }
    // One of those held may already have been rejected, and be waiting to be given up.
    assert!(
        (1..=held).contains(&rejected[0]),
        "{rejected:?}, and {held} were held"
    );
    assert_eq!(rejected[0] + rejected[1], STREAMS);
    // A body that needs nearly the whole budget.
    genuine_call(&server, Bytes::from(vec![b'g'; BUDGET - 64 * KIB])).await;
}
