//! The keys that a process holds, shared by everything that signs or verifies, changed while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::key::SigningKey;

/// A handle on the current key and the fallback. Clones share one ring, and cost one reference count.
///
/// Whoever holds a clone (the layer, the outbound layer, you) follows a change at its next request; a request
/// under way is judged, and its answer signed, by the keys that it began with. So no change refuses a call
/// that one of the keys before it or after it signed, as long as the two overlap:
///
/// ```
/// use inngest_auth::{KeyRing, SigningKey, Tolerance, VerifyError, verify};
///
/// let old: SigningKey = "signkey-prod-11111111".parse()?;
/// let new: SigningKey = "signkey-prod-22222222".parse()?;
/// let ring = KeyRing::from(old.clone());
/// let check = |key: &SigningKey| {
///     let now = 1_700_000_000;
///     verify(b"{}", &key.sign(b"{}", now), &ring.snapshot(), now, Tolerance::default()).map(|_| ())
/// };
///
/// // Inngest still signs with the old key: both are accepted.
/// ring.rotate(new.clone());
/// assert_eq!((check(&new), check(&old)), (Ok(()), Ok(())));
///
/// // It has switched: the old key goes.
/// ring.retire_fallback();
/// assert_eq!((check(&new), check(&old)), (Ok(()), Err(VerifyError::Mismatch)));
/// # Ok::<(), inngest_auth::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyRing(Arc<RwLock<Arc<Keys>>>);

impl KeyRing {
    /// The keys as they are now. A request takes one snapshot and is judged by it from beginning to end.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Keys> {
        // A panic cannot leave half a change behind: what the lock guards is one pointer.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes `new` the current key, and the current key the fallback.
    ///
    /// Can be said twice, as a reload may: with the current key it changes nothing. With the fallback it swaps.
    pub fn rotate(&self, new: SigningKey) {
        self.change(|keys| {
            let old = if new == *keys.current() {
                keys.fallback()
            } else {
                Some(keys.current())
            };
            let old = old.cloned();
            (new, old)
        });
    }

    /// Puts both keys in the place of those that are there.
    pub fn replace(&self, current: SigningKey, fallback: Option<SigningKey>) {
        self.change(|_| (current, fallback));
    }

    /// Drops the fallback: from now on only the current key counts. The last step of a rotation.
    pub fn retire_fallback(&self) {
        self.change(|keys| (keys.current().clone(), None));
    }

    /// How often each key verified a request since the keys last changed.
    #[must_use]
    pub fn usage(&self) -> KeyUsage {
        self.snapshot().usage()
    }

    fn change(&self, change: impl FnOnce(&Keys) -> (SigningKey, Option<SigningKey>)) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (current, fallback) = change(&keys);
        let new = Keys::new(current, fallback);
        if new != **keys {
            tracing::info!(current = ?new.current(), fallback = ?new.fallback(), "signing keys changed");
            *keys = Arc::new(new);
        }
    }
}

impl From<Keys> for KeyRing {
    fn from(keys: Keys) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(keys))))
    }
}

impl From<SigningKey> for KeyRing {
    fn from(current: SigningKey) -> Self {
        Keys::from(current).into()
    }
}

/// Which key a request was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyRole {
    /// The current key.
    Current,
    /// The fallback: a rotation is under way, or its end was forgotten.
    Fallback,
}

/// The current key and, during a rotation, the fallback: what one request is judged by. Never changes; a
/// [`KeyRing`](crate::KeyRing) changes which of these it holds.
#[derive(Debug)]
pub struct Keys {
    current: SigningKey,
    fallback: Option<SigningKey>,
    used: Used,
}

/// How often each key verified a request, and when the fallback last did (0: never).
#[derive(Debug, Default)]
struct Used {
    current: AtomicU64,
    fallback: AtomicU64,
    fallback_at: AtomicU64,
}

impl Keys {
    /// A fallback equal to the current key is none.
    #[must_use]
    pub fn new(current: SigningKey, fallback: Option<SigningKey>) -> Self {
        let fallback = fallback.filter(|fallback| *fallback != current);
        Self {
            current,
            fallback,
            used: Used::default(),
        }
    }

    /// The key that is tried first, and that signs what nobody asked for.
    #[must_use]
    pub fn current(&self) -> &SigningKey {
        &self.current
    }

    /// The key that is tried next.
    #[must_use]
    pub fn fallback(&self) -> Option<&SigningKey> {
        self.fallback.as_ref()
    }

    /// How often each key verified a request.
    #[must_use]
    pub fn usage(&self) -> KeyUsage {
        let last = self.used.fallback_at.load(Ordering::Relaxed);
        KeyUsage {
            current: self.used.current.load(Ordering::Relaxed),
            fallback: self.used.fallback.load(Ordering::Relaxed),
            fallback_last_used: Some(last).filter(|&at| at != 0),
        }
    }

