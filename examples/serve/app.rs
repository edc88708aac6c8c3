//! The app's router. `app` takes the layer as an argument, so that a test can pass another one.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use inngest_auth::{Caller, InngestAuth};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::register::{App, FRAMEWORK, Registry, SDK};

/// A function of the app. Its arguments are the caller, the request's head, and the bytes that were
/// authenticated.
pub(crate) type Run = fn(Caller, &Parts, &[u8]) -> Response;

/// Returns the app's description for Inngest, without the functions' URLs.
pub(crate) fn description() -> App {
    App {
        id: "inngest-auth-demo",
        functions: vec![json!({
            "id": "inspect",
            "name": "inspect",
            "triggers": [{"event": "demo/inspect"}],
            "retries": 1,
        })],
    }
}

/// Builds the router. The layer guards `/api/inngest` only: `/healthz` is open to anyone, and
/// unknown paths stay 404.
pub(crate) fn app(auth: InngestAuth, registry: Registry, run: Run) -> Router {
    let header = |name, value| {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        SetResponseHeaderLayer::if_not_present(name, value)
    };
    let stack = ServiceBuilder::new()
        .layer(auth)
        // Inngest ignores responses without this header: the attempt fails even on a 2xx. It is
        // inside the layer, so that rejections do not have it.
        .layer(header("x-inngest-sdk", SDK))
        .layer(header("x-inngest-req-version", "2"))
        .layer(header("x-inngest-framework", FRAMEWORK));
    let inngest = any(inngest).with_state((Arc::new(registry), run));
    Router::new()
        .route("/api/inngest", inngest.layer(stack))
        .route("/healthz", get(|| async { "ok" }))
}

/// Handles calls, syncs and introspection. `body` is exactly the bytes that were authenticated.
async fn inngest(
    State((registry, run)): State<(Arc<Registry>, Run)>,
    caller: Caller,
    parts: Parts,
    body: Bytes,
) -> Response {
    match parts.method {
        Method::POST => run(caller, &parts, &body),
        Method::PUT => registry.sync(&parts, caller, &body).await,
        Method::GET => Json(registry.inspection(caller)).into_response(),
        _ => {
            let message = json!({"message": "Method not allowed"});
            (StatusCode::METHOD_NOT_ALLOWED, Json(message)).into_response()
        }
    }
}

/// Runs the function `inspect`, which returns what the layer found. An app with several functions
/// reads `fnId` in the query to find out which one is called.
pub(crate) fn inspect(caller: Caller, _: &Parts, body: &[u8]) -> Response {
    let verified = caller.verified();
    Json(json!({
        "mode": mode(caller),
        "key": verified.map(|it| it.key().as_str()),
        "form": verified.map(|it| it.form().as_str()),
        "signed_at": verified.map(|it| it.signed_at()),
        "bytes": body.len(),
        "sha256": hex::encode(Sha256::digest(body)),
    }))
    .into_response()
}

/// Returns `dev` if nothing is verified, otherwise `cloud`.
pub(crate) fn mode(caller: Caller) -> Value {
    json!(if caller.is_dev() { "dev" } else { "cloud" })
}
