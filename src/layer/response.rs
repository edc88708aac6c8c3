//! The answers that the layer gives itself.

use axum_core::body::Body;
use axum_core::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Extensions, HeaderName, HeaderValue, StatusCode};

use super::rejection::{Rejection, RejectionKind};
use crate::signature::SIGNATURE_HEADER;
use crate::verify::Verified;

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);
pub(super) const SYNC_KIND: HeaderName = HeaderName::from_static("x-inngest-sync-kind");
const NO_RETRY: HeaderName = HeaderName::from_static("x-inngest-no-retry");
const SDK: HeaderName = HeaderName::from_static("x-inngest-sdk");
const SDK_HANDLED: HeaderName = HeaderName::from_static("x-inngest-sdk-handled");

pub(super) type OnRejection = dyn Fn(&Rejection, Response) -> Response + Send + Sync;

/// The refusal as the sender sees it. `close`: the rest of the request's body was not read, so that an HTTP/1
/// connection cannot be used again.
pub(super) fn refuse(rejection: Rejection, close: bool, on_rejection: Option<&OnRejection>) -> Response {
    rejection.log();
    let kind = rejection.kind();
    let mut response = match rejection.config {
        // The one reason that a sender is told: whoever deploys looks here first.
        Some(config) => refusal(kind.status(), format!(r#"{{"message":"Set {}"}}"#, config.variable())),
        None => message(kind.status()),
    };
    if kind.status() == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(on_rejection) = on_rejection {
        response = fence(kind, on_rejection(&rejection, response));
    }
    if close {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.extensions_mut().insert(rejection);
    response
}

/// Takes back from a custom refusal what would make it anything else: Inngest counts a 2xx as a completed run,
/// follows a redirect, never sends again after `X-Inngest-No-Retry`; a signature would vouch for it.
fn fence(kind: RejectionKind, mut response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        *response.status_mut() = kind.status();
    }
    for header in [NO_RETRY, LOCATION, SIGNATURE] {
        response.headers_mut().remove(header);
    }
    // Whoever looks for the outcome of this request finds one: the rejection.
    response.extensions_mut().remove::<Verified>();
    response
}

/// A status and its name, in the shape that Inngest's SDKs answer.
pub(super) fn message(status: StatusCode) -> Response {
    let body = match status {
        StatusCode::UNAUTHORIZED => r#"{"message":"Unauthorized"}"#,
        StatusCode::PAYLOAD_TOO_LARGE => r#"{"message":"Payload Too Large"}"#,
        StatusCode::REQUEST_TIMEOUT => r#"{"message":"Request Timeout"}"#,
        StatusCode::BAD_REQUEST => r#"{"message":"Bad Request"}"#,
        StatusCode::SERVICE_UNAVAILABLE => r#"{"message":"Service Unavailable"}"#,
        _ => r#"{"message":"Internal Server Error"}"#,
    };
    refusal(status, body)
}

fn refusal(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = json(status, body);
    response
        .headers_mut()
        .insert(SDK_HANDLED, HeaderValue::from_static("true"));
    response
}

/// In place of an answer whose body broke while it was read to be signed.
pub(super) fn unreadable(outcome: Extensions, error: &(dyn std::error::Error + Send + Sync)) -> Response {
    tracing::error!("an answer could not be read to be signed: {error}");
    let mut response = message(StatusCode::INTERNAL_SERVER_ERROR);
    *response.extensions_mut() = outcome;
    response
}

pub(super) const TRUSTED: Bytes = Bytes::from_static(b"{}");

/// The answer to Inngest's question whether this endpoint holds its key.
pub(super) fn trust_probe() -> Response {
    let mut response = json(StatusCode::OK, TRUSTED);
    response.headers_mut().insert(SDK, HeaderValue::from_static(crate::SDK));
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
