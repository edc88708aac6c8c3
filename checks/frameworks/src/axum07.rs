//! axum 0.7: its body type is not that of the layer, but both are bodies of `http` 1.

use std::net::SocketAddr;

use axum07::body::Bytes;
use axum07::extract::DefaultBodyLimit;
use axum07::http::Method;
use axum07::response::{IntoResponse, Response};
use axum07::routing::any;
use axum07::{Extension, Router};
use inngest_auth::{Caller, InngestAuth};

use crate::{SYNC_KIND, Setup, layered};

async fn inngest(Extension(_): Extension<Caller>, method: Method, body: Bytes) -> Response {
    let header = (method == Method::PUT).then_some([(SYNC_KIND, "in_band")]);
    match header {
        Some(header) => (header, body).into_response(),
        None => body.into_response(),
    }
}

fn app(auth: InngestAuth) -> Router {
    let guarded = any(inngest).layer((auth, DefaultBodyLimit::disable()));
    Router::new().route("/api/inngest", guarded)
}

pub(crate) async fn start(setup: &Setup) -> SocketAddr {
    let (listener, address) = layered::listen().await;
    let app = app(setup.auth());
    tokio::spawn(async { axum07::serve(listener, app).await });
    address
}
