//! The keys that a process holds, shared by everything that signs or verifies, changed while it runs.

use std::sync::{Arc, PoisonError, RwLock};

use crate::key::{Keys, SigningKey};

/// A handle on the current key and the fallback. Clones share one ring, and cost one reference count.
///
/// ```
/// use inngest_auth::{KeyRing, Keys, SigningKey};
///
/// let old: SigningKey = "signkey-prod-11111111".parse()?;
/// let new: SigningKey = "signkey-prod-22222222".parse()?;
/// let ring = KeyRing::from(Keys::new(new.clone(), Some(old.clone())));
///
/// let keys = ring.snapshot();
/// assert_eq!(keys.current(), &new);
/// assert_eq!(keys.fallback(), Some(&old));
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
