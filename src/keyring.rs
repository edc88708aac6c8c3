//! The keys of a process. Everything that signs or verifies shares them, and they can change at
//! runtime.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::key::SigningKey;

/// A handle to the current key and the fallback key. Clones share one ring; cloning only increments
/// a reference count.
///
/// Every holder of a clone (the layer, the outbound layer, your code) uses changed keys from its
/// next request on. A request in progress is verified, and its response signed, with the keys that
/// it began with. So a change does not reject calls that were signed with a key from before or
/// after it, if the two sets of keys overlap:
///
/// ```
/// use inngest_auth::{KeyRing, SigningKey, Tolerance, VerifyError, verify};
///
/// let old: SigningKey = "signkey-prod-11111111".parse()?;
/// let new: SigningKey = "signkey-prod-22222222".parse()?;
/// let ring = KeyRing::from(old.clone());
/// let check = |key: &SigningKey| {
///     let now = 1_700_000_000;
///     let signature = key.sign(b"{}", now);
///     verify(b"{}", &signature, &ring.snapshot(), now, Tolerance::default()).map(|_| ())
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
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    /// Read by every request, which must not wait for others.
    now: ArcSwap<Generation>,
    /// Held while the keys change, so that no change is lost.
    changing: Mutex<()>,
}

impl KeyRing {
    /// Returns the current set of keys. A request takes one snapshot and is verified with it from
    /// beginning to end.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Keys> {
        Arc::clone(&self.generation().keys)
    }

    /// Returns the current set of keys, with the counters of their usage.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.0.now.load_full()
    }

    /// Makes `new` the current key, and the current key the fallback key.
    ///
    /// It can be called again with the same key, as a reload may do. With the current key it
    /// changes nothing. With the fallback key it swaps the two.
    ///
    /// A loop that follows a secrets manager must not call this. After a mistyped key and its
    /// correction, the mistyped key would have replaced the key that Inngest still signs with. Keep
    /// both keys in the secret, and [`replace`](Self::replace) both.
    pub fn rotate(&self, new: SigningKey) {
        self.change(|keys| {
            let old = if new == *keys.current() {
                keys.fallback()
            } else {
                Some(keys.current())
            };
            let old = old.cloned();
            Keys::new(new, old)
        });
    }

    /// Replaces both keys.
    ///
    /// ```
    /// # use inngest_auth::{KeyRing, Keys, SigningKey};
    /// # let (old, new): (SigningKey, SigningKey) = ("11111111".parse()?, "22222222".parse()?);
    /// # let ring = KeyRing::from(old.clone());
    /// ring.replace((new.clone(), Some(old)));
    /// // With one key, the fallback goes.
    /// ring.replace(new.clone());
    /// assert_eq!(*ring.snapshot(), Keys::from(new));
    /// # Ok::<(), inngest_auth::KeyError>(())
    /// ```
    pub fn replace(&self, keys: impl Into<Keys>) {
        let keys = keys.into();
        self.change(|_| keys);
    }

    /// Removes the fallback key, so that only the current key is accepted. This is the last step of
    /// a rotation.
    pub fn retire_fallback(&self) {
        self.change(|keys| keys.current().clone().into());
    }

    /// Returns how often each key verified a request since the keys last changed.
    #[must_use]
    pub fn usage(&self) -> KeyUsage {
        self.generation().used.get()
    }

    fn change(&self, change: impl FnOnce(&Keys) -> Keys) {
        if let Some(change) = self.swap(change) {
            change.log();
        }
    }

    /// Changes the keys without logging. A subscriber may use the ring, so a caller that holds a
    /// lock must release it before it logs the change.
    pub(crate) fn swap(&self, change: impl FnOnce(&Keys) -> Keys) -> Option<Change> {
        // A panic in `change` leaves the keys as they were.
        let _changing = self
            .0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.0.now.load_full();
        let new = Arc::new(change(&old.keys));
        if *new == *old.keys {
            return None;
        }
        self.0
            .now
            .store(Arc::new(Generation::from(Arc::clone(&new))));
        Some(Change { old, new })
    }
}

/// A change of keys that has taken effect.
#[must_use]
pub(crate) struct Change {
    old: Arc<Generation>,
    new: Arc<Keys>,
}

impl Change {
    pub(crate) fn log(&self) {
        let Self { old, new } = self;
        tracing::info!(
            current = ?new.current(),
            fallback = ?new.fallback(),
            previous_current = ?old.keys.current(),
            previous_fallback = ?old.keys.fallback(),
            "signing keys changed"
        );
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&*self.snapshot()).finish()
    }
}

impl From<Keys> for KeyRing {
    fn from(keys: Keys) -> Self {
        Self(Arc::new(Ring {
            now: ArcSwap::from_pointee(Arc::new(keys).into()),
            changing: Mutex::default(),
        }))
    }
}

