//! What the examples share. Each builds, and does not with the feature `broken`.

use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::body::Body;
use axum::http::Response;

/// What the examples use.
pub mod prelude {
    pub use axum::body::{Body, Bytes};
    pub use axum::http::{Request, Response};
    pub use http_body_util::{BodyExt, Empty, Full};
    pub use inngest_auth::{InngestApiAuth, InngestAuth};
    pub use tower::{Layer, ServiceExt, service_fn};

    pub use super::{Shared, done, result};
}

/// Can be sent to another thread, or not.
#[cfg(not(feature = "broken"))]
pub type Shared<T> = std::sync::Arc<T>;
#[cfg(feature = "broken")]
pub type Shared<T> = std::rc::Rc<T>;

/// What a service results in.
///
/// # Errors
///
/// None.
pub fn result<R>(response: R) -> Result<R, Infallible> {
    Ok(response)
}

/// A service's future.
pub fn done() -> Ready<Result<Response<Body>, Infallible>> {
    ready(result(Response::default()))
}
