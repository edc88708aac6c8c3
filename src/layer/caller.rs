//! Who sent a request, as extractors for handlers.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use thiserror::Error;

use super::limiter::{FEW, Limiter};
use super::response;
use crate::verify::Verified;

/// Who sent a request. [`InngestAuth`](crate::InngestAuth) puts it into the extensions of every request that it
/// forwards, and of the response.
///
/// The extractor to start with: it works in production and in dev mode alike, and fails (500) only where the layer is
/// missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// Inngest, proved by a signature over the very bytes that the handler reads.
    Verified(Verified),
    /// Anyone, asking for a sync. Only where
    /// [`insecure_unsigned_sync`](crate::InngestAuth::insecure_unsigned_sync) was chosen. The body is empty.
    UnsignedSync,
    /// Anyone: nothing is verified in dev mode.
    Dev,
}

impl Caller {
    /// Returns how the request was verified, or `None` if it was not.
    #[must_use]
    pub fn verified(self) -> Option<Verified> {
        match self {
            Self::Verified(verified) => Some(verified),
            Self::UnsignedSync | Self::Dev => None,
        }
    }

    /// Returns `true` in dev mode, where nothing is verified.
    #[must_use]
    pub fn is_dev(self) -> bool {
        self == Self::Dev
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = CallerRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, CallerRejection> {
        parts
            .extensions
            .get()
            .copied()
            .ok_or(CallerRejection::NoLayer)
    }
}

/// Extracts the proof for handlers that must never run unverified: rejects (401) unsigned syncs, and everything in dev
/// mode. Take `Option<Verified>` for a handler that serves dev mode too.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = CallerRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallerRejection> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.verified().ok_or(CallerRejection::Unverified)
    }
}

/// Extracts `None` in dev mode and for unsigned syncs. A missing layer is still a 500.
impl<S: Sync> OptionalFromRequestParts<S> for Verified {
    type Rejection = CallerRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, CallerRejection> {
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(caller.verified())
    }
}

/// An error returned when [`Caller`] or [`Verified`] cannot be extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum CallerRejection {
    /// 500: no [`InngestAuth`](crate::InngestAuth) wraps the handler.
    #[error("no InngestAuth layer wraps this handler")]
    NoLayer,
    /// 401: the handler takes [`Verified`], and the request is not verified.
    #[error("this handler takes verified requests only")]
    Unverified,
}

impl IntoResponse for CallerRejection {
    fn into_response(self) -> Response {
        match self {
            Self::NoLayer => {
                static LIMITER: Limiter = Limiter::new();
                if let Some(suppressed) = LIMITER.permit("no_layer", FEW) {
                    tracing::error!(
                        suppressed,
                        "{self}: add `.layer(InngestAuth::from_env())` to its route"
                    );
                }
                response::message(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Unverified => response::message(StatusCode::UNAUTHORIZED),
        }
    }
}
