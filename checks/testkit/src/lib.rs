//! Shared by the checks: a client that tests control, and a real server that reports what it holds.

pub mod server;

use inngest_auth::SigningKey;
use inngest_auth::testing::TestInngest;

/// The initial time of every `TestInngest` clock.
pub const NOW: u64 = 1_700_000_000;
/// The URL of a call.
pub const CALL: &str = "/api/inngest?fnId=hello&stepId=step";

/// Parses a key.
///
/// # Panics
///
/// Panics if the text is not a key.
#[must_use]
pub fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

/// Returns an Inngest with a current key and a fallback key.
#[must_use]
pub fn inngest() -> TestInngest {
    TestInngest::new(key("signkey-test-12345678")).fallback(key("signkey-test-87654321"))
}