impl From<SigningKey> for KeyRing {
    fn from(current: SigningKey) -> Self {
        Keys::from(current).into()
    }
}

impl From<(SigningKey, Option<SigningKey>)> for KeyRing {
    fn from(keys: (SigningKey, Option<SigningKey>)) -> Self {
        Keys::from(keys).into()
    }
}

/// The keys between two changes of the ring, and how often they were used. A verification counts
/// here, in the keys that it used, so that no request is counted for a later key.
pub(crate) struct Generation {
    keys: Arc<Keys>,
    used: Used,
}

impl From<Arc<Keys>> for Generation {
    fn from(keys: Arc<Keys>) -> Self {
        Self {
            keys,
            used: Used::default(),
        }
    }
}

impl Generation {
    pub(crate) fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Counts a verified request. Logs once when the fallback key is used.
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
                current = ?self.keys.current(),
                fallback = ?self.keys.fallback(),
                "Inngest signs with the fallback key: a rotation is in progress or was not \
                 finished"
            );
        }
    }
}

/// How often each key verified a request, and when the fallback key last did (0: never).
///
/// Aligned so that the counters, to which every verified request writes, share no cache line with
/// the keys, which every request reads.
#[derive(Default)]
#[repr(align(128))]
struct Used {
    current: AtomicU64,
    fallback: AtomicU64,
    fallback_at: AtomicU64,
}

impl Used {
    fn get(&self) -> KeyUsage {
        let last = self.fallback_at.load(Ordering::Relaxed);
        KeyUsage {
            current: self.current.load(Ordering::Relaxed),
            fallback: self.fallback.load(Ordering::Relaxed),
            fallback_last_used: Some(last).filter(|&at| at != 0),
        }
    }
}

/// Which key a request was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRole {
    /// The current key.
    Current,
    /// The fallback key: a rotation is in progress, or its last step was forgotten.
    Fallback,
}

impl KeyRole {
    /// Returns `current` or `fallback`, for labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The current key and, during a rotation, the fallback key. A request is verified with one such
/// pair. This is a plain value; a [`KeyRing`] holds one and replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    current: SigningKey,
    fallback: Option<SigningKey>,
}

impl Keys {
    /// Creates a pair of keys. A fallback key equal to the current key is dropped.
    #[must_use]
    pub fn new(current: SigningKey, fallback: Option<SigningKey>) -> Self {
        let fallback = fallback.filter(|fallback| *fallback != current);
        Self { current, fallback }
    }

    /// Returns the current key: tried first when verifying, and used for signing.
    #[must_use]
    pub fn current(&self) -> &SigningKey {
        &self.current
    }

    /// Returns the fallback key: tried if the current key does not match.
    #[must_use]
    pub fn fallback(&self) -> Option<&SigningKey> {
        self.fallback.as_ref()
    }

    /// Returns the key that verified a request, given the same keys.
    pub(crate) fn in_role(&self, role: KeyRole) -> &SigningKey {
        match role {
            KeyRole::Current => &self.current,
            KeyRole::Fallback => self
                .fallback()
                .expect("a fallback key verified the request"),
        }
    }
}

impl From<SigningKey> for Keys {
    fn from(current: SigningKey) -> Self {
        Self::new(current, None)
    }
}

/// Converts the current key and an optional fallback key.
impl From<(SigningKey, Option<SigningKey>)> for Keys {
    fn from((current, fallback): (SigningKey, Option<SigningKey>)) -> Self {
        Self::new(current, fallback)
    }
}

