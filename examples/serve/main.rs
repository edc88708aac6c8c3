//! An endpoint that only Inngest gets through to. Copy this file and `app.rs`; `demo.rs` is a tour.
//!
//! ```text
//! cargo run --example serve                                   # a tour, with keys made up for this run
//! INNGEST_SIGNING_KEY=signkey-… cargo run --example serve     # as in production
//! INNGEST_DEV=1 cargo run --example serve                     # as beside the dev server: nothing is verified
//! ```

mod app;
mod demo;
mod register;

use std::error::Error;
use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use inngest_auth::{Config, InngestAuth};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let tour = demo::Tour::where_nothing_is_configured();
    // One configuration for both directions: what rotates the keys of one rotates those of the other.
    let config = match &tour {
        Some(tour) => tour.config()?,
        None => Config::from_env()?,
    };
    let listener = listen().await?;
    let address = listener.local_addr()?;
    println!("Serving http://{address}/api/inngest (for Inngest) and http://{address}/healthz (for anybody).");
    if let Some(tour) = tour {
        tokio::spawn(tour.show(address));
    }
    let origin = std::env::var("SERVE_ORIGIN").unwrap_or_else(|_| format!("http://{address}"));
    let registry = register::Registry::new(&config, &origin);
    axum::serve(listener, app::app(InngestAuth::from_config(&config), registry))
        .with_graceful_shutdown(asked_to_stop())
        .await?;
    Ok(())
}

async fn listen() -> Result<TcpListener, String> {
    let address = std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    TcpListener::bind(&address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{address} is taken: stop what listens there, or set LISTEN_ADDR=127.0.0.1:0 for any free port")
        }
        _ => format!("Cannot listen on {address} ({error}): set LISTEN_ADDR to host:port, like 127.0.0.1:3000"),
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
