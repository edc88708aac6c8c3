//! Why a configuration cannot be used.

use thiserror::Error;

use super::defect::KeyDefect;
use super::env::SIGNING_KEY;

/// An error returned when the configuration cannot be used. It names the variable and what to set,
/// and never shows a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cloud mode, and no key.
    #[error(
        "INNGEST_SIGNING_KEY is not set, or blank: set it to your environment's signing key, \
         or set INNGEST_DEV=1 to develop without one"
    )]
    NoKey,
    /// A fallback key, and no current key.
    #[error(
        "INNGEST_SIGNING_KEY_FALLBACK is set but INNGEST_SIGNING_KEY is not: \
         put the key into INNGEST_SIGNING_KEY"
    )]
    FallbackAlone,
    /// A text that is not a signing key.
    #[error("invalid signing key in {variable}: {reason}")]
    InvalidKey {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with the text.
        reason: KeyDefect,
    },
    /// A value that the variable does not take.
    #[error("invalid value for {variable}: expected {expected}")]
    InvalidValue {
        /// The variable's name.
        variable: &'static str,
        /// The values that it takes.
        expected: &'static str,
    },
    /// Dev mode with a host of Inngest's own as the dev server.
    #[error(
        "invalid value for INNGEST_DEV: the host is Inngest's own, and dev mode verifies nothing; \
         unset INNGEST_DEV (the API's address belongs in INNGEST_API_BASE_URL)"
    )]
    DevServerIsInngest,
    /// Bytes that are not Unicode.
    #[error("{variable} is not Unicode text: set it again")]
    NotUnicode {
        /// The variable's name.
        variable: &'static str,
    },
}

impl ConfigError {
    /// Returns the name of the variable to set.
    #[must_use]
    pub fn variable(&self) -> &'static str {
        match self {
            Self::NoKey | Self::FallbackAlone => SIGNING_KEY,
            Self::DevServerIsInngest => super::env::DEV,
            Self::InvalidKey { variable, .. } | Self::InvalidValue { variable, .. } | Self::NotUnicode { variable } => {
                variable
            }
        }
    }
}
