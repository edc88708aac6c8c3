//! Inbound: the layer that stands before a handler.

mod answer;
mod body;
mod extract;
mod future;
mod guard;
mod layer;
mod pieces;
mod rejection;
mod request;
mod respond;
mod service;

pub use extract::{Caller, CallerRejection};
pub use future::ResponseFuture;
pub use layer::InngestAuth;
pub use rejection::{Rejection, RejectionKind};
pub use service::InngestAuthService;
