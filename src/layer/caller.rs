//! Who called, as extractors for handlers.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use thiserror::Error;

use super::response as respond;
use crate::verify::Verified;

/// Who is calling. [`InngestAuth`](crate::InngestAuth) puts it into the extensions of every request that it lets pass.
///
/// The extractor to start with: it works in production and in dev mode alike, and refuses (500) only where the
/// layer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// Inngest, by a signature over the very bytes that the handler reads.
    Verified(Verified),
    /// Anybody, asking for a sync. Only where
    /// [`insecure_unsigned_sync`](crate::InngestAuth::insecure_unsigned_sync) was chosen; the body is empty.
    UnsignedSync,
    /// Anybody: nothing is verified in dev mode.
    Dev,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = CallerRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, CallerRejection> {
        parts.extensions.get().copied().ok_or(CallerRejection::NoLayer)
    }
}

/// For routes that must never run unverified: refuses (401) unsigned syncs and everything in dev mode.
impl<S: Sync> FromRequestParts<S> for Verified {
    type Rejection = CallerRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallerRejection> {
        match Caller::from_request_parts(parts, state).await? {
            Caller::Verified(verified) => Ok(verified),
            Caller::UnsignedSync | Caller::Dev => Err(CallerRejection::Unverified),
        }
    }
}

/// Why [`Caller`] or [`Verified`] could not be extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallerRejection {
    /// 500: no [`InngestAuth`](crate::InngestAuth) stands before the handler.
    #[error("no InngestAuth layer stands before this handler")]
    NoLayer,
    /// 401: [`Verified`] was asked for, and the request is not.
    #[error("this handler takes verified requests only")]
    Unverified,
}

impl IntoResponse for CallerRejection {
    fn into_response(self) -> Response {
        match self {
            Self::NoLayer => {
                tracing::error!("{self}: add `.layer(InngestAuth::from_env())` to its route");
                respond::message(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Unverified => respond::message(StatusCode::UNAUTHORIZED),
        }
    }
}
