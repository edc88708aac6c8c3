//! The shared store, against a real Redis: `REDIS_URL=redis://127.0.0.1:6379 cargo test --features redis`.
//!
//! Without `REDIS_URL` these tests say that they are skipped. The one that kills its server starts one of its own, from
//! `redis-server` in the path.
#![cfg(feature = "redis")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{CALL, NOW, Seen, ask, inngest};
use inngest_auth::replay::{Recorded, RedisReplayStore, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::{Rejection, RejectionKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A URL, or the word that the test is skipped.
fn redis_url(test: &str) -> Option<String> {
    let url = std::env::var("REDIS_URL").ok();
    if url.is_none() {
        eprintln!("{test}: skipped, REDIS_URL is not set");
    }
    url
}

/// Keys that no other run has.
fn store(url: &str, test: &str) -> RedisReplayStore {
    let run = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    RedisReplayStore::new(url)
        .unwrap()
        .namespace(&format!("inngest-auth-test-{test}-{run}"))
}

fn sighting(number: u16, until: u64) -> Sighting {
    let mut mac = [7; 32];
    mac[..2].copy_from_slice(&number.to_be_bytes());
    Sighting::new(mac, NOW, until, NOW)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_tasks_with_one_mac_exactly_one_is_fresh() {
    let Some(url) = redis_url("of_64_tasks_with_one_mac_exactly_one_is_fresh") else {
        return;
    };
    // Two instances, each with connections of its own.
    let one = Arc::new(store(&url, "race"));
    let stores = [Arc::clone(&one), Arc::new((*one).clone())];
    for round in 0..1000 {
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let store = Arc::clone(&stores[task % 2]);
                tokio::spawn(async move { store.record(sighting(round, NOW + 60)).await })
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
async fn a_call_replayed_at_another_instance_is_refused() {
    let Some(url) = redis_url("a_call_replayed_at_another_instance_is_refused") else {
        return;
    };
    let it = inngest();
    let shared = store(&url, "instances");
    let seen = Seen::default();
    let instances = [shared.clone(), shared].map(|store| {
        seen.app(
            it.auth()
                .sign_responses(inngest_auth::SignResponses::Never)
                .replay_guard(store),
        )
    });
    assert_eq!(ask(&instances[0], it.call(CALL, "{}")).await.status, 200);
    for instance in &instances {
        let answer = ask(instance, it.call(CALL, "{}")).await;
        assert_eq!(
            answer.extensions.get::<Rejection>().unwrap().kind(),
            RejectionKind::Replayed
        );
    }
    assert_eq!(seen.count(), 1);
}

/// What Redis itself says of a command.
async fn redis(url: &str, command: &[&str]) -> String {
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let words: Vec<_> = command
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()))
        .collect();
    socket
        .write_all(format!("*{}\r\n{}", words.len(), words.concat()).as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let read = socket.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn an_entry_lives_to_the_last_second_of_its_window_and_at_least_one() {
    let Some(url) = redis_url("an_entry_lives_to_the_last_second_of_its_window_and_at_least_one") else {
        return;
    };
    let store = store(&url, "ttl").namespace("inngest-auth-test-ttl");
    for (number, until, expected) in [(1, NOW + 360, 359..=361), (2, NOW, 0..=1), (3, NOW - 100, 0..=1)] {
        let sighting = sighting(number, until);
        let key = format!("inngest-auth-test-ttl:{}", hex::encode(sighting.mac));
        redis(&url, &["DEL", &key]).await;
        assert_eq!(store.record(sighting).await.unwrap(), Recorded::Fresh);
        let ttl = redis(&url, &["TTL", &key]).await;
        let seconds: i64 = ttl.trim_start_matches(':').trim_end().parse().unwrap();
        assert!(expected.contains(&seconds), "{seconds} s until {until}");
    }
}

#[test]
fn a_url_that_is_none_is_an_error_that_does_not_quote_it() {
    let error = RedisReplayStore::new("http://user:5ec2e7@host").err().unwrap();
    assert!(
        matches!(error, ReplayStoreError::Unavailable(_)) && !error.to_string().contains("5ec2e7"),
        "{error}"
    );
}

struct Server(Child);

impl Server {
    /// Writes down each entry before it says that it has it, so that a kill loses none.
    fn start(address: SocketAddr, folder: &std::path::Path) -> Self {
        let port = address.port().to_string();
        let server = Command::new("redis-server")
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "yes",
            ])
            .args(["--appendfsync", "always", "--dir", folder.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Another process: all that can be done is to ask until it is there.
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            std::thread::yield_now();
        }
        Self(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_is_a_503_until_it_is_back_and_nothing_passes_twice() {
    if redis_url("a_redis_that_is_killed_is_a_503_until_it_is_back_and_nothing_passes_twice").is_none() {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = std::env::temp_dir().join(format!("inngest-auth-redis-{}", free.port()));
    std::fs::create_dir_all(&folder).unwrap();
    let it = inngest();
    let seen = Seen::default();
    // Made before there is a server: it connects when it is asked.
    let store = RedisReplayStore::new(&format!("redis://{free}")).unwrap();
    let app = seen.app(
        it.auth()
            .sign_responses(inngest_auth::SignResponses::Never)
            .replay_guard(store),
    );
    let call = |number: usize| ask(&app, it.call(CALL, format!("{{\"call\":{number}}}")));
    assert_eq!(call(0).await.status, 503, "not there yet");

    let server = Server::start(free, &folder);
    let mut accepted = Vec::new();
    // It is tried again at each call, and a call that comes while Redis still loads is refused like any other.
    let until = Instant::now() + Duration::from_secs(10);
    while accepted.is_empty() {
        assert!(Instant::now() < until, "no recovery");
        if call(1).await.status == 200 {
            accepted.push(1);
        }
    }
    for number in 2..50 {
        assert_eq!(call(number).await.status, 200);
        accepted.push(number);
    }
    drop(server);
    for number in 50..60 {
        let answer = call(number).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, Some("1")),
            "{number}"
        );
    }
    let _server = Server::start(free, &folder);
    let until = Instant::now() + Duration::from_secs(10);
    while call(60).await.status != 200 {
        assert!(Instant::now() < until, "no recovery");
    }
    accepted.push(60);
    // Everything once more.
    for &number in &accepted {
        assert_eq!(call(number).await.status, 401, "{number}");
    }
    assert_eq!(seen.count(), accepted.len());
    std::fs::remove_dir_all(&folder).unwrap();
}
