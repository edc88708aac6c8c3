//! What a request says of itself: what it asks for, and what it tells the handler.

use axum_core::body::Body;
use axum_core::extract::DefaultBodyLimit;
use http::header::{CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::caller::Caller;
use crate::verify::Verified;

/// Headers about a body as it was sent, which is not always how it is handed on. (RFC 9530, and what it replaced.)
const ABOUT_THE_BODY: [HeaderName; 6] = [
    TRANSFER_ENCODING,
    TRAILER,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

/// Makes what is handed on agree with itself: `len` bytes, said once, and nothing about how they were sent.
pub(super) fn describe(request: &mut Request<Body>, len: usize, caller: Caller) {
    let headers = request.headers_mut();
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let right = (said.next().and_then(number), said.next().is_none()) == (Some(len as u64), true);
    if !right {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    // Names are cheaper to compare than to look up one by one.
    if headers.keys().any(|name| ABOUT_THE_BODY.contains(name)) {
        for header in ABOUT_THE_BODY {
            headers.remove(header);
        }
    }
    // Axum's extractors stop at 2 MB unless told: these bytes are bounded already.
    DefaultBodyLimit::max(len).apply(request);
    mark(request, caller);
}

/// What an outer layer left behind must not speak for this request.
pub(super) fn mark(request: &mut Request<Body>, caller: Caller) {
    request.extensions_mut().remove::<Verified>();
    request.extensions_mut().insert(caller);
}

pub(super) fn announces_more_than(headers: &HeaderMap, limit: usize) -> bool {
    let announced = headers.get(CONTENT_LENGTH).and_then(number);
    announced.is_some_and(|len| len > limit as u64)
}

/// Whether the sender waits to be told to send the body.
pub(super) fn waits_to_send(headers: &HeaderMap) -> bool {
    let expect = headers.get(EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// A `PUT` that asks for a sync and nothing else: what names a function, a step or a probe is a call.
pub(super) fn asks_only_for_a_sync(method: &Method, uri: &Uri) -> bool {
    let mut names = query(uri).map(|(name, _)| name);
    method == Method::PUT && !names.any(|name| matches!(&*name, "fnId" | "stepId" | "probe"))
}

/// Exactly one `probe`, and it asks for trust; beside a function or a step it is the handler's.
pub(super) fn asks_for_trust(method: &Method, uri: &Uri) -> bool {
    // Calls, which are most of what comes, cannot spell it however they are decoded.
    let may = |query: &str| query.contains("probe") || query.contains('%');
    if !uri.query().is_some_and(may) {
        return false;
    }
    let mut probes = query(uri).filter(|(name, _)| name == "probe");
    method == Method::POST
        && probes.next().is_some_and(|(_, value)| value == "trust")
        && probes.next().is_none()
        && !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId"))
}

fn query(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}
