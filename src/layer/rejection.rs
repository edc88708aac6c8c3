//! Why a request was refused: for the operator, never for the sender.

use std::fmt;

use http::{HeaderValue, StatusCode};

use crate::config::ConfigError;
use crate::key::{Fingerprint, SigningKey};
use crate::keyring::Keys;
use crate::signature::SignatureError;
use crate::verify::VerifyError;

/// A refused request, as it stands in the extensions of the response that refused it.
///
/// ```
/// use axum_core::response::Response;
/// use inngest_auth::{Rejection, RejectionKind};
///
/// /// In a layer outside of `InngestAuth`.
/// fn is_clock_trouble(response: &Response) -> bool {
///     let rejection = response.extensions().get::<Rejection>();
///     rejection.is_some_and(|r| matches!(r.kind(), RejectionKind::Stale | RejectionKind::Future))
/// }
/// assert!(!is_clock_trouble(&Response::default()));
/// ```
#[derive(Clone)]
pub struct Rejection {
    kind: RejectionKind,
    pub(super) signature: Option<SignatureError>,
    pub(super) config: Option<ConfigError>,
    pub(super) age: Option<i64>,
    pub(super) keys_tried: [Option<Fingerprint>; 2],
    pub(super) body_len: Option<u64>,
    pub(super) content_encoding: Option<HeaderValue>,
}

impl Rejection {
    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// How old the signature was, in seconds; negative where it lay in the future. `None` where none was read.
    #[must_use]
    pub fn age(&self) -> Option<i64> {
        self.age
    }

    /// The fingerprints of the keys that did not match, current first, of those that have one.
    pub fn keys_tried(&self) -> impl Iterator<Item = Fingerprint> {
        self.keys_tried.into_iter().flatten()
    }

    /// The body's length in bytes, where it was read to its end.
    #[must_use]
    pub fn body_len(&self) -> Option<u64> {
        self.body_len
    }

    /// The request's `Content-Encoding`. A body that is still compressed here is not what was signed.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&HeaderValue> {
        self.content_encoding.as_ref()
    }

    pub(super) fn new(kind: RejectionKind) -> Self {
        Self {
            kind,
            signature: None,
            config: None,
            age: None,
            keys_tried: [None; 2],
            body_len: None,
            content_encoding: None,
        }
    }

    pub(super) fn malformed(error: SignatureError) -> Self {
        Self {
            signature: Some(error),
            ..Self::new(RejectionKind::Malformed)
        }
    }

    pub(super) fn unconfigured(error: ConfigError) -> Self {
        Self {
            config: Some(error),
            ..Self::new(RejectionKind::Unconfigured)
        }
    }

    pub(super) fn unverified(error: VerifyError) -> Self {
        let (kind, age) = match error {
            VerifyError::Stale { age } => (RejectionKind::Stale, age.try_into().ok()),
            VerifyError::Future { ahead } => (RejectionKind::Future, ahead.try_into().ok().map(i64::wrapping_neg)),
            VerifyError::Mismatch => (RejectionKind::WrongSignature, None),
        };
        Self { age, ..Self::new(kind) }
    }

    pub(super) fn tried(mut self, keys: &Keys) -> Self {
        self.keys_tried = [
            Some(keys.current().fingerprint()),
            keys.fallback().map(SigningKey::fingerprint),
        ];
        self
    }

    /// DEBUG for what any scanner makes, WARN for what an operator should look at.
    pub(super) fn log(&self) {
        use RejectionKind as Kind;
        match self.kind {
            Kind::Missing | Kind::Doubled | Kind::Malformed | Kind::BodyTooSlow | Kind::BodyBroken => {
                tracing::debug!(rejection = ?self, "refused: {self}");
            }
            _ => tracing::warn!(rejection = ?self, "refused: {self}"),
        }
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is there; `Display` has the errors.
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
        match (self.signature, self.config) {
            (Some(error), _) => error.fmt(f),
            (_, Some(error)) => error.fmt(f),
            _ => f.write_str(self.kind.what()),
        }
    }
}

impl std::error::Error for Rejection {}

/// The kinds of [`Rejection`], each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// 401: no `X-Inngest-Signature`.
    Missing,
    /// 401: more than one.
    Doubled,
    /// 401: one that breaks the grammar.
    Malformed,
    /// 401: signed longer ago than the tolerance.
    Stale,
    /// 401: signed further ahead than the tolerance.
    Future,
    /// 401: no key signed this body at that time.
    WrongSignature,
    /// 401: this very signature was accepted before.
    Replayed,
    /// 413: the body is longer than the limit.
    BodyTooLarge,
    /// 408: the body did not end before the deadline.
    BodyTooSlow,
    /// 400: the body ended in an error.
    BodyBroken,
    /// 503: the bodies not yet verified have used up the layer's budget.
    OverBudget,
    /// 503: the replay store is down or full.
    StoreUnavailable,
    /// 500: the configuration cannot be used; the start-up log says why.
    Unconfigured,
    /// 500: the clock cannot tell the time.
    NoTime,
}

impl RejectionKind {
    /// The status that the sender sees, unless [`on_rejection`](crate::InngestAuth::on_rejection) chose another.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Missing
            | Self::Doubled
            | Self::Malformed
            | Self::Stale
            | Self::Future
            | Self::WrongSignature
            | Self::Replayed => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::OverBudget | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unconfigured | Self::NoTime => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Missing => "no X-Inngest-Signature header",
            Self::Doubled => "more than one X-Inngest-Signature header",
            Self::Malformed => "malformed X-Inngest-Signature header",
            Self::Stale => "the signature is older than the tolerance: compare the clocks",
            Self::Future => "the signature lies further ahead than the tolerance: compare the clocks",
            Self::WrongSignature => "no key matches the signature: compare the keys' fingerprints with the dashboard's",
            Self::BodyTooLarge => "the body is over the limit",
            Self::BodyTooSlow => "the body did not end before its deadline",
            Self::BodyBroken => "the body ended in an error",
            Self::OverBudget => "the bodies not yet verified have used up their budget",
            Self::Replayed => "this very signature was accepted before",
            Self::StoreUnavailable => "the replay store is down or full",
            Self::Unconfigured => "the configuration cannot be used",
            Self::NoTime => "the clock cannot tell the time",
        }
    }
}
