//! Functions whose instructions `run` counts, and takes from each other so that SHA-256 cancels
//! out.
//!
//! Each is run a few times before it is counted, because what happens once in a process is no cost
//! of a call.

#[path = "../../../benches/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use common::{Bare, MinimalLayer, NOW, NoOpLayer, auth, head, keys, route, run};
use gungraun::{library_benchmark, library_benchmark_group, main};
use hmac::Hmac;
use inngest_auth::{Keys, SignResponses, Signature, Tolerance, verify};
use sha2::Sha256;
use tower::{Layer, Service};

/// An allocator that takes the same instructions for every allocation and frees nothing. What the
/// system's takes depends on what was allocated before, which made the counts of one source differ
/// by 6 % between two machines.
struct Bump {
    arena: UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

/// In bytes. Untouched pages cost nothing.
const ARENA: usize = 256 << 20;

#[global_allocator]
static ALLOCATOR: Bump = Bump {
    arena: UnsafeCell::new([0; ARENA]),
    used: AtomicUsize::new(0),
};

// SAFETY: no two allocations share bytes of the arena.
unsafe impl Sync for Bump {}

// SAFETY: every allocation is a part of the arena that nothing had before, aligned to 128 bytes.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size().next_multiple_of(128);
        let at = self.used.fetch_add(size, Relaxed);
        let arena: *mut u8 = self.arena.get().cast();
        let start = arena.align_offset(128);
        if layout.align() > 128 || start + at + size > ARENA {
            return std::ptr::null_mut();
        }
        // SAFETY: it lies in the arena.
        unsafe { arena.add(start + at) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

fn call(at: u64) -> Request<Body> {
    let body = body();
    let signature = keys().current().sign(&body, at).to_string();
    head(&signature, body.len()).map(|()| Body::from(body))
}

fn body() -> Bytes {
    common::captured_call().1
}

/// Returns a service that has responded before, and the next call, signed at `at`.
fn warm<S>(mut service: S, at: u64, status: u16) -> (S, Request<Body>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    for _ in 0..3 {
        let response = run(service.call(call(at))).expect("infallible");
        assert_eq!(response.status(), status);
    }
    (service, call(at))
}

fn ready_hmac() -> (Hmac<Sha256>, Bytes) {
    (common::ready_hmac(), body())
}

#[library_benchmark]
#[bench::call(ready_hmac())]
fn bare_hmac((ready, body): (Hmac<Sha256>, Bytes)) -> (Hmac<Sha256>, Bytes) {
    common::bare_hmac(&ready, &body);
    (ready, body)
}

fn ready_verify() -> (String, Keys, Bytes) {
    let body = body();
    (keys().current().sign(&body, NOW).to_string(), keys(), body)
}

#[library_benchmark]
#[bench::call(ready_verify())]
fn parse_and_verify((header, keys, body): (String, Keys, Bytes)) -> (String, Keys, Bytes) {
    let signature: Signature = black_box(&*header).parse().expect("grammatical");
    let authentic = verify(&body, &signature, &keys, NOW, Tolerance::default());
    let _ = black_box(authentic.expect("genuine"));
    (header, keys, body)
}

fn minimal(sign: bool) -> MinimalLayer {
    MinimalLayer { sign }
}

// Axum builds a route with a layer anew for every call until its state is given.
#[library_benchmark]
#[bench::bare(warm(Bare(body()), NOW, 200))]
#[bench::no_op(warm(NoOpLayer.layer(Bare(body())), NOW, 200))]
#[bench::minimal(warm(minimal(false).layer(Bare(body())), NOW, 200))]
#[bench::minimal_signed(warm(minimal(true).layer(Bare(body())), NOW, 200))]
#[bench::layer(warm(auth().layer(Bare(body())), NOW, 200))]
#[bench::layer_signed(warm(auth().sign_responses(SignResponses::All).layer(Bare(body())), NOW, 200))]
#[bench::rejected(warm(auth().layer(Bare(body())), NOW - 301, 401))]
#[bench::route(warm(route(body()).with_state(()), NOW, 200))]
#[bench::route_no_op(warm(route(body()).layer(NoOpLayer).with_state(()), NOW, 200))]
#[bench::route_minimal(warm(route(body()).layer(minimal(false)).with_state(()), NOW, 200))]
#[bench::route_minimal_signed(warm(route(body()).layer(minimal(true)).with_state(()), NOW, 200))]
#[bench::route_layer(warm(route(body()).layer(auth()).with_state(()), NOW, 200))]
#[bench::route_layer_signed(warm(
    route(body()).layer(auth().sign_responses(SignResponses::All)).with_state(()), NOW, 200
))]
fn serve<S>((mut service, request): (S, Request<Body>)) -> S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    drop(black_box(run(service.call(request))));
    service
}

library_benchmark_group!(
    name = calls,
    benchmarks = [bare_hmac, parse_and_verify, serve]
);

main!(library_benchmark_groups = calls);
