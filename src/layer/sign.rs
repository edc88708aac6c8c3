//! Which responses are signed, and how.

use std::fmt;

use axum_core::BoxError;
use axum_core::body::Body;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::body::buffer::Buffer;
use super::headers::{Purpose, SIGNATURE, is_in_band};
use crate::signature::Signature;
use crate::verifier::ResponseSigner;

/// The longest response, in bytes, that is buffered for signing.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// Which responses [`InngestAuth`](crate::InngestAuth) signs.
///
/// A signed response is a valid signature of its bytes: anyone who sees it can send those bytes
/// back as a call. A handler may repeat what a captured request contained. So by default only the
/// responses that Inngest requires to be signed are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignResponses {
    /// Signs what Inngest requires (the default). That is the constant `{}` in response to a trust
    /// probe, and a **200** response with `X-Inngest-Sync-Kind: in_band` to a verified `PUT` whose
    /// query has no `fnId`, `stepId` or `probe`.
    #[default]
    Required,
    /// Signs every 2xx response to a verified request.
    ///
    /// Without a [replay guard](crate::replay) this is dangerous if a handler repeats any part of
    /// its request. Anyone who sends a captured request then chooses what is signed: a call with
    /// any input, until the request's window closes. With a guard, every signed response is
    /// recorded first and cannot come back as a call.
    All,
    /// Signs nothing. Inngest Cloud then rejects in-band syncs and trust probes.
    Never,
}

/// Why a response is sent unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// The setting does not require a signature.
    NotRequired,
    /// The handler has set the header itself.
    HasSignature,
    Empty,
    /// The body is encoded, so its bytes are not those that Inngest checks.
    Coded,
    Stream,
    TooLong,
    Trailers,
    TooLate,
    /// The replay store could not record the signature.
    NotRecorded,
}

impl Unsigned {
    /// Returns the reason in snake case, for log fields.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotRequired => "not_required",
            Self::HasSignature => "has_signature",
            Self::Empty => "empty",
            Self::Coded => "content_encoding",
            Self::Stream => "stream",
            Self::TooLong => "too_long",
            Self::Trailers => "trailers",
            Self::TooLate => "too_late",
            Self::NotRecorded => "not_recorded",
        }
    }
}

impl fmt::Display for SignResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl SignResponses {
    /// Returns the setting in snake case, for labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::All => "all",
            Self::Never => "never",
        }
    }

    /// Returns `false` if no response to such a request is ever signed.
    pub(super) fn apply_to(self, purpose: Purpose) -> bool {
        match self {
            Self::Required => matches!(purpose, Purpose::TrustProbe | Purpose::Sync),
            Self::All => true,
            Self::Never => false,
        }
    }

    /// Decides from a response's status, headers and body length whether it is signed.
    pub(super) fn check(self, purpose: Purpose, response: &Response<Body>) -> Result<(), Unsigned> {
        let headers = response.headers();
        let required = match purpose {
            Purpose::TrustProbe => true,
            // The request's method and query are not signed, so a captured call could pose as a
            // sync. Only the handler's own header says that it handled one.
            Purpose::Sync => response.status() == StatusCode::OK && is_in_band(headers),
            Purpose::Introspection | Purpose::Call => false,
        };
        let wanted = required || (self == Self::All && response.status().is_success());
        match response.body().size_hint().exact() {
            _ if !wanted => Err(Unsigned::NotRequired),
            _ if headers.contains_key(SIGNATURE) => Err(Unsigned::HasSignature),
            _ if headers.contains_key(CONTENT_ENCODING) => Err(Unsigned::Coded),
            _ if response.status() == StatusCode::NO_CONTENT => Err(Unsigned::Empty),
            None => Err(Unsigned::Stream),
            Some(0) => Err(Unsigned::Empty),
            Some(len) if len > MAX_LEN => Err(Unsigned::TooLong),
            Some(_) => Ok(()),
        }
    }
}

/// A response's body in memory, unchanged.
#[derive(Default)]
pub(super) struct Buffered {
    bytes: Buffer,
    trailers: Option<Box<HeaderMap>>,
}

impl Buffered {
    pub(super) fn sign(&self, signer: &ResponseSigner) -> Result<Signature, Unsigned> {
        match self.trailers {
            // A signature does not cover trailers.
            Some(_) => Err(Unsigned::Trailers),
            None => signer.sign(self.bytes.iter()).ok_or(Unsigned::Empty),
        }
    }

    pub(super) fn into_body(self) -> Body {
        self.bytes
            .into_body(None, self.trailers.map(|trailers| *trailers))
    }
}

/// Buffers a body of known length for signing.
pub(super) async fn buffer(body: &mut Body) -> Result<Buffered, BoxError> {
    let declared = body
        .size_hint()
        .exact()
        .ok_or("body has no declared length")?;
    let mut buffered = Buffered::default();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => buffered.bytes.keep(data),
            Err(frame) => buffered.trailers = frame.into_trailers().ok().map(Box::new),
        }
        if buffered.bytes.len() as u64 > declared {
            return Err("body is longer than its declared length".into());
        }
    }
    if (buffered.bytes.len() as u64) < declared {
        return Err("body is shorter than its declared length".into());
    }
    Ok(buffered)
}
