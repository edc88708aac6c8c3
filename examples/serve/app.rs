//! The app, apart from `main`: a function from the layer to the router, so that a test can give it a layer of
//! its own.

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use inngest_auth::{Caller, Form, InngestAuth, KeyRole};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What answers Inngest says so here; an answer without it counts as one that came from something else.
const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));

/// The layer stands before `/api/inngest` alone: `/healthz` is anybody's, unknown paths stay 404.
pub(crate) fn app(auth: InngestAuth) -> Router {
    Router::new()
        .route("/api/inngest", any(inspect).layer(auth))
        .route("/healthz", get(|| async { "ok" }))
}

/// Tells what came through. `body` is exactly the bytes that were authenticated.
async fn inspect(caller: Caller, body: Bytes) -> Response {
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
    let told = format!(
        r#"{{"mode":{},"key":{},"form":{},"signed_at":{},"bytes":{},"sha256":{}}}"#,
        json!(mode),
        json!(key),
        json!(form),
        json!(verified.map(|verified| verified.signed_at())),
        body.len(),
        json!(hex::encode(Sha256::digest(&body))),
    );
    let mut response = told.into_response();
    for (name, value) in [
        (CONTENT_TYPE.as_str(), "application/json"),
        ("x-inngest-sdk", SDK),
        ("x-inngest-req-version", "2"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
