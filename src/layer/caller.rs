//! Who sent a request, as extractors for handlers.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use thiserror::Error;

use super::limiter::{FEW, Limiter};
use super::response;
use crate::verify::Verified;

/// Who sent a request. [`InngestAuth`](crate::InngestAuth) adds it to the extensions of every
/// request that it forwards, and of the response.
///
/// Start with this extractor. It works in production and in dev mode, and fails (500) only if the
/// layer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// Inngest. This is proved by a signature over exactly the bytes that the handler reads.
    Verified(Verified),
    /// Anyone, with an unsigned sync. This occurs only with
    /// [`insecure_unsigned_sync`](crate::InngestAuth::insecure_unsigned_sync). The body is empty.
    UnsignedSync,
    /// Anyone, because requests are not verified in dev mode.
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

    /// Returns `true` in dev mode, in which requests are not verified.
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

/// Extracts the proof, for handlers that must never run unverified. It rejects unsigned syncs, and
/// every request in dev mode, with 401. For a handler that also serves dev mode, take
/// `Option<Verified>`.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = CallerRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallerRejection> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.verified().ok_or(CallerRejection::Unverified)
    }
}

/// Extracts `None` in dev mode and for unsigned syncs. If the layer is missing, it still fails with
/// 500.
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
    /// 401: the handler takes [`Verified`], but the request is not verified.
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
