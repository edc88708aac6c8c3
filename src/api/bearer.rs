//! The `Authorization` that a key gives.

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::key::SigningKey;
use crate::keyring::{KeyRing, KeyRole, Keys};

impl KeyRing {
    /// Returns the values of `Authorization` to call Inngest's API with, in the order to try them:
    /// the current key's, then the fallback's if it differs. There is at least one. They are marked
    /// sensitive, so that they are not logged.
    ///
    /// For a client that is not a Tower service: send with the first, and on 401 or 403 once more
    /// with the next.
    #[must_use]
    pub fn bearers(&self) -> Vec<HeaderValue> {
        let tokens = bearers(&self.snapshot());
        tokens.into_iter().map(|(_, token)| token).collect()
    }
}

pub(super) fn bearers(keys: &Keys) -> Vec<(KeyRole, HeaderValue)> {
    let current = Some((KeyRole::Current, keys.current()));
    let fallback = keys.fallback().map(|key| (KeyRole::Fallback, key));
    let keys = current.into_iter().chain(fallback);
    let mut tokens: Vec<_> = keys.map(|(role, key)| (role, bearer(key))).collect();
    // Keys that differ only in the case of their hex have the same token: it is sent once.
    tokens.dedup_by(|(_, later), (_, earlier)| later == earlier);
    tokens
}

fn bearer(key: &SigningKey) -> HeaderValue {
    let token = key.bearer();
    // Filled in place: a buffer that grew would leave pieces of the token behind.
    let mut text = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
    text.push_str("Bearer ");
    text.push_str(&token);
    // Shared, not copied, so that the last header that carries it wipes it.
    let text = Bytes::from_owner(text);
    let mut value = HeaderValue::from_maybe_shared(text).expect("a token is visible ASCII");
    value.set_sensitive(true);
    value
}
