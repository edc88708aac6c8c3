//! How the crate identifies itself to Inngest.

/// The value of `X-Inngest-Sdk`.
pub(crate) const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));
