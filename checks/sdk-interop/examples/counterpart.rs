//! What the check compares with the official SDKs: our signer, and a server that echoes what it
//! verified.
//!
//! ```text
//! counterpart sign KEY < BODIES              # one a line; prints one signature a line
//! counterpart serve CURRENT FALLBACK [NOW]   # prints its address; with NOW its clock is fixed
//! ```

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::routing::any;
use inngest_auth::testing::TestClock;
use inngest_auth::{Clock, InngestAuth, Keys, SignResponses, SigningKey, SystemClock, Verified};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sign", key] => sign(&key.parse()?),
        ["serve", current, fallback] => serve(auth(current, fallback)?).await,
        ["serve", current, fallback, now] => {
            serve(auth(current, fallback)?.clock(TestClock::at(now.parse()?))).await
        }
        _ => Err("usage: counterpart sign KEY | serve CURRENT FALLBACK [NOW]".into()),
    }
}

fn sign(key: &SigningKey) -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for body in stdin().lock().split(b'\n') {
        let now = SystemClock.now().ok_or("the clock cannot tell the time")?;
        writeln!(out, "{}", key.sign(&body?, now))?;
    }
    Ok(())
}

fn auth(current: &str, fallback: &str) -> Result<InngestAuth, Box<dyn Error>> {
    let keys = Keys::new(current.parse()?, Some(fallback.parse()?));
    Ok(InngestAuth::new(keys).sign_responses(SignResponses::All))
}

async fn serve(auth: InngestAuth) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/api/inngest", listener.local_addr()?);
    axum::serve(
        listener,
        Router::new().route("/api/inngest", any(echo).layer(auth)),
    )
    .await?;
    Ok(())
}

/// Returns exactly the bytes that were authenticated, and how.
async fn echo(verified: Verified, body: Bytes) -> impl IntoResponse {
    (
        [(
            "x-verified",
            format!("{:?} {:?}", verified.key(), verified.form()),
        )],
        body,
    )
}
