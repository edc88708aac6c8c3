//! Responses that the layer makes itself.

use axum_core::body::Body;
use axum_core::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, TRAILER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::headers::SIGNATURE;
use crate::rejection::{Rejection, RejectionKind};
use crate::sdk::SDK;

const NO_RETRY: HeaderName = HeaderName::from_static("x-inngest-no-retry");
const SDK_HEADER: HeaderName = HeaderName::from_static("x-inngest-sdk");
const SDK_HANDLED: HeaderName = HeaderName::from_static("x-inngest-sdk-handled");

pub(super) type OnRejection = dyn Fn(&Rejection, Response) -> Response + Send + Sync;

/// Builds the response to a rejected request.
///
/// `close` is set if the rest of the request's body was not read, so that an HTTP/1 connection
/// cannot be reused.
pub(super) fn reject(
    rejection: Rejection,
    close: bool,
    on_rejection: Option<&OnRejection>,
) -> Response {
    let kind = rejection.kind();
    let mut response = match rejection.variable() {
        // The only reason that a client is told, because a person who deploys the app looks here
        // first.
        Some(variable) => handled(status(kind), format!(r#"{{"message":"Set {variable}"}}"#)),
        None => message(status(kind)),
    };
    if let Some(on_rejection) = on_rejection {
        response = restrict(kind, on_rejection(&rejection, response));
    }
    if close {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.extensions_mut().insert(rejection);
    response
}

/// Removes from a custom rejection what would make it anything else. Inngest counts a 2xx as a
/// completed run, follows redirects, and never retries after `X-Inngest-No-Retry`. It takes
/// `Retry-After` as the time of its next attempt: if that is short, a run uses up all its attempts
/// within seconds. A signature would authenticate the rejection.
fn restrict(kind: RejectionKind, mut response: Response) -> Response {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        *response.status_mut() = status(kind);
    }
    // `Trailer` too: on HTTP/1, hyper sends only the trailers that it declares, and these could
    // repeat the other headers.
    for header in [NO_RETRY, RETRY_AFTER, LOCATION, SIGNATURE, TRAILER] {
        response.headers_mut().remove(header);
    }
    response
}

fn status(kind: RejectionKind) -> StatusCode {
    StatusCode::from_u16(kind.status()).expect("a kind's status is one of HTTP's")
}

/// Builds a response from a status, with its name in the format that Inngest's SDKs use.
///
/// The text depends on the status alone, so that it does not reveal why a signature was rejected.
pub(super) fn message(status: StatusCode) -> Response {
    let body = match status {
        StatusCode::UNAUTHORIZED => r#"{"message":"Unauthorized"}"#,
        StatusCode::PAYLOAD_TOO_LARGE => r#"{"message":"Payload Too Large"}"#,
        StatusCode::REQUEST_TIMEOUT => r#"{"message":"Request Timeout"}"#,
        StatusCode::BAD_REQUEST => r#"{"message":"Bad Request"}"#,
        StatusCode::SERVICE_UNAVAILABLE => r#"{"message":"Service Unavailable"}"#,
        _ => r#"{"message":"Internal Server Error"}"#,
    };
    handled(status, body)
}

fn handled(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = json(status, body);
    response
        .headers_mut()
        .insert(SDK_HANDLED, HeaderValue::from_static("true"));
    response
}

/// Builds the response to a verified trust probe. It is a constant, because it is signed.
pub(super) fn trust_probe() -> Response {
    let mut response = json(StatusCode::OK, Bytes::from_static(b"{}"));
    response
        .headers_mut()
        .insert(SDK_HEADER, HeaderValue::from_static(SDK));
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
