//! How the layer scales: with threads, with waiting requests, with the replay guard's entries, and
//! with calls in flight to Redis: `cargo bench --bench scale`, and with `--features redis` and
//! `REDIS_URL` for Redis.
//!
//! One line a row: name, figure, limit, verdict; exit status 1 if any is over. Most rows are only
//! shown: they are nanoseconds and bytes.
#![allow(
    unsafe_code,
    reason = "an allocator that counts; the crate itself forbids unsafe code"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and bytes, for people"
)]

mod common;

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::Request;
use common::alloc::{Counting, cost};
use common::timing::Report;
use common::{Bare, MinimalLayer, NOW, auth, captured_call, head, keys, run};
use http_body::Frame;
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore as _, Sighting};
use inngest_auth::testing::TestClock;
use tower::{Layer, Service};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 500;

fn main() -> ExitCode {
    let mut report = Report::new();
    threads(&mut report);
    waiting(&report);
    entries(&report);
    #[cfg(feature = "redis")]
    if let Ok(url) = std::env::var("REDIS_URL") {
        in_flight(&report, &url);
    }
    report.exit_code()
}

/// Returns calls that differ from each other, and from those of other threads and rounds.
fn calls(tag: usize, count: usize) -> Vec<Request<Body>> {
    let (_, body) = captured_call();
    let call = |number: usize| {
        let mut body = body.to_vec();
        body.extend(format!("{tag}.{number}").bytes());
        let signature = keys().current().sign(&body, NOW).to_string();
        head(&signature, body.len()).map(|()| Body::from(body))
    };
    (0..count).map(call).collect()
}

trait LayeredService:
    Service<Request<Body>, Response = axum::response::Response, Error = Infallible>
{
}

impl<S> LayeredService for S where
    S: Service<Request<Body>, Response = axum::response::Response, Error = Infallible>
{
}

/// Returns the calls a second of `threads` threads that share one layer, in millions, in the
/// fastest round.
fn throughput<L>(threads: usize, count: usize, layer: &dyn Fn() -> L) -> f64
where
    L: Layer<Bare, Service: LayeredService> + Clone + Sync,
{
    let round = |round: usize| {
        let layer = layer();
        let barrier = Barrier::new(threads);
        let work = |thread: usize| {
            let mut service = layer.clone().layer(Bare(Bytes::new()));
            // What a thread frees, it allocated.
            let calls = calls(round * threads + thread, count);
            barrier.wait();
            let began = Instant::now();
            for call in calls {
                let response = run(service.call(call)).expect("infallible");
                assert!(response.status().is_success(), "{}", response.status());
            }
            began.elapsed().as_secs_f64()
        };
        let slowest = std::thread::scope(|scope| {
            let work = &work;
            let running: Vec<_> = (0..threads)
                .map(|it| scope.spawn(move || work(it)))
                .collect();
            let seconds = running.into_iter().map(|it| it.join().expect("no panic"));
            seconds.fold(0.0, f64::max)
        });
        (threads * count) as f64 / slowest / 1e6
    };
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}

fn threads(report: &mut Report) {
    let guarded = |entries| {
        auth().replay_guard(
            MemoryReplayStore::new(entries, &TestClock::at(NOW))
                .insecure_accept_signed_before_start(true),
        )
    };
    let count = 500;
    // What the machine gives: its threads may be half a core each.
    let minimal = || MinimalLayer { sign: false };
    let scaling = throughput(2, count, &minimal) / throughput(1, count, &minimal);
    report.show("minimal, 2 threads / 1 thread", scaling);
    let one = throughput(1, count, &auth);
    let two = throughput(2, count, &auth);
    report.show("1 thread, million calls/s", one);
    report.show("2 threads, million calls/s", two);
    // Judged if the machine lets the minimal layer scale, which shares only its keys.
    if scaling >= 1.95 {
        report.least("2 threads / 1 thread", two / one, 1.85);
    } else {
        report.show("2 threads / 1 thread", two / one);
    }
    let guarded = || guarded(1_000_000);
    let one_guarded = throughput(1, count, &guarded);
    let two_guarded = throughput(2, count, &guarded);
    report.show("guard, 1 thread", one_guarded);
    report.show("guard, 2 threads", two_guarded);
    report.show("guard, 2 threads / 1", two_guarded / one_guarded);
}

