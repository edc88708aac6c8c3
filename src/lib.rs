//! Let Inngest in, and nobody else.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod canonical;
mod clock;
mod env;
mod key;
mod keyring;
#[cfg(feature = "layer")]
mod serve;
mod signature;
pub mod testing;

pub use clock::{Clock, SystemClock};
pub use env::{Config, ConfigError};
pub use key::{BearerError, Fingerprint, KeyError, Keys, SigningKey};
pub use keyring::KeyRing;
#[cfg(feature = "layer")]
pub use serve::{Caller, CallerRejection, InngestAuth, InngestAuthService, Rejection, RejectionKind};
pub use signature::{
    Authentic, Form, KeyRole, SIGNATURE_HEADER, Signature, SignatureError, Tolerance, Verified, VerifyError, verify,
};

/// What this crate answers in `X-Inngest-Sdk`.
#[cfg(feature = "layer")]
const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));
