//! Let Inngest in, and nobody else.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "layer")]
pub mod api;
mod canonical;
mod clock;
mod env;
mod key;
mod keyring;
#[cfg(feature = "layer")]
mod serve;
mod signature;
pub mod testing;

#[cfg(feature = "layer")]
pub use api::{ApiAuthError, InngestApiAuth, InngestApiAuthService};
pub use clock::{Clock, SystemClock};
pub use env::{Config, ConfigError};
pub use key::{BearerError, Fingerprint, KeyError, KeyUsage, Keys, SigningKey};
pub use keyring::KeyRing;
#[cfg(feature = "layer")]
pub use serve::{Caller, CallerRejection, InngestAuth, InngestAuthService, Rejection, RejectionKind};
pub use signature::{
    Authentic, Form, KeyRole, SIGNATURE_HEADER, Signature, SignatureError, Tolerance, Verified, VerifyError, verify,
};

/// What this crate answers in `X-Inngest-Sdk`.
#[cfg(feature = "layer")]
const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));
