//! The names of variables that errors also name.

pub(super) const SIGNING_KEY: &str = "INNGEST_SIGNING_KEY";
pub(super) const SIGNING_KEY_FALLBACK: &str = "INNGEST_SIGNING_KEY_FALLBACK";
pub(super) const SIGNING_KEY_FILE: &str = "INNGEST_SIGNING_KEY_FILE";
pub(super) const SIGNING_KEY_FALLBACK_FILE: &str = "INNGEST_SIGNING_KEY_FALLBACK_FILE";
pub(super) const DEV: &str = "INNGEST_DEV";