/// A body that never arrives.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Measures requests that wait for their bodies: the memory of each, and the time to poll it again.
fn waiting(report: &Report) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    let signature = keys().current().sign(b"", NOW).to_string();
    let auth = auth();
    let mut cx = Context::from_waker(Waker::noop());
    for count in [1_000, 10_000, 100_000] {
        let requests: Vec<_> = (0..count)
            .map(|_| head(&signature, 1000).map(|()| Body::new(Stalled)))
            .collect();
        let mut waiting = Vec::with_capacity(count);
        let held = cost(|| {
            for request in requests {
                let mut service = auth.layer(Bare(Bytes::new()));
                let mut future = service.call(request);
                assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
                waiting.push(future);
            }
        });
        report.show(
            &format!("{count} waiting, bytes each"),
            held.peak / count as f64,
        );
        let began = Instant::now();
        for future in &mut waiting {
            assert!(black_box(Pin::new(future).poll(&mut cx)).is_pending());
        }
        let again = began.elapsed().as_nanos() as f64 / count as f64;
        report.show(&format!("{count} waiting, ns to poll"), again);
    }
}

fn sighting(number: usize) -> Sighting {
    let mut mac = [0; 32];
    // Spread over the whole table, as MACs are.
    let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mac[..8].copy_from_slice(&spread.to_be_bytes());
    mac[8..16].copy_from_slice(&(number as u64).to_be_bytes());
    Sighting::new(mac, NOW, NOW + 360, NOW)
}

/// Records `count` sightings. Returns the nanoseconds that one takes.
fn record(store: &MemoryReplayStore, from: usize, count: usize) -> f64 {
    let began = Instant::now();
    for number in from..from + count {
        let recorded = run(store.record(sighting(number))).expect("room");
        assert_eq!(recorded, Recorded::Fresh);
    }
    began.elapsed().as_nanos() as f64 / count as f64
}

/// Measures the memory store with many entries: bytes for each, and the time to record one more.
fn entries(report: &Report) {
    for count in [10_000, 100_000, 1_000_000] {
        let mut store = None;
        let held = cost(|| {
            let made = MemoryReplayStore::new(count + 1_000, &TestClock::at(NOW))
                .insecure_accept_signed_before_start(true);
            record(&made, 0, count);
            store = Some(made);
        });
        let store = store.expect("made");
        report.show(
            &format!("{count} entries, bytes each"),
            held.peak / count as f64,
        );
        report.show(
            &format!("{count} entries, ns for one more"),
            record(&store, count, 1_000),
        );
    }
}

/// Redis, with calls in flight: calls a second, and how long each takes.
#[cfg(feature = "redis")]
fn in_flight(report: &Report, url: &str) {
    use inngest_auth::replay::RedisReplayStore;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for flight in [1, 8, 64] {
        let store = RedisReplayStore::new(url).expect("a URL");
        let process = std::process::id();
        let store = store.namespace(&format!("inngest-auth-bench-{process}-{flight}"));
        let auth = auth().replay_guard(store);
        let count = 200 * flight;
        let mut calls = calls(flight, count);
        let mut latencies = Vec::with_capacity(count);
        let began = Instant::now();
        runtime.block_on(async {
            while !calls.is_empty() {
                let now = calls.split_off(calls.len() - flight);
                let now = now.into_iter().map(|call| {
                    let mut service = auth.layer(Bare(Bytes::new()));
                    tokio::spawn(async move {
                        let began = Instant::now();
                        let response = service.call(call).await.expect("infallible");
                        assert!(response.status().is_success(), "{}", response.status());
                        began.elapsed()
                    })
                });
                for task in now.collect::<Vec<_>>() {
                    latencies.push(task.await.expect("no panic"));
                }
            }
        });
        let seconds = began.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let median = latencies[count / 2].as_nanos() as f64;
        report.show(
            &format!("Redis, {flight} in flight, calls/s"),
            count as f64 / seconds,
        );
        report.show(&format!("Redis, {flight} in flight, median ns"), median);
    }
}
