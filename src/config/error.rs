//! Why a configuration cannot be used.

use thiserror::Error;

use super::defect::KeyDefect;
use super::files::FileDefect;
use super::names::{DEV, SIGNING_KEY, SIGNING_KEY_FILE};

/// An error returned when the configuration cannot be used. The message names the variable and says
/// what to set. It never contains a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No signing key is set, in cloud mode.
    #[error(
        "INNGEST_SIGNING_KEY is not set or blank: set it to your environment's signing key, or set \
         INNGEST_DEV=1 to develop without one"
    )]
    NoKey,
    /// A fallback key is set, but no current key.
    #[error("a fallback key is set but INNGEST_SIGNING_KEY is not: set INNGEST_SIGNING_KEY to it")]
    FallbackAlone,
    /// The text is not a signing key.
    #[error("invalid signing key in {variable}: {reason}")]
    InvalidKey {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with the text.
        reason: KeyDefect,
    },
    /// A key and the path of a key file are both set.
    #[error("{variable} and {file} are both set: unset one")]
    BothSet {
        /// The name of the variable that takes the key.
        variable: &'static str,
        /// The name of the variable that takes a path.
        file: &'static str,
    },
    /// A key file cannot be used.
    #[error("cannot read the key file named by {variable}: {reason}")]
    KeyFile {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with the file.
        reason: FileDefect,
    },
    /// No key is read from a file, so there is nothing to reload.
    #[error(
        "no signing key is read from a file: set INNGEST_SIGNING_KEY_FILE to be able to reload \
        keys"
    )]
    NoKeyFile,
    /// The variable does not accept this value.
    #[error("invalid value for {variable}: expected {expected}")]
    InvalidValue {
        /// The variable's name.
        variable: &'static str,
        /// The values that it accepts.
        expected: &'static str,
    },
    /// `INNGEST_DEV` names one of Inngest's own hosts.
    #[error(
        "invalid value for INNGEST_DEV: the host is Inngest's own, and dev mode would turn \
         verification off; unset INNGEST_DEV (the API's address belongs in INNGEST_API_BASE_URL)"
    )]
    DevServerIsInngest,
    /// The variable's name begins with a byte-order mark.
    #[error(
        "the name of {variable} begins with a byte-order mark (U+FEFF): \
         save the file that sets it as UTF-8 without one"
    )]
    ByteOrderMark {
        /// The variable's name.
        variable: &'static str,
    },
    /// The value is not Unicode.
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
            Self::NoKeyFile => SIGNING_KEY_FILE,
            Self::DevServerIsInngest => DEV,
            Self::InvalidKey { variable, .. }
            | Self::BothSet { variable, .. }
            | Self::KeyFile { variable, .. }
            | Self::ByteOrderMark { variable }
            | Self::InvalidValue { variable, .. }
            | Self::NotUnicode { variable } => variable,
        }
    }
}
