//! Why a request was rejected: for the operator, never for the client.

use std::fmt;
use std::sync::Arc;

use crate::key::{Fingerprint, SigningKey};
use crate::keyring::Keys;
use crate::signature::SignatureError;
use crate::verify::VerifyError;

/// The longest text from outside the crate that is kept or logged, in bytes.
#[cfg(feature = "layer")]
const MAX_TEXT: usize = 256;

/// Cuts a text to [`MAX_TEXT`] bytes, or to a few less to keep its last character whole.
#[cfg(feature = "layer")]
pub(crate) fn cut(text: &str) -> &str {
    let mut ends = (0..=text.len().min(MAX_TEXT)).rev();
    let end = ends.find(|&end| text.is_char_boundary(end));
    &text[..end.expect("0 is a boundary")]
}

/// A rejected request: what was wrong with it, and details that help an operator find the cause.
///
/// The layer adds it to the extensions of the response to a rejected request:
#[cfg_attr(feature = "layer", doc = "```")]
#[cfg_attr(not(feature = "layer"), doc = "```text")]
/// use axum_core::response::Response;
/// use inngest_auth::{Rejection, RejectionKind};
///
/// /// In a layer outside `InngestAuth`.
/// fn is_clock_trouble(response: &Response) -> bool {
///     let rejection = response.extensions().get::<Rejection>();
///     let kind = rejection.map(Rejection::kind);
///     matches!(kind, Some(RejectionKind::Stale | RejectionKind::Future))
/// }
/// assert!(!is_clock_trouble(&Response::default()));
/// ```
#[derive(Clone)]
pub struct Rejection {
    kind: RejectionKind,
    detail: Option<Detail>,
    age: Option<i64>,
    keys_tried: [Option<Fingerprint>; 2],
    body_len: Option<u64>,
    content_encoding: Option<Box<str>>,
}

/// Details that the kind does not contain.
#[derive(Clone)]
enum Detail {
    Signature(SignatureError),
    /// The variable to set, and the configuration error's text.
    #[cfg_attr(
        not(feature = "layer"),
        expect(dead_code, reason = "a layer is made without a usable configuration")
    )]
    Configuration(&'static str, Arc<str>),
}

impl Rejection {
    /// Returns what was wrong.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// Returns the age of the signature in seconds, negative if it lies in the future, or `None` if
    /// no signature was parsed.
    #[must_use]
    pub fn age(&self) -> Option<i64> {
        self.age
    }

    /// Returns the fingerprints of the keys that did not match, the current key's first.
    pub fn keys_tried(&self) -> impl Iterator<Item = Fingerprint> {
        self.keys_tried.into_iter().flatten()
    }

    /// Returns the length of the body in bytes, if it was read to its end.
    #[must_use]
    pub fn body_len(&self) -> Option<u64> {
        self.body_len
    }

    /// Returns the request's `Content-Encoding`, cut to 256 bytes, if the signature did not match.
    ///
    /// If the body is still compressed here, it is not the body that was signed.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.content_encoding.as_deref()
    }

    /// Returns the name of the environment variable to set, if the configuration cannot be used.
    #[must_use]
    pub fn variable(&self) -> Option<&'static str> {
        match self.detail {
            Some(Detail::Configuration(variable, _)) => Some(variable),
            _ => None,
        }
    }

    /// Returns `true` if one header contained several signatures.
    #[cfg(feature = "layer")]
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.detail, Some(Detail::Signature(SignatureError::Joined)))
    }

    pub(crate) fn new(kind: RejectionKind) -> Self {
        Self {
            kind,
            detail: None,
            age: None,
            keys_tried: [None; 2],
            body_len: None,
            content_encoding: None,
        }
    }

    #[cfg(feature = "layer")]
    pub(crate) fn unconfigured(variable: &'static str, problem: Arc<str>) -> Self {
        Self {
            detail: Some(Detail::Configuration(variable, problem)),
            ..Self::new(RejectionKind::Unconfigured)
        }
    }

    /// Creates a rejection with what an operator compares when no key matched.
    pub(crate) fn mismatch(keys: &Keys, age: i64, body_len: usize) -> Self {
        Self {
            age: Some(age),
            keys_tried: [
                Some(keys.current().fingerprint()),
                keys.fallback().map(SigningKey::fingerprint),
            ],
            body_len: Some(body_len as u64),
            ..Self::new(RejectionKind::WrongSignature)
        }
    }

    #[cfg(feature = "layer")]
    pub(crate) fn with_content_encoding(mut self, value: Option<&[u8]>) -> Self {
        self.content_encoding = value.map(|value| {
            // Cut before, because it may be long, and after, because replacement characters are
            // longer than what they replace.
            let begin = &value[..value.len().min(MAX_TEXT)];
            cut(&String::from_utf8_lossy(begin)).into()
        });
        self
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Self {
        let kind = match error {
            SignatureError::Joined => RejectionKind::Doubled,
            _ => RejectionKind::Malformed,
        };
        Self {
            detail: Some(Detail::Signature(error)),
            ..Self::new(kind)
        }
    }
}

impl From<VerifyError> for Rejection {
    fn from(error: VerifyError) -> Self {
        let (kind, age) = match error {
            VerifyError::Stale { age } => (RejectionKind::Stale, age.try_into().ok()),
            VerifyError::Future { ahead } => (
                RejectionKind::Future,
                ahead.try_into().ok().map(i64::wrapping_neg),
            ),
            VerifyError::Mismatch => (RejectionKind::WrongSignature, None),
        };
        Self {
            age,
            ..Self::new(kind)
        }
    }
}

