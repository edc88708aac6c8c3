//! Keys that change while the service runs.
//!
//! ```text
//! cargo run --example rotate                  # a tour: a whole rotation under calls, in a moment
//! cargo run --example rotate -- keys.env      # serves; `kill -HUP` reads the file again
//! ```
//!
//! The file has lines `INNGEST_SIGNING_KEY=…` and `INNGEST_SIGNING_KEY_FALLBACK=…`. What it holds is checked before it
//! counts: a bad file changes nothing, and says so.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::any;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{Clock, Config, InngestAuth, KeyRing, KeyRole, SIGNATURE_HEADER, SigningKey, SystemClock, Verified};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tour = std::env::args().nth(1).is_none();
    let path = match std::env::args().nth(1) {
        Some(path) => PathBuf::from(path),
        None => std::env::temp_dir().join(format!("inngest-auth-rotate-{}.env", std::process::id())),
    };
    if tour {
        write(&path, &[("INNGEST_SIGNING_KEY", OLD)])?;
    }
    let ring = KeyRing::from(read(&path)?);
    let which_key = move |verified: Verified| async move {
        let key = match verified.key() {
            KeyRole::Current => "current",
            KeyRole::Fallback => "fallback",
        };
        if !tour {
            println!("verified with the {key} key");
        }
        key
    };
    let app = Router::new().route("/api/inngest", any(which_key).layer(InngestAuth::new(ring.clone())));
    let listener = TcpListener::bind(std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:0".into())).await?;
    let url = format!("http://{}/api/inngest", listener.local_addr()?);
    if !tour {
        reload_on_hangup(ring.clone(), path.clone())?;
    }
    println!("Serving {url}, with the keys of {}", path.display());
    let server = axum::serve(listener, app);
    if tour {
        tokio::spawn(async { server.await });
        let outcome = show(&ring, &path, url).await;
        std::fs::remove_file(&path)?;
        return outcome;
    }
    Ok(server.await?)
}

/// The keys in the file, or why it cannot be used.
fn read(path: &Path) -> Result<inngest_auth::Keys, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let vars = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()));
    // Keys and nothing else: dev mode is not a thing to slip into while running.
    let vars = vars.filter(|(name, _)| name.starts_with("INNGEST_SIGNING_KEY"));
    let config = Config::from_vars(vars).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(config.keys().ok_or("no keys")?.snapshot().as_ref().clone())
}

/// Both keys change at once, from the next request on; one that is under way is not disturbed.
fn reload(ring: &KeyRing, path: &Path) {
    match read(path) {
        Ok(keys) => {
            ring.replace(keys.clone());
            println!(
                "  reloaded: current {:?}, fallback {:?}",
                keys.current(),
                keys.fallback()
            );
        }
        Err(error) => println!("  not reloaded, the last good keys stay: {error}"),
    }
}

#[cfg(unix)]
fn reload_on_hangup(ring: KeyRing, path: PathBuf) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            println!("  since the keys last changed: {:?}", ring.usage());
            reload(&ring, &path);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn reload_on_hangup(_: KeyRing, _: PathBuf) -> std::io::Result<()> {
    Err(std::io::Error::other("no signals on this system: run the tour"))
}

/// Throw-away keys of the tour. An example may have some; the library never does.
const OLD: &str = "signkey-demo-0123456789abcdef";
const NEW: &str = "signkey-demo-fedcba9876543210";

fn write(path: &Path, vars: &[(&str, &str)]) -> std::io::Result<()> {
    let lines: Vec<_> = vars.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    std::fs::write(path, lines.concat())
}

/// A rotation from its beginning to its end, with a client that calls throughout.
async fn show(ring: &KeyRing, path: &Path, url: String) -> Result<(), Box<dyn Error>> {
    let signs_with = Arc::new(Mutex::new(OLD.parse::<SigningKey>()?));
    let (report, mut calls) = watch::channel(Calls::default());
    tokio::spawn(client(url, Arc::clone(&signs_with), report));
    let (current, fallback) = ("INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK");
    let steps: [(_, Option<&[_]>, _); 5] = [
        ("Inngest signs with the old key, the service has it", None, OLD),
        (
            "deployed: the new key, the old one as fallback",
            Some(&[(current, NEW), (fallback, OLD)]),
            OLD,
        ),
        ("rotated in the dashboard: Inngest signs with the new key", None, NEW),
        ("somebody spoils the file", Some(&[(current, "signkey-demo-")]), NEW),
        ("the old key is retired", Some(&[(current, NEW)]), NEW),
    ];
    for (what, file, key) in steps {
        println!("{what}");
        if let Some(file) = file {
            write(path, file)?;
            reload(ring, path);
        }
        *signs_with.lock().map_err(|error| error.to_string())? = key.parse()?;
        let before = *calls.borrow_and_update();
        let now = *calls.wait_for(|calls| calls.sum() >= before.sum() + 100).await?;
        println!(
            "  calls: {} by the current key, {} by the fallback",
            now.0 - before.0,
            now.1 - before.1
        );
    }
    let Calls(current, fallback, refused) = *calls.borrow();
    println!("{current} calls by the current key, {fallback} by the fallback, {refused} refused");
    if refused == 0 {
        Ok(())
    } else {
        Err("a rotation must refuse nothing".into())
    }
}

/// Verified with the current key, with the fallback, refused.
#[derive(Clone, Copy, Default)]
struct Calls(u64, u64, u64);

impl Calls {
    fn sum(self) -> u64 {
        self.0 + self.1 + self.2
    }
}

/// Calls until nobody listens.
async fn client(url: String, signs_with: Arc<Mutex<SigningKey>>, report: watch::Sender<Calls>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    while !report.is_closed() {
        let header = match (signs_with.lock(), SystemClock.now()) {
            (Ok(key), Some(now)) => key.sign(b"{}", now).to_string(),
            _ => return,
        };
        let request = Request::post(&url).header(SIGNATURE_HEADER, header).body("{}".into());
        let Ok(request) = request else { return };
        let answer = match client.request(request).await {
            Ok(response) if response.status().is_success() => {
                axum::body::to_bytes(Body::new(response.into_body()), 100)
                    .await
                    .unwrap_or_default()
            }
            _ => axum::body::Bytes::new(),
        };
        report.send_modify(|calls| match &answer[..] {
            b"current" => calls.0 += 1,
            b"fallback" => calls.1 += 1,
            _ => calls.2 += 1,
        });
    }
}
