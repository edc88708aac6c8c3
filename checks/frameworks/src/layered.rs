//! Servers that take the layer without an adapter.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response};
use axum::response::IntoResponse;
use axum::routing::any;
use http_body_util::{BodyExt, Collected};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{Layer, service_fn};

use crate::{SYNC_KIND, Setup};

async fn inngest(method: Method, body: Bytes) -> impl IntoResponse {
    let header = (method == Method::PUT).then_some([(SYNC_KIND, "in_band")]);
    match header {
        Some(header) => (header, body).into_response(),
        None => body.into_response(),
    }
}

pub(crate) fn router(setup: &Setup) -> Router {
    let guarded = any(inngest).layer(setup.auth());
    // In a REST API of API Gateway the path begins with the stage, unless
    // `AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH` is set.
    Router::new()
        .route("/", guarded.clone())
        .route("/prod/", guarded)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// axum's own server: HTTP/1 and 2.
pub(crate) async fn axum(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    let app = router(setup);
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

/// The handler as a service that is no router.
pub(crate) async fn functions(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let method = request.method().clone();
    let body = request.into_body().collect().await.map(Collected::to_bytes);
    let response = inngest(method, body.unwrap_or_default()).await;
    Ok(response.into_response())
}

/// hyper, and a service that is no router.
pub(crate) async fn hyper(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    let service = TowerToHyperService::new(setup.auth().layer(service_fn(functions)));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    address
}

/// tonic's services beside the route, on one port.
pub(crate) async fn tonic(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    let app = tonic::service::Routes::default()
        .into_axum_router()
        .merge(router(setup));
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}