impl From<RejectionKind> for Rejection {
    fn from(kind: RejectionKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Prints only what is known. `Display` prints the errors.
        let mut debug = f.debug_struct("Rejection");
        debug.field("kind", &self.kind);
        if let Some(age) = self.age {
            debug.field("age_seconds", &age);
        }
        if self.keys_tried().next().is_some() {
            debug.field("keys_tried", &self.keys_tried().collect::<Vec<_>>());
        }
        if let Some(len) = self.body_len {
            debug.field("body_bytes", &len);
        }
        if let Some(encoding) = &self.content_encoding {
            debug.field("content_encoding", encoding);
        }
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(Detail::Signature(error)) => error.fmt(f),
            Some(Detail::Configuration(_, problem)) => f.write_str(problem),
            None => f.write_str(self.kind.what()),
        }
    }
}

impl std::error::Error for Rejection {}

/// The kinds of [`Rejection`], each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// 401: no `X-Inngest-Signature` header, or an empty one.
    Missing,
    /// 401: more than one `X-Inngest-Signature` header.
    Doubled,
    /// 401: the header does not match the grammar.
    Malformed,
    /// 401: signed longer ago than the tolerance.
    Stale,
    /// 401: signed further in the future than the tolerance.
    Future,
    /// 401: no key signed this body at that time.
    WrongSignature,
    /// 401: this signature was already accepted.
    Replayed,
    /// 401: signed before this process started, so another process may have accepted it. Only
    /// replay stores that forget on restart reject for this reason.
    BeforeStart,
    /// 413: the body is longer than the limit.
    BodyTooLarge,
    /// 408: the body did not arrive before the deadline.
    BodyTooSlow,
    /// 400: the body could not be read.
    BodyBroken,
    /// 503: unverified bodies have used up the layer's memory budget.
    OverBudget,
    /// 503: verified bodies waiting for their handlers have used up the layer's backlog.
    BacklogFull,
    /// 503: the replay store is down or full.
    StoreUnavailable,
    /// 500: the configuration cannot be used; the start-up log says why.
    Unconfigured,
    /// 500: the clock cannot tell the time.
    NoTime,
    /// 500: the body had not arrived yet, and the layer ran outside a Tokio runtime, whose timer it
    /// needs to limit the wait.
    NoRuntime,
}

impl RejectionKind {
    /// Returns the HTTP status of the response, unless
    /// `InngestAuth::on_rejection` chose another.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Missing
            | Self::Doubled
            | Self::Malformed
            | Self::Stale
            | Self::Future
            | Self::WrongSignature
            | Self::Replayed
            | Self::BeforeStart => 401,
            Self::BodyTooLarge => 413,
            Self::BodyTooSlow => 408,
            Self::BodyBroken => 400,
            Self::OverBudget | Self::BacklogFull | Self::StoreUnavailable => 503,
            Self::Unconfigured | Self::NoTime | Self::NoRuntime => 500,
        }
    }

    /// Returns the kind's name in snake case, for labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::WrongSignature => "wrong_signature",
            Self::Replayed => "replayed",
            Self::BeforeStart => "before_start",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyBroken => "body_broken",
            Self::OverBudget => "over_budget",
            Self::BacklogFull => "backlog_full",
            Self::StoreUnavailable => "store_unavailable",
            Self::Unconfigured => "unconfigured",
            Self::NoTime => "no_time",
            Self::NoRuntime => "no_runtime",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Missing => "no X-Inngest-Signature header",
            Self::Doubled => "more than one X-Inngest-Signature header",
            Self::Malformed => "malformed X-Inngest-Signature header",
            Self::Stale => "the signature is older than the tolerance",
            Self::Future => "the signature is further in the future than the tolerance allows",
            Self::WrongSignature => "no key matches the signature",
            Self::Replayed => "this signature was already accepted",
            Self::BeforeStart => {
                "signed before this process started: another process may have accepted it"
            }
            Self::BodyTooLarge => "the body exceeds the limit",
            Self::BodyTooSlow => "the body did not arrive before its deadline",
            Self::BodyBroken => "failed to read the body",
            Self::OverBudget => "unverified bodies have used up the memory budget",
            Self::BacklogFull => "verified bodies waiting for the handler have used up the backlog",
            Self::StoreUnavailable => "the replay store is down or full",
            Self::Unconfigured => "the configuration cannot be used",
            Self::NoTime => "the clock cannot tell the time",
            Self::NoRuntime => {
                "the layer cannot wait for the body outside a Tokio runtime: run the server in \
                 one, with its timer enabled"
            }
        }
    }
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(all(test, feature = "layer"))]
mod tests {
    use super::*;

    #[test]
    fn a_content_encoding_is_cut_to_its_limit_whatever_its_bytes() {
        let coding = |value: &[u8]| {
            let rejection = Rejection::new(RejectionKind::WrongSignature);
            let rejection = rejection.with_content_encoding(Some(value));
            rejection.content_encoding().unwrap().to_owned()
        };
        for (value, kept) in [
            ("gzip".into(), "gzip".into()),
            ("x".repeat(256), "x".repeat(256)),
            ("x".repeat(257), "x".repeat(256)),
            ("ä".repeat(500), "ä".repeat(128)),
            (
                format!("x{}", "ä".repeat(500)),
                format!("x{}", "ä".repeat(127)),
            ),
        ] {
            assert_eq!(coding(value.as_bytes()), kept);
        }
        assert_eq!(coding(&[0xff; 400]), "\u{fffd}".repeat(85));
    }
}
