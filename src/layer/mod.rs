//! The inbound layer, in front of a handler. Its steps are listed on [`InngestAuth`].

mod body;
mod caller;
mod headers;
#[expect(
    clippy::module_inception,
    reason = "named after the type's role, as elsewhere in the Tower ecosystem"
)]
mod layer;
mod limiter;
mod log;
mod policy;
mod response;
mod service;
mod sign;
mod start;
mod turns;

pub use caller::{Caller, CallerRejection};
pub use layer::{InngestAuth, Status};
pub use service::{InngestAuthService, ResponseFuture};
pub use sign::SignResponses;
