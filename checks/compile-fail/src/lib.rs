//! Shared by the examples. Each example builds, but not with the feature `broken`.

use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::body::Body;
use axum::http::Response;

/// Imports for the examples.
pub mod prelude {
    pub use axum::body::{Body, Bytes};
    pub use axum::http::{Request, Response};
    pub use http_body_util::{BodyExt, Empty, Full};
    pub use inngest_auth::{InngestApiAuth, InngestAuth};
    pub use tower::{Layer, ServiceExt, service_fn};

    pub use super::{Shared, done, result};
}

/// A type that is `Send`, or not with the feature `broken`.
#[cfg(not(feature = "broken"))]
pub type Shared<T> = std::sync::Arc<T>;
#[cfg(feature = "broken")]
pub type Shared<T> = std::rc::Rc<T>;

/// Returns the result of a service.
///
/// # Errors
///
/// Never.
pub fn result<R>(response: R) -> Result<R, Infallible> {
    Ok(response)
}

/// Returns a service's future.
pub fn done() -> Ready<Result<Response<Body>, Infallible>> {
    ready(result(Response::default()))
}
