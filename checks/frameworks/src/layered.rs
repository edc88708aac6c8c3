//! Servers that use the layer without an adapter.

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
use inngest_auth::InngestAuth;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tower::{Layer, service_fn};

use crate::{SYNC_KIND, Setup};

async fn inngest(method: Method, body: Bytes) -> impl IntoResponse {
    let header = (method == Method::PUT).then_some([(SYNC_KIND, "in_band")]);
    match header {
        Some(header) => (header, body).into_response(),
        None => body.into_response(),
    }
}

pub(crate) fn app(auth: InngestAuth) -> Router {
    Router::new().route("/api/inngest", any(inngest).layer(auth))
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Starts axum's own server: HTTP/1 and HTTP/2.
pub(crate) async fn axum(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    let app = app(setup.auth());
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

/// Starts a server on hyper: HTTP/1 and HTTP/2.
pub(crate) async fn hyper(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(serve_with_hyper(listener, setup.auth()));
    address
}

async fn serve_with_hyper(listener: TcpListener, auth: InngestAuth) {
    let service = TowerToHyperService::new(auth.layer(service_fn(functions)));
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// Starts axum's server with tonic's services beside the route.
pub(crate) async fn tonic(setup: &Setup) -> SocketAddr {
    let (listener, address) = listen().await;
    let (routes, auth) = (Routes::default(), setup.auth());
    let app = routes.into_axum_router().merge(app(auth));
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}
