//! Replays captured calls to two instances of an app, which share a replay store.
//!
//! ```text
//! # With one store in memory:
//! cargo run --example replay
//! # With Redis, as on two machines:
//! REDIS_URL=redis://127.0.0.1:6379 cargo run --example replay --features redis
//! ```

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::{Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let key: SigningKey = "signkey-demo-0123456789abcdef".parse()?;
    // In memory, one store serves both instances. With Redis, each instance creates its own handle.
    //
    // These calls are signed in the first second of the process. In your own service, leave out the
    // second line: an earlier process may have accepted calls that were signed before the start.
    let shared = MemoryReplayStore::new(10_000, &SystemClock);
    let shared = Arc::new(shared.insecure_accept_signed_before_start(true));
    let mut instances = Vec::new();
    for name in ["A", "B"] {
        let auth = guarded(InngestAuth::new(key.clone()), &shared)?;
        let app = Router::new().route("/api/inngest", any(|| async { "ran" }).layer(auth));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        instances.push((name, listener.local_addr()?));
        tokio::spawn(async { axum::serve(listener, app).await });
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let now = SystemClock.now().ok_or("no time")?;
    let mut ran = 0;
    for (what, body, order) in [
        (
            "a call, captured at A and replayed",
            r#"{"call":1}"#,
            [0, 0, 1, 1],
        ),
        ("another call, captured at B", r#"{"call":2}"#, [1, 0, 0, 1]),
    ] {
        println!("{what}:");
        for at in order {
            let (name, address) = instances[at];
            let request =
                Request::post(format!("http://{address}/api/inngest?fnId=pay&stepId=step"))
                    .header(SIGNATURE_HEADER, key.sign(body.as_bytes(), now).to_string())
                    .body(body.into())?;
            let status = client.request(request).await?.status();
            println!("  instance {name}: {status}");
            ran += u32::from(status.is_success());
        }
    }
    println!("2 calls, sent 8 times: {ran} ran");
    println!("Each 401 is expected: each call ran once, whichever instance got the copies.");
    println!("Inngest signs each of its own attempts anew, so its retries are accepted.");
    if ran == 2 {
        Ok(())
    } else {
        Err("expected each call to run once".into())
    }
}

/// Adds a replay guard: Redis if `REDIS_URL` is set, otherwise the store in memory.
#[cfg(feature = "redis")]
fn guarded(
    auth: InngestAuth,
    shared: &Arc<MemoryReplayStore>,
) -> Result<InngestAuth, Box<dyn Error>> {
    Ok(match std::env::var("REDIS_URL") {
        Ok(url) => auth.replay_guard(inngest_auth::replay::RedisReplayStore::new(&url)?),
        Err(_) => auth.replay_guard(Arc::clone(shared)),
    })
}

/// Adds a replay guard with the store in memory.
#[cfg(not(feature = "redis"))]
#[expect(clippy::unnecessary_wraps, reason = "as with Redis")]
fn guarded(
    auth: InngestAuth,
    shared: &Arc<MemoryReplayStore>,
) -> Result<InngestAuth, Box<dyn Error>> {
    Ok(auth.replay_guard(Arc::clone(shared)))
}
