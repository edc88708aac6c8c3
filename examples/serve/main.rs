//! An app that accepts requests from Inngest only. Copy `main.rs`, `app.rs`, `register.rs` and
//! `url.rs`. `demo.rs` is a tour, which you do not need.
//!
//! ```text
//! cargo run --example serve                                # a tour, with generated keys
//! INNGEST_SIGNING_KEY=signkey-… cargo run --example serve  # as in production
//! INNGEST_DEV=1 cargo run --example serve                  # for the dev server: verifies nothing
//! ```
//!
//! Besides the variables of [`Config`], it reads:
//!
//! - `LISTEN_ADDR`: the address to listen on (default: `127.0.0.1:3000`; `0.0.0.0:3000` in a
//!   container, `127.0.0.1:0` for any free port).
//! - `INNGEST_SERVE_ORIGIN`: the app's own URL, if Inngest cannot reach it at the address that it
//!   listens on or at the URL in a sync. For example `https://app.example`.
//! - `RUST_LOG`: the level of the log (default: `info`; `debug` logs every rejection).

mod app;
mod demo;
mod register;
mod url;

use std::error::Error;
use std::io::{ErrorKind, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;

use inngest_auth::{Config, ConfigError, InngestAuth};
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

use demo::HeldLog;
use register::{Registry, Serve};
use url::AppUrl;

const PATH: &str = "/api/inngest";

#[tokio::main]
async fn main() -> ExitCode {
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    let tour = demo::Tour::if_unconfigured();
    // The tour prints its table first, and then the log of the same requests.
    let log = HeldLog::new(tour.is_some());
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .init();
    let served = serve(tour, &log).await;
    log.release();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(tour: Option<demo::Tour>, log: &HeldLog) -> Result<(), Box<dyn Error>> {
    // One configuration for both directions, so that their keys rotate together.
    let config = match &tour {
        Some(tour) => tour.config()?,
        None => Config::from_env()
            .map_err(|error| format!("{error}\n\nTry:\n\n{}", command_without(&error)))?,
    };
    let listener = listen().await?;
    let address = demo::reachable(listener.local_addr()?);
    let registry = Registry::new(&config, app::description(), serve_urls(address)?);
    let app = app::app(InngestAuth::from_config(&config), registry, app::inspect);
    let urls = format!(
        "Serving http://{address}{PATH} (for Inngest) and http://{address}/healthz (for anyone)."
    );
    match tour {
        Some(tour) => drop(tokio::spawn(tour.show(address, urls, log.clone()))),
        None => println!("{urls}\n{}", what_to_try_next(&config, address)),
    }
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown_signal())
        .await?;
    Ok(())
}

/// Returns the URLs at which Inngest may reach the app.
fn serve_urls(address: SocketAddr) -> Result<Serve, &'static str> {
    let invalid =
        "invalid value for INNGEST_SERVE_ORIGIN: expected a URL such as https://app.example";
    let configured = std::env::var("INNGEST_SERVE_ORIGIN").unwrap_or_default();
    Ok(Serve {
        configured: match configured.trim() {
            "" => None,
            text => Some(AppUrl::parse(text).ok_or(invalid)?),
        },
        listening: AppUrl::parse(&format!("http://{address}{PATH}"))
            .expect("an address and a path are a URL"),
    })
}

/// Returns a command that avoids the error.
fn command_without(error: &ConfigError) -> String {
    let set = match error.variable() {
        "INNGEST_DEV" => "INNGEST_DEV=1".to_owned(),
        "INNGEST_SIGNING_KEY" => "INNGEST_SIGNING_KEY=signkey-test-12345678".to_owned(),
        other => format!("{other}="),
    };
    format!("  {set} cargo run --example serve")
}

/// Returns what to type after the server has started.
fn what_to_try_next(config: &Config, address: SocketAddr) -> String {
    let url = format!("http://{address}{PATH}?fnId=demo&stepId=step");
    if config.is_dev() {
        return format!(
            "Dev mode: every request is accepted. Try:\n\n  \
             curl -i '{url}' --data-binary '{{\"hello\":\"world\"}}'\n\nCtrl-C stops."
        );
    }
    format!(
        "Only signed requests are accepted. In another terminal, with the same \
         INNGEST_SIGNING_KEY:\n\n  \
         cargo run --manifest-path cli/Cargo.toml -- sign --url '{url}' \
         '{{\"hello\":\"world\"}}'\n\n\
         Run the curl command that it prints. RUST_LOG=debug logs every rejection. Ctrl-C stops."
    )
}

async fn listen() -> Result<TcpListener, String> {
    let address = std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    TcpListener::bind(&address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => format!(
                "{address} is in use: stop the program that listens there, or set \
                 LISTEN_ADDR=127.0.0.1:0 for any free port"
            ),
            _ => format!(
                "cannot listen on {address} ({error}): set LISTEN_ADDR to host:port, such as \
                 127.0.0.1:3000"
            ),
        })
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