/// How often each key verified a request since the ring last changed. It shows whether the old key
/// can be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeyUsage {
    /// The number of requests that the current key verified.
    pub current: u64,
    /// The number of requests that the fallback key verified.
    pub fallback: u64,
    /// The time at which the fallback key last verified a request, in Unix seconds.
    pub fallback_last_used: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SigningKey {
        format!("signkey-test-{name}").parse().unwrap()
    }

    /// Returns the current and fallback keys after `change`.
    fn after(current: &str, fallback: Option<&str>, change: impl FnOnce(&KeyRing)) -> Keys {
        let ring = KeyRing::from(Keys::new(key(current), fallback.map(key)));
        change(&ring);
        ring.snapshot().as_ref().clone()
    }

    #[test]
    fn each_change_leaves_the_keys_that_a_rotation_needs() {
        let keys = |current, fallback: Option<&str>| Keys::new(key(current), fallback.map(key));
        let (old, new, other) = ("aa", "bb", "cc");
        for (before, change, expected) in [
            ((old, None), "rotate", keys(new, Some(old))),
            ((old, Some(other)), "rotate", keys(new, Some(old))),
            // Called twice, it does not lose the old key.
            ((new, Some(old)), "rotate", keys(new, Some(old))),
            ((new, None), "rotate", keys(new, None)),
            // Called with the fallback key, it swaps the keys.
            ((old, Some(new)), "rotate", keys(new, Some(old))),
            ((new, Some(old)), "retire", keys(new, None)),
            ((new, None), "retire", keys(new, None)),
            ((old, None), "replace", keys(new, Some(other))),
        ] {
            let changed = after(before.0, before.1, |ring| match change {
                "rotate" => ring.rotate(key(new)),
                "retire" => ring.retire_fallback(),
                _ => ring.replace((key(new), Some(key(other)))),
            });
            assert_eq!(changed, expected, "{before:?} {change}");
        }
    }

    /// Stands for a loop that follows a secrets manager: the key that Inngest signs with must
    /// survive a typo.
    #[test]
    fn after_a_typo_replacing_both_keys_keeps_the_old_key_and_rotating_loses_it() {
        let (a, typo, c) = (key("aa"), key("cd"), key("cc"));
        let rotated = KeyRing::from(a.clone());
        for key in [&typo, &c] {
            rotated.rotate(key.clone());
        }
        assert_eq!(
            *rotated.snapshot(),
            Keys::new(c.clone(), Some(typo.clone())),
            "`a` is lost"
        );
        let replaced = KeyRing::from(a.clone());
        for current in [typo, c.clone()] {
            replaced.replace((current, Some(a.clone())));
            assert_eq!(replaced.snapshot().fallback(), Some(&a));
        }
        assert_eq!(*replaced.snapshot(), Keys::new(c, Some(a)));
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
    fn a_fallback_equal_to_the_current_key_is_dropped() {
        assert_eq!(Keys::new(key("aa"), Some(key("aa"))).fallback(), None);
        // The same HMAC key for another environment has another bearer token, so it is another key.
        let elsewhere: SigningKey = "signkey-prod-aa".parse().unwrap();
        assert!(Keys::new(key("aa"), Some(elsewhere)).fallback().is_some());
    }

    /// A subscriber that reads and changes the ring on every event.
    struct Meddles(KeyRing);

    impl tracing::Subscriber for Meddles {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, _: &tracing::Event<'_>) {
            let shown = format!("{:?} {:?}", self.0, self.0.usage());
            assert!(shown.contains("SigningKey"));
            self.0.rotate(key("cc"));
            self.0.generation().count(KeyRole::Fallback, 1);
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// Runs on its own thread, so that a deadlock fails the test instead of hanging it.
    #[test]
    fn a_subscriber_may_use_the_ring_while_a_change_is_logged() {
        let ring = KeyRing::from(key("aa"));
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tracing::subscriber::with_default(Meddles(ring.clone()), || {
                ring.rotate(key("bb"));
                let rotated = ring.snapshot();
                ring.replace(key("dd"));
                ring.rotate(key("ee"));
                ring.retire_fallback();
                done.send((rotated, ring.snapshot())).unwrap();
            });
        });
        let outcome = outcome.recv_timeout(std::time::Duration::from_secs(10));
        let (rotated, retired) = outcome.expect("the ring must not be locked while it logs");
        assert_eq!(
            *rotated,
            (key("cc"), Some(key("bb"))).into(),
            "changed, then changed again"
        );
        assert_eq!(*retired.current(), key("cc"));
    }

    #[test]
    fn usage_is_counted_by_key_and_only_since_the_last_change() {
        let usage = |ring: &KeyRing| {
            let usage = ring.usage();
            (usage.current, usage.fallback, usage.fallback_last_used)
        };
        let ring = KeyRing::from(Keys::new(key("bb"), Some(key("aa"))));
        let began_before = ring.generation();
        for (role, now) in [
            (KeyRole::Current, 7),
            (KeyRole::Fallback, 9),
            (KeyRole::Fallback, 8),
        ] {
            began_before.count(role, now);
        }
        assert_eq!(usage(&ring), (1, 2, Some(9)));
        ring.replace((key("bb"), Some(key("aa"))));
        assert_eq!(usage(&ring), (1, 2, Some(9)), "nothing changed");
        ring.replace((key("cc"), Some(key("bb"))));
        began_before.count(KeyRole::Fallback, 10);
        assert_eq!(
            usage(&ring),
            (0, 0, None),
            "the key that was counted is not in the ring"
        );
    }

    #[test]
    fn roles_have_names_for_labels() {
        for (role, name) in [
            (KeyRole::Current, "current"),
            (KeyRole::Fallback, "fallback"),
        ] {
            assert_eq!(
                (role.as_str(), &*format!("{role:>9}")),
                (name, &*format!("{name:>9}"))
            );
        }
    }
}
