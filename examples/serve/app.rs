//! The app, apart from `main`: a function from the layer to the router, so that a test can give it a layer of
//! its own.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use inngest_auth::{Caller, Form, InngestAuth, KeyRole};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::register::{Registry, SDK};

/// The layer stands before `/api/inngest` alone: `/healthz` is anybody's, unknown paths stay 404.
pub(crate) fn app(auth: InngestAuth, registry: Registry) -> Router {
    let inngest = any(inngest).with_state(Arc::new(registry));
    Router::new()
        .route("/api/inngest", inngest.layer(auth))
        .route("/healthz", get(|| async { "ok" }))
}

/// What Inngest asks of an app. `body` is exactly the bytes that were authenticated.
async fn inngest(
    State(registry): State<Arc<Registry>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    caller: Caller,
    body: Bytes,
) -> Response {
    let mut response = match method {
        // A function call. With more functions than one, `fnId` in the query says which.
        Method::POST => told(&inspect(caller, &body)),
        Method::PUT if headers.get(SYNC_KIND).is_some_and(|kind| kind == IN_BAND) => {
            ([(SYNC_KIND, IN_BAND)], Json(registry.payload())).into_response()
        }
        Method::PUT => sync(&registry, query.as_deref()).await,
        Method::GET => told(&introspect(&inspect(caller, &body))),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    for (name, value) in [("x-inngest-sdk", SDK), ("x-inngest-req-version", "2")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

const SYNC_KIND: &str = "x-inngest-sync-kind";
const IN_BAND: &str = "in_band";

/// Registers with the API, and says so only if the API did.
async fn sync(registry: &Registry, query: Option<&str>) -> Response {
    let deploy = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(name, _)| name == "deployId");
    match registry.register(deploy.map(|(_, id)| id).as_deref()).await {
        Ok(modified) => Json(json!({"message": "Successfully registered", "modified": modified})).into_response(),
        Err(error) => {
            tracing::error!("the sync failed: {error}");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                Json(json!({"message": error, "modified": false})),
            )
                .into_response()
        }
    }
}

/// The function `inspect`: tells what came through.
fn inspect(caller: Caller, body: &[u8]) -> [(&'static str, Value); 6] {
    let (mode, verified) = match caller {
        Caller::Verified(verified) => ("cloud", Some(verified)),
        Caller::Dev => ("dev", None),
        // An unsigned sync, where that was chosen. Its body is empty.
        _ => ("cloud", None),
    };
    let key = verified.map(|verified| match verified.key() {
        KeyRole::Current => "current",
        KeyRole::Fallback => "fallback",
    });
    let form = verified.map(|verified| match verified.form() {
        Form::Raw => "raw",
        Form::Canonical => "canonical",
    });
    [
        ("mode", json!(mode)),
        ("key", json!(key)),
        ("form", json!(form)),
        ("signed_at", json!(verified.map(|verified| verified.signed_at()))),
        ("bytes", json!(body.len())),
        ("sha256", json!(hex::encode(Sha256::digest(body)))),
    ]
}

/// What the app is, for those who may know: the layer lets only them through.
fn introspect(request: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let app = [
        ("function_count", json!(1)),
        ("has_signing_key", json!(request[0].1 == "cloud")),
    ];
    request.iter().cloned().chain(app).collect()
}

/// A JSON object whose members stay in their order.
fn told(members: &[(&str, Value)]) -> Response {
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("{name:?}:{value}"))
        .collect();
    (
        [(CONTENT_TYPE, "application/json")],
        format!("{{{}}}", members.join(",")),
    )
        .into_response()
}
