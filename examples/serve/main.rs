//! An app that only Inngest gets through to. Copy `main.rs`, `app.rs`, `register.rs` and `url.rs`;
//! `demo.rs` is a tour.
//!
//! ```text
//! cargo run --example serve                                # a tour, with keys made up for it
//! INNGEST_SIGNING_KEY=signkey-… cargo run --example serve  # as in production
//! INNGEST_DEV=1 cargo run --example serve                  # with the dev server: verifies nothing
//! RUST_LOG=debug cargo run --example serve                 # logs all rejections
//! ```

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
    let tour = demo::Tour::where_nothing_is_configured();
    // A tour shows its table first, and then what the log says of it.
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
            .map_err(|error| format!("{error}\n\nTry:\n\n{}", what_to_type(&error)))?,
    };
    let listener = listen().await?;
    let address = demo::reachable(listener.local_addr()?);
    let registry = Registry::new(&config, app::description(), reached_at(address)?);
    let app = app::app(InngestAuth::from_config(&config), registry, app::inspect);
    let urls = format!(
        "Serving http://{address}{PATH} (for Inngest) and http://{address}/healthz (for anyone)."
    );
    match tour {
        Some(tour) => drop(tokio::spawn(tour.show(address, urls, log.clone()))),
        None => println!("{urls}\n{}", what_to_try(&config, address)),
    }
    axum::serve(listener, app)
        .with_graceful_shutdown(asked_to_stop())
        .await?;
    Ok(())
}

/// Where Inngest reaches this app, if it does not say so itself.
fn reached_at(address: SocketAddr) -> Result<Serve, &'static str> {
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

/// Returns a command that starts, after one that failed.
fn what_to_type(error: &ConfigError) -> String {
    let set = match error.variable() {
        "INNGEST_DEV" => "INNGEST_DEV=1".to_owned(),
        "INNGEST_SIGNING_KEY" => "INNGEST_SIGNING_KEY=signkey-test-12345678".to_owned(),
        other => format!("{other}="),
    };
    format!("  {set} cargo run --example serve")
}

fn what_to_try(config: &Config, address: SocketAddr) -> String {
    let url = format!("http://{address}{PATH}?fnId=demo&stepId=step");
    if config.is_dev() {
        return format!(
            "Dev mode: anyone gets in. Try:\n\n  \
             curl -i '{url}' --data-binary '{{\"hello\":\"world\"}}'\n\nCtrl-C stops."
        );
    }
    format!(
        "Only what is signed gets in. In another terminal, with the same INNGEST_SIGNING_KEY:\n\n  \
         cargo run --manifest-path cli/Cargo.toml -- sign --url '{url}' \
         '{{\"hello\":\"world\"}}'\n\n\
         Run the curl line that it prints. RUST_LOG=debug shows every rejection. Ctrl-C stops."
    )
}

async fn listen() -> Result<TcpListener, String> {
    let address = std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    TcpListener::bind(&address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => format!(
                "{address} is taken: stop what listens there, or set LISTEN_ADDR=127.0.0.1:0 for \
                 any free port"
            ),
            _ => format!(
                "Cannot listen on {address} ({error}): set LISTEN_ADDR to host:port, like \
                 127.0.0.1:3000"
            ),
        })
}

/// Ctrl-C, or what a supervisor sends.
async fn asked_to_stop() {
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
