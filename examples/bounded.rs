//! A server that limits what the layer cannot limit: connections, headers and HTTP/2 streams.
//!
//! `INNGEST_DEV=1 cargo run --example bounded`

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, routing::any, serve::Listener};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use inngest_auth::InngestAuth;
use tokio::{net::TcpListener, sync::Semaphore, sync::watch, time::timeout};
use tower::ServiceExt;

#[tokio::main]
async fn main() -> io::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let app = Router::new().route("/api/inngest", any(handler).layer(InngestAuth::from_env()));
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("Serving http://{}/api/inngest", listener.local_addr()?);
    serve(listener, app, 1000, Duration::from_secs(10)).await
}

async fn handler() {}

/// Serves at most `most` connections at a time, and closes each that has been idle for `time`. A
/// response has twice that to be sent.
///
/// Sets every limit that the layer cannot set, because it concerns what comes before a request's
/// body.
pub async fn serve(mut listener: TcpListener, app: Router, most: usize, time: Duration) -> ! {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(time)
        .max_buf_size(64 * 1024);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(time)
        .max_concurrent_streams(100)
        .max_header_list_size(16 * 1024);
    let places = Arc::new(Semaphore::new(most));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("it is never closed");
        // An error, such as too many open files, is logged, and does not end the server.
        let (socket, _) = Listener::accept(&mut listener).await;
        let (server, app) = (server.clone(), app.clone());
        tokio::spawn(async move {
            let (running, idle) = watch::channel(0);
            let service = service_fn(|request| {
                let request = app.clone().oneshot(request);
                let running = Running::new(&running);
                async move {
                    let response = request.await;
                    drop(running);
                    response
                }
            });
            let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));
            tokio::select! {
                // The timer comes first: it does not fire after a connection that used up the
                // task's cooperative budget.
                biased;
                () = idle_for(time, idle) => {
                    connection.as_mut().graceful_shutdown();
                    // A client may never read its response.
                    let _ = timeout(time, connection).await;
                }
                _ = connection.as_mut() => {}
            }
            drop(place);
        });
    }
}

/// A request that has no response yet, counted until it is dropped.
struct Running(watch::Sender<usize>);

impl Running {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Returns when no request has been running for `time`. This includes the time before the first
/// request, when hyper-util waits for the protocol's name without a limit, and HTTP/2 clients that
/// only respond to pings.
async fn idle_for(time: Duration, mut running: watch::Receiver<usize>) {
    while let Ok(Ok(())) = timeout(time, running.changed()).await {
        let _ = running.wait_for(|&count| count == 0).await;
    }
}
