//! A server that limits what the layer cannot limit: connections, headers and HTTP/2 streams.
//!
//! `INNGEST_DEV=1 cargo run --example bounded`

use std::{io, sync::Arc, time::Duration};

use axum::{Router, routing::any};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::{server::conn::auto, service::TowerToHyperService};
use inngest_auth::InngestAuth;
use tokio::{net::TcpListener, sync::Semaphore};

/// Sets the limits on what comes before a request's body. The layer limits the body.
#[tokio::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let app: Router =
        Router::new().route("/api/inngest", any(handler).layer(InngestAuth::from_env()));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .max_concurrent_streams(100)
        .max_header_list_size(16 * 1024);
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("Serving http://{}/api/inngest", listener.local_addr()?);
    let connections = Arc::new(Semaphore::new(1000));
    loop {
        let place = Arc::clone(&connections)
            .acquire_owned()
            .await
            .expect("it is never closed");
        let (socket, _) = listener.accept().await?;
        let (server, app) = (server.clone(), TowerToHyperService::new(app.clone()));
        tokio::spawn(async move {
            let _ = server.serve_connection(TokioIo::new(socket), app).await;
            drop(place);
        });
    }
}

async fn handler() {}
