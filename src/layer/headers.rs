//! Inbound headers: what is read of a request, and what is rewritten before it is forwarded.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::signature::{SIGNATURE_HEADER, Signature};

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);
pub(super) const SYNC_KIND: HeaderName = HeaderName::from_static("x-inngest-sync-kind");
const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");
/// A durable endpoint that is re-entered carries the id of its run.
const RUN_ID: HeaderName = HeaderName::from_static("x-run-id");

/// Headers that describe a body as it was sent, which is not always how it is forwarded (RFC 9530, and
/// what it replaced); and a request for the connection itself: nobody signed what would follow on it.
const NOT_FORWARDED: [HeaderName; 7] = [
    UPGRADE,
    TRANSFER_ENCODING,
    TRAILER,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

/// What a request asks for. Nothing of this is signed: it may narrow what is done, and never widens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `POST ?probe=trust`: the layer itself responds.
    TrustProbe,
    /// `PUT` without `fnId`, `stepId` or `probe`.
    Sync,
    /// `GET` or `HEAD` with an empty body: runs nothing.
    Introspection,
    /// Everything else may run a function.
    Call,
}

impl Purpose {
    pub(super) fn of<B>(request: &Request<B>, body_len: usize) -> Self {
        match *request.method() {
            Method::POST if asks_for_trust(request.uri()) => Self::TrustProbe,
            // A durable endpoint runs steps by any method, with an empty body too.
            _ if request.headers().contains_key(RUN_ID) => Self::Call,
            Method::PUT if asks_only_for_a_sync(request.uri()) => Self::Sync,
            Method::GET | Method::HEAD if body_len == 0 && !names_a_function(request.uri()) => {
                Self::Introspection
            }
            _ => Self::Call,
        }
    }

    /// Returns `true` if a request for this runs no function, so that a repeated one does no harm.
    pub(super) fn runs_nothing(self) -> bool {
        matches!(self, Self::TrustProbe | Self::Introspection)
    }
}

/// Returns `true` for a sync that nobody signed: a `PUT` without a signature, or with an empty one.
pub(super) fn is_unsigned_sync<B>(request: &Request<B>) -> bool {
    let mut signatures = request.headers().get_all(SIGNATURE).iter();
    request.method() == Method::PUT
        && signatures.next().is_none_or(HeaderValue::is_empty)
        && signatures.next().is_none()
        && asks_only_for_a_sync(request.uri())
        && !request.headers().contains_key(RUN_ID)
}

fn names_a_function(uri: &Uri) -> bool {
    query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId"))
}

/// Returns `true` if a header is a signature by its form.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    let mut signatures = headers.get_all(SIGNATURE).iter();
    signatures.any(|signature| Signature::parse(signature.as_bytes()).is_ok())
}

/// Returns `true` if an unsigned request looks like one of a server that has no key. Anyone can make
/// it look so.
pub(super) fn is_like_a_dev_servers(headers: &HeaderMap) -> bool {
    headers.get(SERVER_KIND).is_some_and(|kind| kind == "dev")
        || headers.get(SIGNATURE).is_some_and(HeaderValue::is_empty)
}

/// Returns `true` if a request whose signature is wrong looks like one of Inngest Cloud's, which
/// probes apps with other environments' keys too.
pub(super) fn is_foreign_probe<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(RUN_ID)
}

/// Returns `true` if the body is said to be coded.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| coding != "identity")
}

/// A query that names a function, a step or a probe asks for a call or a probe.
fn asks_only_for_a_sync(uri: &Uri) -> bool {
    !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId" | "probe"))
}

/// Exactly one `probe`, which asks for trust. Beside a function or a step it is the handler's.
fn asks_for_trust(uri: &Uri) -> bool {
    if !uri.query().is_some_and(may_ask_for_trust) {
        return false;
    }
    let mut probes = query(uri).filter(|(name, _)| name == "probe");
    probes.next().is_some_and(|(_, value)| value == "trust")
        && probes.next().is_none()
        && !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId"))
}

/// Returns `false` for calls, which most requests are: they cannot spell it, however it is decoded.
fn may_ask_for_trust(query: &str) -> bool {
    !query.starts_with("fnId=") && (query.contains("probe") || query.contains('%'))
}

