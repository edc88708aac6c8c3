//! The bearer tokens of a ring's keys, and which of them the API accepts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use zeroize::Zeroizing;

use crate::key::SigningKey;
use crate::keyring::{KeyRing, KeyRole, Keys};

impl KeyRing {
    /// Returns the values of `Authorization` for calls to Inngest's API, in the order in which to
    /// try them: the current key's, then the fallback key's if it differs. They are marked
    /// sensitive, so that they are not logged.
    ///
    /// For a client that is not a Tower service: send the request with the first, and on 401 or 403
    /// retry it with the next.
    #[must_use]
    pub fn bearers(&self) -> Vec<HeaderValue> {
        let (current, fallback) = Bearer::both(&self.snapshot());
        let bearers = [Some(current), fallback];
        bearers
            .into_iter()
            .flatten()
            .map(|bearer| bearer.value)
            .collect()
    }
}

/// The `Authorization` header of one key.
pub(super) struct Bearer {
    pub(super) value: HeaderValue,
    pub(super) role: KeyRole,
    /// The snapshot in which the key has this role.
    keys: Arc<Keys>,
}

impl Bearer {
    /// Returns the current key's bearer, and the fallback key's if it differs.
    fn both(keys: &Arc<Keys>) -> (Self, Option<Self>) {
        let bearer = |role, key| Self {
            value: authorization(key),
            role,
            keys: Arc::clone(keys),
        };
        let current = bearer(KeyRole::Current, keys.current());
        let fallback = keys.fallback().map(|key| bearer(KeyRole::Fallback, key));
        // Keys that differ only in the case of their hex have the same token, which is sent only
        // once.
        let fallback = fallback.filter(|fallback| fallback.value != current.value);
        (current, fallback)
    }
}

fn authorization(key: &SigningKey) -> HeaderValue {
    let token = key.bearer();
    let token = token.as_str();
    // Allocated once: a buffer that grew would leave pieces of the token in freed memory.
    let mut text = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
    text.push_str("Bearer ");
    text.push_str(token);
    // Shared, not copied, so that dropping the last header that carries the token wipes it.
    let text = Bytes::from_owner(text);
    let mut value = HeaderValue::from_maybe_shared(text).expect("a token is visible ASCII");
    value.set_sensitive(true);
    value
}

/// A ring, and which of its keys the API accepts.
#[derive(Debug)]
pub(super) struct Credentials {
    ring: KeyRing,
    learned: Mutex<Learned>,
}

/// What the API's responses revealed about one snapshot of the ring.
#[derive(Debug)]
struct Learned {
    /// Weak, so that a key that has left the ring is wiped even if no further call is made. While
    /// the reference is held, no other snapshot can have the same address.
    keys: Weak<Keys>,
    /// The key that calls begin with.
    first: KeyRole,
    /// How often `first` changed.
    changes: u8,
    /// Whether a warning was logged that the API has rejected all keys.
    warned: bool,
}

impl Learned {
    fn nothing(keys: &Arc<Keys>) -> Self {
        Self {
            keys: Arc::downgrade(keys),
            first: KeyRole::Current,
            changes: 0,
            warned: false,
        }
    }

    fn is_about(&self, keys: &Arc<Keys>) -> bool {
        self.keys.as_ptr() == Arc::as_ptr(keys)
    }
}

impl Credentials {
    pub(super) fn new(ring: KeyRing) -> Self {
        let learned = Mutex::new(Learned::nothing(&ring.snapshot()));
        Self { ring, learned }
    }

    pub(super) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Returns the bearer to begin a call with, and the one to use if the API rejects it.
    pub(super) fn choose(&self) -> (Bearer, Option<Bearer>) {
        let (keys, first) = {
            let mut learned = self.learned();
            // Taken under the lock, so that an older snapshot never replaces a newer one.
            let keys = self.ring.snapshot();
            if !learned.is_about(&keys) {
                *learned = Learned::nothing(&keys);
            }
            (keys, learned.first)
        };
        match Bearer::both(&keys) {
            (current, Some(fallback)) if first == KeyRole::Fallback => (fallback, Some(current)),
            bearers => bearers,
        }
    }

    /// Begins later calls with this bearer's key, because the API rejected the other one.
    pub(super) fn prefer(&self, bearer: &Bearer, rejected: StatusCode) {
        let changes = self.learn(bearer, |learned| {
            if learned.first != bearer.role {
                learned.first = bearer.role;
                learned.changes = learned.changes.saturating_add(1);
                return learned.changes;
            }
            0
        });
        match changes {
            0 => {}
            1 | 2 => tracing::info!(
                first = %bearer.role,
                current = ?bearer.keys.current(),
                fallback = ?bearer.keys.fallback(),
                "Inngest's API rejected the first key; later calls begin with the other"
            ),
            // A rotation causes at most two changes. More changes have another cause, and would be
            // logged without end.
            _ => self.warn(bearer, rejected),
        }
    }

    /// Logs that the API has rejected all keys, once until the keys change.
    pub(super) fn warn(&self, bearer: &Bearer, status: StatusCode) {
        if self.learn(bearer, |learned| {
            !std::mem::replace(&mut learned.warned, true)
        }) {
            tracing::warn!(
                %status,
                current = ?bearer.keys.current(),
                fallback = ?bearer.keys.fallback(),
                "Inngest's API has rejected every signing key; check INNGEST_SIGNING_KEY, and that \
                 INNGEST_API_BASE_URL is the server that the key belongs to"
            );
        }
    }

    /// Updates what is known and returns the result of `update`, or does nothing if the keys have
    /// changed. A call that began before a rotation reveals nothing about the keys after it.
    fn learn<T: Default>(&self, bearer: &Bearer, update: impl FnOnce(&mut Learned) -> T) -> T {
        let mut learned = self.learned();
        if learned.is_about(&bearer.keys) {
            update(&mut learned)
        } else {
            T::default()
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
