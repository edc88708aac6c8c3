//! A service that follows key files while it runs.
//!
//! ```text
//! cargo run --example rotate       # a tour: a whole rotation under load, in a second
//!
//! export INNGEST_SIGNING_KEY_FILE=keys/current INNGEST_SIGNING_KEY_FALLBACK_FILE=keys/fallback
//! cargo run --example rotate       # serves and watches; `kill -HUP` reloads the files at once
//! ```
//!
//! It polls the files every `WATCH_SECONDS` (default: 2). It checks both files before it uses
//! either: a bad file is logged and changes nothing.
//!
//! **Replace key files by a rename**, as the tour does: write a temporary file, then `mv` it. A key
//! that is only half written, with an even number of hex digits, is a valid key. Polling uses keys
//! only if two polls in a row read them; SIGHUP uses what is in the files at that moment.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{
    Clock, Config, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock, Verified,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    if std::env::var_os("INNGEST_SIGNING_KEY_FILE").is_none() {
        return tour().await;
    }
    let config = Config::from_env()?;
    let every = std::env::var("WATCH_SECONDS").map_or(Ok(2), |seconds| seconds.parse())?;
    tokio::spawn(config.watch(Duration::from_secs(every)));
    reload_on_hangup(config.clone())?;
    let (url, server) = serve(InngestAuth::from_config(&config)).await?;
    println!("Serving {url}, with the keys in the files");
    Ok(server.await?)
}

/// Starts the app. Its handler responds with the role of the key that verified the request.
async fn serve(
    auth: InngestAuth,
) -> std::io::Result<(String, impl Future<Output = std::io::Result<()>>)> {
    let which_key = async |verified: Verified| verified.key().as_str();
    let app = Router::new().route("/api/inngest", any(which_key).layer(auth));
    let address = std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/api/inngest", listener.local_addr()?);
    Ok((url, axum::serve(listener, app).into_future()))
}

/// Reloads the key files on SIGHUP.
#[cfg(unix)]
fn reload_on_hangup(config: Config) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            if let Some(keys) = config.keys() {
                println!("since the keys last changed: {:?}", keys.usage());
            }
            match config.reload() {
                Ok(true) => println!("reloaded the signing keys"),
                Ok(false) => println!("the signing keys have not changed"),
                Err(error) => println!("not reloaded; the last good keys stay in use: {error}"),
            }
        }
    });
    Ok(())
}

/// Does nothing: there is no SIGHUP.
#[cfg(not(unix))]
fn reload_on_hangup(_: Config) -> std::io::Result<()> {
    Ok(())
}

/// Throw-away keys for the tour. An example may contain keys; the library never does.
const OLD: &str = "signkey-demo-0123456789abcdef0123456789abcdef";
const NEW: &str = "signkey-demo-fedcba9876543210fedcba9876543210";
const QUOTED: &str = "\"signkey-demo-fedcba9876543210fedcba9876543210\"";

/// Serves with keys in a temporary directory, and rotates them.
async fn tour() -> Result<(), Box<dyn Error>> {
    let files = Files::new()?;
    files.publish(OLD, "")?;
    let config = Config::from_vars([
        ("INNGEST_SIGNING_KEY_FILE", files.0.join("current")),
        (
            "INNGEST_SIGNING_KEY_FALLBACK_FILE",
            files.0.join("fallback"),
        ),
    ])?;
    tokio::spawn(config.watch(Duration::from_millis(20)));
    let (url, server) = serve(InngestAuth::from_config(&config)).await?;
    println!("Serving {url}, with the keys in {}", files.0.display());
    tokio::spawn(server);
    show(&config, &files, url).await
}

/// A directory with the two key files, removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> std::io::Result<Self> {
        let name = format!("inngest-auth-rotate-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory)?;
        Ok(Self(directory))
    }

    /// Replaces one file after the other, each by a rename, so that no file is ever half written.
    /// The fallback key's file is first, so that the service has the old key in between.
    fn publish(&self, current: &str, fallback: &str) -> std::io::Result<()> {
        for (name, key) in [("fallback", fallback), ("current", current)] {
            let written = self.0.join("written");
            std::fs::write(&written, key)?;
            std::fs::rename(&written, self.0.join(name))?;
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Rotates the keys while a client keeps calling.
async fn show(config: &Config, files: &Files, url: String) -> Result<(), Box<dyn Error>> {
    let ring = config.keys().ok_or("dev mode")?;
    let signs_with = Arc::new(Mutex::new(OLD.parse::<SigningKey>()?));
    let (report, mut calls) = watch::channel(Calls::default());
    tokio::spawn(client(url, Arc::clone(&signs_with), report));
    let steps = [
        (
            "Inngest signs with the old key, which the service has",
            None,
            OLD,
        ),
        (
            "the files have the new key, and the old key as fallback",
            Some((NEW, OLD)),
            OLD,
        ),
        (
            "rotated in the dashboard: Inngest signs with the new key",
            None,
            NEW,
        ),
        ("a file is damaged", Some(("signkey-demo-", OLD)), NEW),
        (
            "a key is written in quotation marks",
            Some((QUOTED, OLD)),
            NEW,
        ),
        ("the fallback file is emptied", Some((NEW, "")), NEW),
    ];
    for (what, published, key) in steps {
        println!("{what}");
        if let Some((current, fallback)) = published {
            files.publish(current, fallback)?;
        }
        *signs_with.lock().map_err(|error| error.to_string())? = key.parse()?;
        // Good keys are used from the second poll on that reads them.
        if let Some((Ok(current), fallback)) =
            published.map(|(current, fallback)| (current.parse(), fallback))
        {
            let expected = (current, fallback.parse().ok()).into();
            while *ring.snapshot() != expected {
                calls.changed().await?;
            }
        }
        let before = *calls.borrow_and_update();
        let now = *calls
            .wait_for(|calls| calls.sum() >= before.sum() + 100)
            .await?;
        println!(
            "  verified calls: {} with the current key, {} with the fallback key",
            now.0 - before.0,
            now.1 - before.1
        );
    }
    let Calls(current, fallback, rejected) = *calls.borrow();
    println!(
        "{current} calls verified with the current key, {fallback} with the fallback key, \
         {rejected} rejected"
    );
    if rejected == 0 {
        Ok(())
    } else {
        Err("the rotation rejected calls".into())
    }
}

/// Calls verified with the current key, with the fallback key, and rejected.
#[derive(Clone, Copy, Default)]
struct Calls(u64, u64, u64);

impl Calls {
    fn sum(self) -> u64 {
        self.0 + self.1 + self.2
    }
}

/// Calls until the receiver is dropped.
async fn client(url: String, signs_with: Arc<Mutex<SigningKey>>, report: watch::Sender<Calls>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    while !report.is_closed() {
        let header = match (signs_with.lock(), SystemClock.now()) {
            (Ok(key), Some(now)) => key.sign(b"{}", now).to_string(),
            _ => return,
        };
        let request = Request::post(&url)
            .header(SIGNATURE_HEADER, header)
            .body("{}".into());
        let Ok(request) = request else { return };
        let status = match client.request(request).await {
            Ok(response) if response.status().is_success() => {
                axum::body::to_bytes(Body::new(response.into_body()), 100)
                    .await
                    .unwrap_or_default()
            }
            _ => axum::body::Bytes::new(),
        };
        report.send_modify(|calls| match &status[..] {
            b"current" => calls.0 += 1,
            b"fallback" => calls.1 += 1,
            _ => calls.2 += 1,
        });
    }
}
