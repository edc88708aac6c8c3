//! The `Authorization` that a key gives.

use http::HeaderValue;
use zeroize::Zeroizing;

use crate::key::{BearerError, SigningKey};
use crate::keyring::{KeyRing, KeyRole, Keys};

impl KeyRing {
    /// Returns the values of `Authorization` to call Inngest's API with, in the order to try them:
    /// the current key's, then the fallback's if it differs. There is at least one. They are marked
    /// sensitive, so that they are not logged.
    ///
    /// For a client that is not a Tower service: send with the first, and on 401 or 403 once more
    /// with the next.
    ///
    /// # Errors
    ///
    /// [`BearerError`] if no key has a token. A key without one is skipped if the other has one.
    pub fn bearers(&self) -> Result<Vec<HeaderValue>, BearerError> {
        let tokens = bearers(&self.snapshot())?;
        Ok(tokens.into_iter().map(|(_, token)| token).collect())
    }
}

pub(super) fn bearers(keys: &Keys) -> Result<Vec<(KeyRole, HeaderValue)>, BearerError> {
    let current = Some((KeyRole::Current, keys.current()));
    let fallback = keys.fallback().map(|key| (KeyRole::Fallback, key));
    let with_token = |(role, key): (KeyRole, &SigningKey)| bearer(key).map(|token| (role, token));
    let mut tokens: Vec<_> = current.into_iter().chain(fallback).filter_map(with_token).collect();
    // Keys that differ only in the case of their hex have the same token: it is sent once.
    tokens.dedup_by(|(_, later), (_, earlier)| later == earlier);
    if tokens.is_empty() {
        Err(BearerError)
    } else {
        Ok(tokens)
    }
}

fn bearer(key: &SigningKey) -> Option<HeaderValue> {
    let token = key.bearer().ok()?;
    // Filled in place: a buffer that grew would leave pieces of the token behind.
    let mut text = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
    text.push_str("Bearer ");
    text.push_str(&token);
    let mut value = HeaderValue::from_str(&text).expect("a prefix of word characters, and hex");
    value.set_sensitive(true);
    Some(value)
}