fn query(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

/// Returns the length that `Content-Length` announces, in bytes.
pub(super) fn announced_len(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(parse_len)
}

/// Parses `1*DIGIT` (RFC 9110 §8.6): a sign, which `str::parse` takes, is no part of it.
fn parse_len(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    let add = |len: u64, &digit: &u8| {
        let digit = u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        len.checked_mul(10)?.checked_add(digit)
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, add)
}

/// Returns `true` if the sender waits to be told to send the body.
pub(super) fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expect = headers.get(EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes the headers agree with the body that is forwarded: `len` bytes, said once, and nothing about how they were sent.
pub(super) fn describe_body(headers: &mut HeaderMap, len: usize) {
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    // Without leading zeros, which a parser behind us may take for octal.
    let plain = |value: &&HeaderValue| value.len() == 1 || !value.as_bytes().starts_with(b"0");
    let right =
        (said.next().filter(plain).and_then(parse_len), said.next()) == (Some(len as u64), None);
    if !right {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    // Names are cheaper to compare than to look up one by one.
    if headers.keys().any(|name| NOT_FORWARDED.contains(name)) {
        for header in NOT_FORWARDED {
            headers.remove(header);
        }
    }
}

/// Removes what an unsigned sync must not say: in-band needs a signature, and there is no body left to be encoded.
pub(super) fn strip_unsigned_sync(headers: &mut HeaderMap) {
    headers.remove(SYNC_KIND);
    headers.remove(CONTENT_ENCODING);
    headers.remove(SIGNATURE);
}

/// Returns `true` if the header says that the sync goes in band.
pub(super) fn is_in_band(headers: &HeaderMap) -> bool {
    headers.get(SYNC_KIND).is_some_and(|kind| kind == "in_band")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        for (text, len) in [
            ("0", Some(0)),
            ("962", Some(962)),
            ("0962", Some(962)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("", None),
            ("+2", None),
            ("-2", None),
            (" 2", None),
            ("2 ", None),
            ("2,2", None),
            ("0x2", None),
            ("2a", None),
            ("/", None),
            (":", None),
        ] {
            assert_eq!(parse_len(&HeaderValue::from_static(text)), len, "{text:?}");
        }
    }

    #[test]
    fn headers_describe_the_body_that_is_forwarded() {
        for (sent, len, forwarded) in [
            (&["2"][..], 2, "2"),
            (&["0"], 0, "0"),
            (&[], 2, "2"),
            (&["3"], 2, "2"),
            (&["02"], 2, "2"),
            (&["00"], 0, "0"),
            (&["+2"], 2, "2"),
            (&["2", "2"], 2, "2"),
            (&["2", "3"], 2, "2"),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(value));
            }
            describe_body(&mut headers, len);
            let now: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(now, [forwarded], "{sent:?} of {len}");
        }
        for name in NOT_FORWARDED {
            let mut headers = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
            describe_body(&mut headers, 0);
            assert_eq!(headers.len(), 1, "{headers:?}");
        }
    }

    #[test]
    fn a_request_is_what_its_method_query_and_body_say() {
        for (method, uri, run_id, len, purpose) in [
            ("POST", "/?probe=trust", false, 0, Purpose::TrustProbe),
            ("POST", "/?probe=trust", false, 7, Purpose::TrustProbe),
            (
                "POST",
                "/?a=b&%70robe=tr%75st",
                false,
                0,
                Purpose::TrustProbe,
            ),
            ("GET", "/?probe=trust", false, 7, Purpose::Call),
            ("PUT", "/?probe=trust", false, 0, Purpose::Call),
            ("POST", "/?probe=trust&probe=trust", false, 0, Purpose::Call),
            ("POST", "/?probe=other", false, 0, Purpose::Call),
            ("POST", "/?probe=trust&fnId=a", false, 0, Purpose::Call),
            ("POST", "/?fnId=a&probe=trust", false, 0, Purpose::Call),
            ("POST", "/?probe=trust&stepId=a", false, 0, Purpose::Call),
            ("POST", "/", false, 0, Purpose::Call),
            ("PUT", "/", false, 7, Purpose::Sync),
            ("PUT", "/?deployId=1", false, 0, Purpose::Sync),
            ("PUT", "/?fnId=a", false, 0, Purpose::Call),
            ("PUT", "/?a=b&st%65pId=a", false, 0, Purpose::Call),
            ("GET", "/?fnId=a", false, 0, Purpose::Call),
            ("GET", "/?deployId=a", false, 0, Purpose::Introspection),
            ("PUT", "/", true, 0, Purpose::Call),
            ("HEAD", "/", false, 0, Purpose::Introspection),
            ("GET", "/", false, 1, Purpose::Call),
            ("HEAD", "/", false, 1, Purpose::Call),
            ("GET", "/", true, 0, Purpose::Call),
            ("HEAD", "/", true, 0, Purpose::Call),
            ("get", "/", false, 0, Purpose::Call),
            ("DELETE", "/", false, 0, Purpose::Call),
        ] {
            let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
            if run_id {
                request
                    .headers_mut()
                    .insert(RUN_ID, HeaderValue::from_static("run"));
            }
            assert_eq!(
                Purpose::of(&request, len),
                purpose,
                "{method} {uri} {len}, run id: {run_id}"
            );
        }
    }
}
