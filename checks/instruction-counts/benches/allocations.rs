//! How often a call through each service allocates, less one to the bare service: a line for each,
//! its name and the number, for `run`.

#[path = "../../../benches/common/mod.rs"]
mod common;

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use common::alloc::{Counting, cost};
use common::{Bare, MinimalLayer, NOW, NoOpLayer, auth, head, keys, run};
use inngest_auth::SignResponses;
use tower::{Layer, Service};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let body = common::captured_call().1;
    let bare = || Bare(body.clone());
    let without = allocations(bare(), &body, NOW);
    let print = |name, with: f64| println!("{name} {}", with - without);
    let minimal = |sign| MinimalLayer { sign };
    let signing = auth().sign_responses(SignResponses::All);
    print("no_op_1k", allocations(NoOpLayer.layer(bare()), &body, NOW));
    print(
        "minimal_1k",
        allocations(minimal(false).layer(bare()), &body, NOW),
    );
    print("layer_1k", allocations(auth().layer(bare()), &body, NOW));
    print(
        "minimal_signed_1k",
        allocations(minimal(true).layer(bare()), &body, NOW),
    );
    print(
        "layer_signed_1k",
        allocations(signing.layer(bare()), &body, NOW),
    );
    print(
        "reject_header",
        allocations(auth().layer(bare()), &body, NOW - 301),
    );
}

/// Counts the allocations of one call, signed at `at`, after three others.
fn allocations<S>(mut service: S, body: &Bytes, at: u64) -> f64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let signature = keys().current().sign(body, at).to_string();
    let call = || head(&signature, body.len()).map(|()| Body::from(body.clone()));
    for _ in 0..3 {
        drop(run(service.call(call())));
    }
    let call = call();
    cost(|| run(service.call(call))).calls
}
