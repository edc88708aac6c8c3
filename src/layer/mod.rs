//! Inbound: the layer in front of a handler.

mod body;
mod caller;
mod future;
mod headers;
#[expect(
    clippy::module_inception,
    reason = "the file is named after the type's role, as in tower-http"
)]
mod layer;
mod policy;
mod rejection;
mod response;
mod service;
mod sign;

pub use caller::{Caller, CallerRejection};
pub use future::ResponseFuture;
pub use layer::InngestAuth;
pub use rejection::{Rejection, RejectionKind};
pub use service::InngestAuthService;
pub use sign::SignResponses;
