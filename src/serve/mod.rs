//! Inbound: the layer that stands before a handler.

mod answer;
mod body;
mod extract;
mod layer;
mod rejection;
mod respond;
mod service;

pub use extract::{Caller, CallerRejection};
pub use layer::InngestAuth;
pub use rejection::{Rejection, RejectionKind};
pub use service::InngestAuthService;