    /// Counts a verified request, and says once that the fallback is in use.
    pub(crate) fn count(&self, role: KeyRole, now: u64) {
        let counter = match role {
            KeyRole::Current => &self.used.current,
            KeyRole::Fallback => {
                self.used.fallback_at.fetch_max(now, Ordering::Relaxed);
                &self.used.fallback
            }
        };
        if counter.fetch_add(1, Ordering::Relaxed) == 0 && role == KeyRole::Fallback {
            tracing::info!(
                current = ?self.current,
                fallback = ?self.fallback,
                "Inngest signs with the fallback key: a rotation has begun, or its last step is still to do"
            );
        }
    }

    pub(crate) fn in_role(&self, role: KeyRole) -> &SigningKey {
        match (role, &self.fallback) {
            (KeyRole::Fallback, Some(fallback)) => fallback,
            _ => &self.current,
        }
    }
}

/// Equal keys in equal roles, however often they were used.
impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.current == other.current && self.fallback == other.fallback
    }
}

impl Eq for Keys {}

/// How often each key verified a request since the ring last changed: what answers "may the old key go?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyUsage {
    /// Requests that the current key verified.
    pub current: u64,
    /// Requests that the fallback verified.
    pub fallback: u64,
    /// When the fallback last did, in Unix seconds.
    pub fallback_last_used: Option<u64>,
}

impl From<SigningKey> for Keys {
    fn from(current: SigningKey) -> Self {
        Self::new(current, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SigningKey {
        format!("signkey-test-{name}").parse().unwrap()
    }

    /// Current and fallback, as they stand after `change`.
    fn after(current: &str, fallback: Option<&str>, change: impl FnOnce(&KeyRing)) -> Keys {
        let ring = KeyRing::from(Keys::new(key(current), fallback.map(key)));
        change(&ring);
        let keys = ring.snapshot();
        Keys::new(keys.current().clone(), keys.fallback().cloned())
    }

    #[test]
    fn changes_are_as_a_rotation_needs_them() {
        let keys = |current, fallback: Option<&str>| Keys::new(key(current), fallback.map(key));
        let (old, new, other) = ("aa", "bb", "cc");
        for (before, change, expected) in [
            ((old, None), "rotate", keys(new, Some(old))),
            ((old, Some(other)), "rotate", keys(new, Some(old))),
            // Twice: the old key is not lost.
            ((new, Some(old)), "rotate", keys(new, Some(old))),
            ((new, None), "rotate", keys(new, None)),
            // To the fallback: swapped.
            ((old, Some(new)), "rotate", keys(new, Some(old))),
            ((new, Some(old)), "retire", keys(new, None)),
            ((new, None), "retire", keys(new, None)),
            ((old, None), "replace", keys(new, Some(other))),
        ] {
            let changed = after(before.0, before.1, |ring| match change {
                "rotate" => ring.rotate(key(new)),
                "retire" => ring.retire_fallback(),
                _ => ring.replace(key(new), Some(key(other))),
            });
            assert_eq!(changed, expected, "{before:?} {change}");
        }
    }

    #[test]
    fn every_clone_sees_a_change_and_a_snapshot_does_not() {
        let ring = KeyRing::from(key("aa"));
        let (clone, snapshot) = (ring.clone(), ring.snapshot());
        ring.rotate(key("bb"));
        assert_eq!(*clone.snapshot().current(), key("bb"));
        assert_eq!(*snapshot.current(), key("aa"));
    }

    #[test]
    fn a_fallback_equal_to_the_current_key_is_none() {
        assert_eq!(Keys::new(key("aa"), Some(key("aa"))).fallback(), None);
        // The same HMAC key for another environment has another bearer: that is another key.
        let elsewhere: SigningKey = "signkey-prod-aa".parse().unwrap();
        assert!(Keys::new(key("aa"), Some(elsewhere)).fallback().is_some());
    }

    #[cfg(feature = "layer")]
    #[test]
    fn use_is_counted_by_key_and_only_since_the_last_change() {
        let ring = KeyRing::from(Keys::new(key("bb"), Some(key("aa"))));
        let keys = ring.snapshot();
        for (role, now) in [(KeyRole::Current, 7), (KeyRole::Fallback, 9), (KeyRole::Fallback, 8)] {
            keys.count(role, now);
        }
        let usage = ring.usage();
        assert_eq!(
            (usage.current, usage.fallback, usage.fallback_last_used),
            (1, 2, Some(9))
        );
        ring.replace(key("bb"), Some(key("aa")));
        assert_eq!(ring.usage(), usage, "nothing changed");
        ring.retire_fallback();
        let usage = ring.usage();
        assert_eq!((usage.current, usage.fallback, usage.fallback_last_used), (0, 0, None));
    }
}
