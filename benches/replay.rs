//! What the replay guard adds to a call: `cargo bench --bench replay`, and with `--features redis` and `REDIS_URL` the
//! same for Redis. Nanoseconds a call through the layer in process, the fastest of several rounds, by threads.
#![allow(clippy::cast_precision_loss, reason = "nanoseconds, for people")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Request, Response};
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, SIGNATURE_HEADER, SigningKey};
use tower::{Layer, Service, service_fn};

const NOW: u64 = 1_700_000_000;
const ROUNDS: usize = 7;

fn main() {
    let key: SigningKey = "signkey-test-12345678".parse().expect("a key");
    let clock = TestClock::at(NOW);
    let auth = || {
        InngestAuth::new(key.clone())
            .clock(clock.clone())
            .sign_responses(inngest_auth::SignResponses::Never)
    };
    println!("{:<24} {:>8} {:>12}", "guard", "threads", "ns a call");
    for threads in [1, 2] {
        report("none", threads, 20_000, &key, &|_| auth());
        report("memory", threads, 20_000, &key, &|_| {
            let store = MemoryReplayStore::new(1_000_000, &clock);
            auth().replay_guard(store.insecure_accept_signed_before_start(true))
        });
        #[cfg(feature = "redis")]
        if let Ok(url) = std::env::var("REDIS_URL") {
            report("Redis on loopback", threads, 2_000, &key, &|round| {
                let store = inngest_auth::replay::RedisReplayStore::new(&url).expect("a URL");
                let run = std::process::id();
                auth().replay_guard(
                    store.namespace(&format!("inngest-auth-bench-{run}-{threads}-{round}")),
                )
            });
        }
    }
}

fn report(
    name: &str,
    threads: usize,
    calls: usize,
    key: &SigningKey,
    auth: &dyn Fn(usize) -> InngestAuth,
) {
    let mut best = f64::INFINITY;
    for round in 0..ROUNDS {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let auth = Arc::new(auth(round));
        // Signed beforehand: each call once.
        let batches: Vec<Vec<_>> = (0..threads)
            .map(|thread| batch(key, thread, calls))
            .collect();
        let began = Instant::now();
        runtime.block_on(async {
            let tasks: Vec<_> = batches
                .into_iter()
                .map(|batch| {
                    let auth = Arc::clone(&auth);
                    tokio::spawn(async move {
                        let mut service = auth.layer(service_fn(|_: Request<Body>| async {
                            Ok::<_, Infallible>(Response::new(Body::empty()))
                        }));
                        for request in batch {
                            let response = service.call(request).await.expect("infallible");
                            assert!(response.status().is_success(), "{}", response.status());
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
        });
        best = best.min(began.elapsed().as_nanos() as f64 / (threads * calls) as f64);
    }
    println!("{name:<24} {threads:>8} {best:>12.0}");
}

fn batch(key: &SigningKey, thread: usize, calls: usize) -> Vec<Request<Body>> {
    let call = |number: usize| {
        let body = format!(
            "{{\"thread\":{thread},\"call\":{number},\"pad\":\"{}\"}}",
            "x".repeat(900)
        );
        Request::post("/")
            .header(SIGNATURE_HEADER, key.sign(body.as_bytes(), NOW).to_string())
            .header("content-length", body.len())
            .body(body.into())
            .expect("a request")
    };
    (0..calls).map(call).collect()
}
