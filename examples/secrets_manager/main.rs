//! Keys from a secrets manager, which is at times down, slow and wrong.
//!
//! ```text
//! cargo run --example secrets_manager
//! ```
//!
//! `poll.rs` is what a service needs. The rest is a secrets manager on the loopback interface, and
//! an Inngest that keeps calling.

mod poll;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::{any, get};
use inngest_auth::testing::{TestClock, TestInngest};
use inngest_auth::{InngestAuth, KeyRing, Keys, SigningKey};
use tokio::net::TcpListener;
use tower::ServiceExt;

const A: &str = "signkey-demo-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Meant to be `C`.
const TYPO: &str = "signkey-demo-cccccccccccccccccccccccccccccccd";
const C: &str = "signkey-demo-cccccccccccccccccccccccccccccccc";

/// Valid, but logged as odd.
const SHORT: &str = "signkey-demo-dddd";

/// How the secrets manager handles the next request.
#[derive(Clone)]
enum Manager {
    Holds(String),
    /// Responds with a status and no secret.
    Fails(StatusCode),
    Hangs,
}

fn secret(current: &str, fallback: &str) -> Manager {
    Manager::Holds(format!(
        r#"{{"INNGEST_SIGNING_KEY":"{current}","INNGEST_SIGNING_KEY_FALLBACK":"{fallback}"}}"#
    ))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    let manager = Arc::new(Mutex::new(secret(A, "")));
    let (polled, mut polls) = tokio::sync::watch::channel(0_u64);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let uri = format!("http://{}/secret", listener.local_addr()?).parse()?;
    let asked = Arc::clone(&manager);
    let serve = move || {
        polled.send_modify(|polls| *polls += 1);
        let now = asked
            .lock()
            .map_or(Manager::Hangs, |manager| manager.clone());
        async move {
            match now {
                Manager::Holds(secret) => (StatusCode::OK, secret),
                Manager::Fails(status) => (status, String::new()),
                Manager::Hangs => std::future::pending().await,
            }
        }
    };
    let secrets = Router::new().route("/secret", get(serve));
    tokio::spawn(async { axum::serve(listener, secrets).await });

    let ring = KeyRing::from(A.parse::<SigningKey>()?);
    let (every, patience) = (Duration::from_millis(10), Duration::from_millis(50));
    tokio::spawn(poll::follow(ring.clone(), uri, every, patience));

    let auth = InngestAuth::new(ring.clone()).clock(TestClock::at(1_700_000_000));
    let app = Router::new().route("/api/inngest", any(|| async { "ran" }).layer(auth));
    let pair = |current: &str, fallback: &str| -> Result<Keys, Box<dyn Error>> {
        let fallback = if fallback.is_empty() {
            None
        } else {
            Some(fallback.parse()?)
        };
        Ok(Keys::new(current.parse()?, fallback))
    };
    let lie = r#"{"INNGEST_DEV":"1"}"#;
    for (what, does, keys, signs_with) in [
        ("it holds A", secret(A, ""), pair(A, "")?, A),
        (
            "it fails",
            Manager::Fails(StatusCode::SERVICE_UNAVAILABLE),
            pair(A, "")?,
            A,
        ),
        ("it hangs", Manager::Hangs, pair(A, "")?, A),
        (
            "it says dev mode",
            Manager::Holds(lie.into()),
            pair(A, "")?,
            A,
        ),
        ("it says undefined", secret("undefined", A), pair(A, "")?, A),
        ("it holds a typo, and A", secret(TYPO, A), pair(TYPO, A)?, A),
        ("it holds C, and A", secret(C, A), pair(C, A)?, A),
        ("Inngest signs with C", secret(C, A), pair(C, A)?, C),
        (
            "it holds a short key, and C",
            secret(SHORT, C),
            pair(SHORT, C)?,
            C,
        ),
        ("it holds C", secret(C, ""), pair(C, "")?, C),
    ] {
        *manager.lock().map_err(|error| error.to_string())? = does;
        // A request that hangs is abandoned, so further polls will follow.
        let seen = *polls.borrow_and_update();
        polls.wait_for(|polls| *polls >= seen + 3).await?;
        let inngest = TestInngest::new(signs_with.parse()?);
        let call: Request<Body> = inngest.call("/api/inngest", "{}");
        let status = app.clone().oneshot(call).await?.status();
        println!("{what}: a call gets {status}, with {:?}", ring.snapshot());
        if status != StatusCode::OK || *ring.snapshot() != keys {
            return Err("a call was rejected, or the keys are not what they should be".into());
        }
    }
    Ok(())
}
