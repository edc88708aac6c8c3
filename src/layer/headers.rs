//! Inbound headers: what is read from a request, and what is rewritten before it is forwarded.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::signature::{SIGNATURE_HEADER, Signature};

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);
pub(super) const SYNC_KIND: HeaderName = HeaderName::from_static("x-inngest-sync-kind");
const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");
/// A re-entered durable endpoint receives the id of its run in this header.
const RUN_ID: HeaderName = HeaderName::from_static("x-run-id");

/// Headers that are not forwarded. Some describe the body as sent, which may differ from the
/// forwarded body (RFC 9530, and the headers that it replaced). `Upgrade` asks for the connection
/// itself, and the signature does not cover what would follow on it.
const NOT_FORWARDED: [HeaderName; 7] = [
    UPGRADE,
    TRANSFER_ENCODING,
    TRAILER,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

/// What a request asks for, judged by unsigned parts of it. So a purpose may restrict what is done,
/// but never extend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `POST ?probe=trust`, to which the layer itself responds.
    TrustProbe,
    /// `PUT` without `fnId`, `stepId` or `probe`.
    Sync,
    /// `GET` or `HEAD` with an empty body, which runs nothing.
    Introspection,
    /// Everything else may run a function.
    Call,
}

impl Purpose {
    pub(super) fn of<B>(request: &Request<B>, body_len: usize) -> Self {
        let uri = request.uri();
        let purpose = match *request.method() {
            Method::POST if asks_for_trust(uri) => return Self::TrustProbe,
            Method::PUT if asks_only_for_a_sync(uri) => Self::Sync,
            Method::GET | Method::HEAD if body_len == 0 && !names_a_function(uri) => {
                Self::Introspection
            }
            _ => return Self::Call,
        };
        // Inngest re-enters durable endpoints with any method, and also with an empty body.
        if request.headers().contains_key(RUN_ID) {
            return Self::Call;
        }
        purpose
    }

    /// Returns `true` if such a request runs no function, so that repeating it is harmless.
    pub(super) fn runs_nothing(self) -> bool {
        matches!(self, Self::TrustProbe | Self::Introspection)
    }
}

/// Returns `true` for an unsigned sync: a `PUT` with no signature, or with one empty signature.
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

/// Returns `true` if a header has the form of a signature.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    let mut signatures = headers.get_all(SIGNATURE).iter();
    signatures.any(|signature| Signature::parse(signature.as_bytes()).is_ok())
}

/// Returns `true` if an unsigned request looks like one from a server that has no key. Anyone can
/// send such a request.
pub(super) fn looks_like_a_dev_server(headers: &HeaderMap) -> bool {
    headers.get(SERVER_KIND).is_some_and(|kind| kind == "dev")
        || headers.get(SIGNATURE).is_some_and(HeaderValue::is_empty)
}

/// Returns `true` if a request with a wrong signature looks like one from Inngest Cloud, which also
/// probes apps with other environments' keys.
pub(super) fn is_foreign_probe<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(RUN_ID)
}

/// Returns `true` if the headers declare a content coding.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| coding != "identity")
}

/// Returns `true` if the query names no function, step or probe. Such a name asks for a call or a
/// probe instead.
///
/// Unauthenticated clients reach this, and parsing 60 KB takes most of a millisecond. So a query
/// over 1 KiB is not parsed. No genuine sync has one.
fn asks_only_for_a_sync(uri: &Uri) -> bool {
    uri.query().is_none_or(|query| query.len() <= 1024)
        && !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId" | "probe"))
}

/// Returns `true` if the query has exactly one `probe`, with the value `trust`. With a function or
/// a step as well, the request is for the handler.
fn asks_for_trust(uri: &Uri) -> bool {
    if !uri.query().is_some_and(may_ask_for_trust) {
        return false;
    }
    let mut probes = query(uri).filter(|(name, _)| name == "probe");
    probes.next().is_some_and(|(_, value)| value == "trust")
        && probes.next().is_none()
        && !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId"))
}

/// Returns `false` for calls, which most requests are. Their query cannot contain `probe`, even
/// percent-encoded, so they skip the decoding.
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

/// Returns the bytes that the headers take in memory, if there are so many that they count.
///
/// On HTTP/2 a header that was sent before takes one byte on the wire, and over 100 in the map.
pub(super) fn many(headers: &HeaderMap) -> Option<usize> {
    /// Genuine requests have about 20.
    const FEW: usize = 64;
    /// In bytes: measured 120, in maps that have just doubled.
    const ONE: usize = 128;
    (headers.len() > FEW).then(|| headers.len() * ONE)
}

/// Parses `1*DIGIT` (RFC 9110 §8.6). `str::parse` would also accept a sign.
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

/// Returns `true` if the client waits for `100 Continue` before it sends the body.
pub(super) fn waits_for_continue(headers: &HeaderMap) -> bool {
    let expect = headers.get(EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes the headers agree with the forwarded body: exactly one `Content-Length`, of `len` bytes,
/// and nothing about how the body was sent.
pub(super) fn describe_body(headers: &mut HeaderMap, len: usize) {
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    // Leading zeros are removed, because a parser behind this layer may read such a number as
    // octal.
    let plain = |value: &&HeaderValue| value.len() == 1 || !value.as_bytes().starts_with(b"0");
    let right =
        (said.next().filter(plain).and_then(parse_len), said.next()) == (Some(len as u64), None);
    if !right {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    // Comparing names is cheaper than looking up each one.
    if headers.keys().any(|name| NOT_FORWARDED.contains(name)) {
        for header in NOT_FORWARDED {
            headers.remove(header);
        }
    }
}

/// Removes headers that an unsigned sync must not have. An in-band sync needs a signature, and the
/// body that the encoding describes is dropped.
pub(super) fn strip_unsigned_sync(headers: &mut HeaderMap) {
    headers.remove(SYNC_KIND);
    headers.remove(CONTENT_ENCODING);
    headers.remove(SIGNATURE);
}

/// Returns `true` if the header says that the sync is in band.
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
    fn a_query_over_1_kib_asks_for_no_sync() {
        for (len, is_sync) in [(1024, true), (1025, false)] {
            let uri = format!("/?{}", "a".repeat(len));
            let request = Request::put(uri).body(()).unwrap();
            assert_eq!(is_unsigned_sync(&request), is_sync, "{len}");
            assert_eq!(Purpose::of(&request, 0) == Purpose::Sync, is_sync, "{len}");
        }
    }

    #[test]
    fn the_purpose_follows_from_method_query_run_id_and_body() {
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
