//! The shared store, against real Redis servers: `REDIS_URL=… cargo test --features redis`.
//!
//! Without `REDIS_URL` these tests print that they are skipped. Most start their own servers, from
//! `redis-server` in the path.
#![cfg(feature = "redis")]

mod common;
#[path = "common/redis.rs"]
mod redis;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{CALL, NOW, Seen, ask, inngest};
use inngest_auth::replay::{Recorded, RedisReplayStore, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::{InngestAuth, Rejection, RejectionKind, SignResponses};
use redis::{Redis, free, wanted};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tracing::subscriber::DefaultGuard;

/// Returns a store with a long timeout, because these tests share their machine with others.
fn store(url: &str) -> RedisReplayStore {
    RedisReplayStore::new(url)
        .unwrap()
        .timeout(Duration::from_secs(10))
}

fn impatient(url: &str) -> RedisReplayStore {
    RedisReplayStore::new(url).unwrap()
}

fn sighting(number: u64) -> Sighting {
    until(number, NOW + 360)
}

fn until(number: u64, until: u64) -> Sighting {
    let mut mac = [7; 32];
    mac[..8].copy_from_slice(&number.to_be_bytes());
    Sighting::new(mac, NOW, until, NOW)
}

/// Asks until the result is as expected. The store reconnects at its own rate.
async fn asked_until(
    store: &RedisReplayStore,
    number: u64,
    is_so: impl Fn(&Result<Recorded, ReplayStoreError>) -> bool,
) -> Result<Recorded, ReplayStoreError> {
    let began = Instant::now();
    loop {
        let recorded = store.record(sighting(number)).await;
        if is_so(&recorded) {
            return recorded;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{recorded:?}");
        tokio::task::yield_now().await;
    }
}

fn guarded(auth: InngestAuth, store: RedisReplayStore) -> InngestAuth {
    auth.sign_responses(SignResponses::Never)
        .replay_guard(store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_tasks_with_one_mac_exactly_one_is_fresh() {
    if !wanted("of_64_tasks_with_one_mac_exactly_one_is_fresh") {
        return;
    }
    let server = Redis::start(&[]);
    // Two instances, each with its own connection.
    let stores = [
        Arc::new(store(&server.url())),
        Arc::new(store(&server.url())),
    ];
    for round in 0..200 {
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let store = Arc::clone(&stores[task % 2]);
                tokio::spawn(async move { store.record(sighting(round)).await })
            })
            .collect();
        let mut fresh = 0;
        for task in tasks {
            fresh += usize::from(task.await.unwrap().unwrap() == Recorded::Fresh);
        }
        assert_eq!(fresh, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_call_replayed_to_another_instance_is_rejected() {
    if !wanted("a_call_replayed_to_another_instance_is_rejected") {
        return;
    }
    let server = Redis::start(&[]);
    let it = inngest();
    let seen = Seen::default();
    let instances = [(); 2].map(|()| seen.app(guarded(it.auth(), store(&server.url()))));
    assert_eq!(ask(&instances[0], it.call(CALL, "{}")).await.status, 200);
    for instance in &instances {
        let response = ask(instance, it.call(CALL, "{}")).await;
        assert_eq!(
            response.extensions.get::<Rejection>().unwrap().kind(),
            RejectionKind::Replayed
        );
    }
    assert_eq!(seen.count(), 1);
}

#[tokio::test]
async fn an_entry_lives_to_the_last_second_of_its_window_and_a_closed_window_makes_none() {
    if !wanted("an_entry_lives_to_the_last_second_of_its_window_and_a_closed_window_makes_none") {
        return;
    }
    let server = Redis::start(&[]);
    let store = store(&server.url()).namespace("ns");
    for (number, ends, recorded, lives) in [
        (1, NOW + 360, Recorded::Fresh, 360_000..=361_000),
        (2, NOW, Recorded::Fresh, 1..=1000),
        // Redis reports a missing key as -2.
        (3, NOW - 1, Recorded::Seen, -2..=-2),
        (4, NOW - 100, Recorded::Seen, -2..=-2),
    ] {
        let sighting = until(number, ends);
        assert_eq!(store.record(sighting).await.unwrap(), recorded);
        let key = format!("ns:{}", hex::encode(sighting.mac));
        let left = server.say(&["PTTL", &key]);
        let left: i64 = left.trim_start_matches(':').trim_end().parse().unwrap();
        assert!(lives.contains(&left), "{left} ms until {ends}");
    }
}

/// The error contains the server's code and what to do, but no secret.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn an_error_keeps_the_servers_code_and_no_secret() {
    if !wanted("an_error_keeps_the_servers_code_and_no_secret") {
        return;
    }
    let open = Redis::start(&[]);
    let closed = Redis::start(&["--requirepass", "s3cret"]);
    let full = Redis::start(&["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]);
    full.say(&["SET", "other", &"x".repeat(60_000)]);
    full.say(&["CONFIG", "SET", "maxmemory", "100"]);
    let alone = Redis::start(&["--min-replicas-to-write", "1"]);
    let cluster = Redis::start(&["--cluster-enabled", "yes"]);
    let node = Redis::start(&["--cluster-enabled", "yes"]);
    // All slots exist, but none on this node.
    node.say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let moved = Redis::start(&[
        "--cluster-enabled",
        "yes",
        "--cluster-require-full-coverage",
        "no",
    ]);
    let [host, port] = [
        node.address.ip().to_string(),
        node.address.port().to_string(),
    ];
    moved.say(&["CLUSTER", "MEET", &host, &port]);
    moved.wait("the nodes do not meet", |moved| {
        moved.say(&["SET", "key", ""]).starts_with("-MOVED")
    });
    open.say(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">s3cret",
        "~*",
        "+get",
        "+config|get",
    ]);
    let reader = format!("redis://reader:s3cret@{}", open.address);
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger_url = format!("redis://:s3cret@{}", stranger.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in stranger.incoming() {
            io::Write::write_all(&mut socket.unwrap(), b"HTTP/1.1 400 s3cret\r\n\r\n").unwrap();
        }
    });
    let with = |server: &Redis, login: &str, path: &str| {
        format!("redis://{login}@{}{path}", server.address)
    };
    for (url, code, says) in [
        (
            full.url(),
            Some("OOM"),
            "SET with an error: OOM (out of memory",
        ),
        (
            closed.url(),
            Some("NOAUTH"),
            "CONFIG with an error: NOAUTH (authentication required",
        ),
        (
            with(&closed, ":s3cret2", ""),
            Some("WRONGPASS"),
            "AUTH with an error: WRONGPASS (wrong user",
        ),
        (
            with(&closed, "us3r:s3cret", ""),
            Some("WRONGPASS"),
            "AUTH with an error: WRONGPASS",
        ),
        (
            with(&open, ":s3cret", ""),
            Some("ERR"),
            "AUTH with an error: ERR (the server expects no password",
        ),
        (
            with(&closed, ":s3cret", "/99"),
            Some("ERR"),
            "SELECT with an error: ERR (no such database",
        ),
        (
            reader,
            Some("NOPERM"),
            "SET with an error: NOPERM (permission denied",
        ),
        (
            alone.url(),
            Some("NOREPLICAS"),
            "SET with an error: NOREPLICAS (too few replicas",
        ),
        (
            cluster.url(),
            Some("CLUSTERDOWN"),
            "SET with an error: CLUSTERDOWN (a Redis Cluster",
        ),
        (
            moved.url(),
            Some("MOVED"),
            "SET with an error: MOVED (a Redis Cluster",
        ),
        (
            format!("redis://:s3cret@{}", free()),
            None,
            "unavailable: connection refused",
        ),
        (stranger_url, None, "unavailable: "),
    ] {
        let error = store(&url).record(sighting(1)).await.unwrap_err();
        let text = error.to_string();
        println!("{text}");
        assert_eq!(error.code(), code, "{text}");
        assert!(text.contains(says), "{says}: {text}");
        let debug = format!("{error:?} {:?}", store(&url));
        for secret in ["s3cret", "us3r", "127.0.0.1"] {
            assert!(
                !text.contains(secret) && !debug.contains(secret),
                "{text} {debug}"
            );
        }
    }
}

#[tokio::test]
async fn a_password_is_sent_as_intended() {
    if !wanted("a_password_is_sent_as_intended") {
        return;
    }
    for (password, written) in [
        ("p@ss", "p@ss"),
        ("p@ss", "p%40ss"),
        ("a#b/c?d%e:f", "a%23b%2Fc%3Fd%25e:f"),
        ("b\u{e4}r", "b%C3%A4r"),
    ] {
        let server = Redis::start(&["--requirepass", password]);
        let store = store(&format!("redis://:{written}@{}/3", server.address));
        assert_eq!(
            store.record(sighting(1)).await,
            Ok(Recorded::Fresh),
            "{written}"
        );
        assert_eq!(
            store.record(sighting(1)).await,
            Ok(Recorded::Seen),
            "{written}"
        );
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Records everything that this thread logs from now on.
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn a_server_that_may_remove_our_keys_is_an_error_in_the_log_once() {
    if !wanted("a_server_that_may_remove_our_keys_is_an_error_in_the_log_once") {
        return;
    }
    let (log, _guard) = Log::begin();
    for policy in [
        "allkeys-lru",
        "allkeys-random",
        "volatile-ttl",
        "volatile-lfu",
        "noeviction",
    ] {
        let server = Redis::start(&["--maxmemory", "8mb", "--maxmemory-policy", policy]);
        let store = store(&server.url());
        assert_eq!(store.record(sighting(1)).await, Ok(Recorded::Fresh));
        let said = log.take();
        print!("{said}");
        let evicts = policy != "noeviction";
        assert_eq!(said.contains("ERROR"), evicts, "{said}");
        assert!(
            !evicts || said.contains(policy) && said.contains("set maxmemory-policy to noeviction")
        );
        assert_eq!(said.lines().count(), usize::from(evicts));
        // Reconnected to the same server, so there is nothing new to log.
        server.say(&["CLIENT", "KILL", "TYPE", "normal"]);
        asked_until(&store, 2, Result::is_ok).await.unwrap();
        assert_eq!(log.take(), "");
        // To a server whose setting has changed.
        server.say(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
        server.say(&["CLIENT", "KILL", "TYPE", "normal"]);
        asked_until(&store, 3, Result::is_ok).await.unwrap();
        assert!(log.take().contains("volatile-lru"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_reveal_its_policy_is_a_warning_and_works() {
    if !wanted("a_server_that_does_not_reveal_its_policy_is_a_warning_and_works") {
        return;
    }
    let (log, _guard) = Log::begin();
    let renamed = Redis::start(&["--rename-command", "CONFIG", ""]);
    let forbidden = Redis::start(&[]);
    forbidden.say(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">s3cret",
        "~inngest-auth:*",
        "+set",
    ]);
    for (url, response) in [
        (renamed.url(), "ERR"),
        (
            format!("redis://app:s3cret@{}", forbidden.address),
            "NOPERM",
        ),
    ] {
        let store = store(&url);
        assert_eq!(store.record(sighting(1)).await, Ok(Recorded::Fresh));
        assert_eq!(store.record(sighting(1)).await, Ok(Recorded::Seen));
        let said = log.take();
        print!("{said}");
        assert!(
            said.contains("WARN") && said.contains("make sure that it is noeviction"),
            "{said}"
        );
        assert!(said.contains(&format!("response=\"{response}\"")), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
}

/// A server that evicts keys accepts replays. One that does not evict reports that it is out of
/// memory.
#[tokio::test]
async fn out_of_memory_nothing_is_accepted_twice_unless_keys_are_removed() {
    const CALLS: u64 = 10_000;
    if !wanted("out_of_memory_nothing_is_accepted_twice_unless_keys_are_removed") {
        return;
    }
    for policy in ["noeviction", "allkeys-lru"] {
        let server = Redis::start(&["--maxmemory", "2mb", "--maxmemory-policy", policy]);
        let store = Arc::new(store(&server.url()));
        let (mut accepted, mut twice, mut full) = (HashSet::new(), 0, 0);
        for call in (0..CALLS).chain(0..CALLS).collect::<Vec<_>>().chunks(100) {
            let batch: Vec<_> = call
                .iter()
                .map(|&call| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { (call, store.record(sighting(call)).await) })
                })
                .collect();
            for recorded in batch {
                match recorded.await.unwrap() {
                    (call, Ok(Recorded::Fresh)) => twice += u32::from(!accepted.insert(call)),
                    (_, Err(error)) if error.code() == Some("OOM") => full += 1,
                    (_, recorded) => assert_eq!(recorded, Ok(Recorded::Seen)),
                }
            }
        }
        let once = accepted.len();
        println!(
            "{policy}: {once} of {CALLS} calls accepted, {twice} of them twice, {full} times OOM"
        );
        if policy == "noeviction" {
            assert!(twice == 0 && full > 0);
        } else {
            assert!(once as u64 == CALLS && twice > 0, "it evicts");
        }
    }
}

/// A name that resolves to one server after another, as in DNS or a proxy. It counts connections.
struct Name {
    address: SocketAddr,
    leads_to: Arc<Mutex<SocketAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Name {
    async fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = Self {
            address: listener.local_addr().unwrap(),
            leads_to: Arc::new(Mutex::new(server)),
            asked: Arc::default(),
        };
        let (leads_to, asked) = (Arc::clone(&name.leads_to), Arc::clone(&name.asked));
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let server = *leads_to.lock().unwrap();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        name
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn now_leads_to(&self, server: &Redis) {
        *self.leads_to.lock().unwrap() = server.address;
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn becomes_replica(server: &Redis, of: &Redis) {
    let [host, port] = [of.address.ip().to_string(), of.address.port().to_string()];
    assert_eq!(server.say(&["REPLICAOF", &host, &port]), "+OK\r\n");
}

#[tokio::test]
async fn after_a_failover_the_store_leaves_the_replica_at_a_limited_rate() {
    if !wanted("after_a_failover_the_store_leaves_the_replica_at_a_limited_rate") {
        return;
    }
    let [old, new] = [Redis::start(&[]), Redis::start(&[])];
    becomes_replica(&new, &old);
    new.wait("it does not follow", |new| {
        new.say(&["INFO", "replication"]).contains("link_status:up")
    });
    let name = Name::of(old.address).await;
    let store = store(&name.url());
    assert_eq!(store.record(sighting(1)).await, Ok(Recorded::Fresh));
    new.wait("no replication", |new| new.say(&["DBSIZE"]) == ":1\r\n");

    // The roles change, and the name still resolves to the old primary for a while.
    new.say(&["REPLICAOF", "NO", "ONE"]);
    becomes_replica(&old, &new);
    let began = Instant::now();
    for number in 0..2000 {
        let error = store.record(sighting(100 + number)).await.unwrap_err();
        assert_eq!(error.code(), Some("READONLY"), "{error}");
    }
    // The first connection, the one that follows at once, and then one a second.
    let most = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(
        (2..=most).contains(&name.asked()),
        "{} connections",
        name.asked()
    );

    name.now_leads_to(&new);
    asked_until(&store, 2, Result::is_ok).await.unwrap();
    assert_eq!(
        store.record(sighting(1)).await,
        Ok(Recorded::Seen),
        "before the failover"
    );
    assert_eq!(
        store.record(sighting(2)).await,
        Ok(Recorded::Seen),
        "after it"
    );
    // And back: a connection that has worked is replaced at once, within the call.
    becomes_replica(&new, &old);
    old.say(&["REPLICAOF", "NO", "ONE"]);
    name.now_leads_to(&old);
    assert_eq!(store.record(sighting(3)).await, Ok(Recorded::Fresh));
}

#[tokio::test]
async fn the_store_leaves_a_server_that_is_loading_or_has_lost_its_primary() {
    if !wanted("the_store_leaves_a_server_that_is_loading_or_has_lost_its_primary") {
        return;
    }
    // A replica that accepts writes, but whose primary is missing.
    let orphan = Redis::start(&[
        "--replica-serve-stale-data",
        "no",
        "--replica-read-only",
        "no",
    ]);
    let port = free().port().to_string();
    assert_eq!(orphan.say(&["REPLICAOF", "127.0.0.1", &port]), "+OK\r\n");
    // A server that is slow to load its data.
    let address = free();
    let kept = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--aof-use-rdb-preamble",
        "yes",
    ];
    let server = Redis::start_at(address, &kept);
    for key in 0..3000 {
        server.say(&["SET", &format!("key{key}"), "value"]);
    }
    server.say(&["BGREWRITEAOF"]);
    server.wait("no rewrite", |server| {
        server
            .say(&["INFO", "persistence"])
            .contains("aof_last_bgrewrite_status:ok")
            && server
                .say(&["INFO", "persistence"])
                .contains("aof_rewrite_in_progress:0")
            && server
                .say(&["INFO", "persistence"])
                .contains("aof_rewrites:1")
    });
    server.kill();
    // 3000 keys at half a millisecond each. The server checks for clients after each kilobyte.
    let slowly = [
        "--key-load-delay",
        "500",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let loading = Redis::start_at(address, &[&kept[..], &slowly].concat());
    let up = Redis::start(&[]);
    for (server, code) in [(&orphan, "MASTERDOWN"), (&loading, "LOADING")] {
        let name = Name::of(server.address).await;
        let store = store(&name.url());
        let refused = store.record(sighting(1)).await.unwrap_err();
        assert_eq!(refused.code(), Some(code), "{refused}");
        name.now_leads_to(&up);
        up.say(&["FLUSHALL"]);
        assert_eq!(
            asked_until(&store, 1, Result::is_ok).await,
            Ok(Recorded::Fresh)
        );
        assert_eq!(name.asked(), 2);
    }
}

#[tokio::test]
async fn a_server_that_does_not_respond_is_left() {
    if !wanted("a_server_that_does_not_respond_is_left") {
        return;
    }
    let [hung, up] = [Redis::start(&[]), Redis::start(&[])];
    let name = Name::of(hung.address).await;
    let store = impatient(&name.url());
    asked_until(&store, 1, Result::is_ok).await.unwrap();
    hung.say(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let error = store.record(sighting(2)).await.unwrap_err();
    assert!(
        error.to_string().ends_with("no response within 250ms"),
        "{error}"
    );
    // A new connection reaches another server at once, because this one had worked.
    name.now_leads_to(&up);
    let patient = store.clone().timeout(Duration::from_secs(10));
    assert_eq!(patient.record(sighting(2)).await, Ok(Recorded::Fresh));
    // Also a server that never accepts connections.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = impatient(&format!("redis://{}", deaf.local_addr().unwrap()));
    let error = store.record(sighting(2)).await.unwrap_err();
    assert!(
        error.to_string().ends_with("no connection within 250ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_the_server_closed_costs_no_call() {
    if !wanted("a_connection_that_the_server_closed_costs_no_call") {
        return;
    }
    let server = Redis::start(&[]);
    let store = store(&server.url());
    for number in 0..20 {
        assert_eq!(store.record(sighting(number)).await, Ok(Recorded::Fresh));
        server.say(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
}

#[test]
fn a_handle_works_in_any_runtime_after_another_has_ended_or_stopped() {
    if !wanted("a_handle_works_in_any_runtime_after_another_has_ended_or_stopped") {
        return;
    }
    let server = Redis::start(&[]);
    let store = store(&server.url());
    let impatient = store.clone().timeout(Duration::from_millis(100));
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let record = |runtime: &tokio::runtime::Runtime, number| {
        runtime.block_on(store.record(sighting(number)))
    };
    for number in 0..10 {
        // Its runtime ends with it.
        assert_eq!(record(&runtime(), number), Ok(Recorded::Fresh), "{number}");
    }
    let [one, other] = [runtime(), runtime()];
    assert_eq!(record(&one, 10), Ok(Recorded::Fresh));
    // Nothing drives `one`, which holds the connection. The timeout detects that.
    assert!(other.block_on(impatient.record(sighting(11))).is_err());
    assert_eq!(record(&other, 12), Ok(Recorded::Fresh));
    // A runtime that ends while it connects, before and after the connection has begun.
    for polls in 0..3 {
        let store = self::store(&server.url());
        let ending = runtime();
        ending.block_on(async {
            let recording = store.record(sighting(20 + polls));
            tokio::pin!(recording);
            for _ in 0..polls {
                let _ = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(std::future::Future::poll(recording.as_mut(), cx))
                })
                .await;
            }
        });
        drop(ending);
        assert!(
            runtime()
                .block_on(store.record(sighting(30 + polls)))
                .is_ok(),
            "{polls}"
        );
    }
}

/// The server's certificate authority belongs to the test. Trusting it takes another environment,
/// so the test runs itself again.
#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn tls_trusts_what_the_system_trusts() {
    use std::process::{Command, Stdio};

    if let Ok(url) = std::env::var("TEST_TLS_URL") {
        assert_eq!(store(&url).record(sighting(2)).await, Ok(Recorded::Fresh));
        return;
    }
    if !wanted("tls_trusts_what_the_system_trusts") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("inngest-auth-tls-{}", free().port()));
    std::fs::create_dir_all(&folder).unwrap();
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.join(name));
    let [key, certificate] = [&key, &certificate].map(|path| path.to_str().unwrap());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=CA:FALSE",
        ])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is in the path").success());
    let tls = free().port().to_string();
    let settings = [
        "--tls-port",
        &tls,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        certificate,
    ];
    let others = ["--tls-key-file", key, "--tls-ca-cert-file", certificate];
    let server = Redis::start(&[&settings[..], &others].concat());
    let url = format!("rediss://localhost:{tls}");
    let error = store(&url).record(sighting(1)).await.unwrap_err();
    assert!(
        error.to_string().contains("TLS certificate not accepted"),
        "{error}"
    );
    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls_trusts_what_the_system_trusts"])
        .env("SSL_CERT_FILE", certificate)
        .env("TEST_TLS_URL", &url)
        .status();
    assert!(trusting.unwrap().success());
    assert_eq!(server.say(&["DBSIZE"]), ":1\r\n");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_killed_redis_causes_503_until_it_is_back_and_nothing_is_accepted_twice() {
    if !wanted("a_killed_redis_causes_503_until_it_is_back_and_nothing_is_accepted_twice") {
        return;
    }
    // The server writes each entry to disk before it confirms it, so that a kill loses none.
    let kept = ["--appendonly", "yes", "--appendfsync", "always"];
    let address = free();
    let it = inngest();
    let seen = Seen::default();
    // Created before there is a server; it connects on first use.
    let app = seen.app(guarded(it.auth(), store(&format!("redis://{address}"))));
    let mut number = 0;
    let mut accepted = Vec::new();
    let mut call = async || {
        number += 1;
        let response = ask(&app, it.call(CALL, format!("{{\"call\":{number}}}"))).await;
        if response.status == 200 {
            accepted.push(number);
        }
        (
            response.status.as_u16(),
            response.header("retry-after").is_some(),
        )
    };
    assert_eq!(call().await, (503, false), "not there yet");

    for calls in [50, 10] {
        let server = Redis::start_at(address, &kept);
        let began = Instant::now();
        while call().await.0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(20), "no recovery");
        }
        for _ in 0..calls {
            assert_eq!(call().await, (200, false));
        }
        server.kill();
        for _ in 0..10 {
            assert_eq!(call().await, (503, false));
        }
    }
    // All data is there again.
    let _server = Redis::start_at(address, &kept);
    let began = Instant::now();
    while call().await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "no recovery");
    }
    assert_eq!(seen.count(), 63);
    for number in accepted {
        let again = ask(&app, it.call(CALL, format!("{{\"call\":{number}}}"))).await;
        assert_eq!(again.status, 401, "{number}");
    }
    assert_eq!(seen.count(), 63);
}
