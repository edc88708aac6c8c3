//! What the checks share: the sender that tests play, and a real server that tells what it holds.

pub mod server;

use inngest_auth::SigningKey;
use inngest_auth::testing::TestInngest;

/// What every `TestInngest` clock shows at first.
pub const NOW: u64 = 1_700_000_000;
/// Where a call goes.
pub const CALL: &str = "/api/inngest?fnId=hello&stepId=step";

/// The key that is written so.
///
/// # Panics
///
/// Where it is none.
#[must_use]
pub fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

/// Inngest, with a current key and a fallback.
#[must_use]
pub fn inngest() -> TestInngest {
    TestInngest::new(key("signkey-test-12345678")).fallback(key("signkey-test-87654321"))
}
