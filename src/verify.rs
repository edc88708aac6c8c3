//! The check of bytes against a signature, the keys and the time. It is pure: it has no clock, no
//! state and no secret of its own.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::canonical::{self, canonicalize};
use crate::key::{Mac, SigningKey};
use crate::keyring::{KeyRole, Keys};
use crate::signature::Signature;

/// How far a signature's time may differ from the clock, in whole seconds and in either direction:
/// 1 second to 1 hour (default: 5 minutes).
///
/// The upper bound limits for how long a captured request can be sent again. The lower bound exists
/// because a window of zero would reject Inngest.
///
/// ```
/// use std::time::Duration;
/// use inngest_auth::{Tolerance, ToleranceError};
///
/// assert_eq!(Tolerance::try_from_secs(30)?.as_secs(), 30);
/// assert!(Tolerance::try_from_secs(3601).is_err());
/// // A `Duration` is clamped.
/// assert_eq!(Tolerance::from(Duration::MAX).as_secs(), 3600);
/// # Ok::<(), ToleranceError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tolerance(u64);

impl Tolerance {
    /// The longest tolerance: one hour.
    pub const MAX: Self = Self(3600);

    /// Creates a tolerance from whole seconds, clamped to 1 to 3600.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        // `clamp` is not const.
        match seconds {
            0 => Self(1),
            3600.. => Self(3600),
            _ => Self(seconds),
        }
    }

    /// Creates a tolerance from whole seconds.
    ///
    /// # Errors
    ///
    /// Returns a [`ToleranceError`] if `seconds` is not in 1 to 3600.
    pub const fn try_from_secs(seconds: u64) -> Result<Self, ToleranceError> {
        match seconds {
            1..=3600 => Ok(Self(seconds)),
            _ => Err(ToleranceError { seconds }),
        }
    }

    /// Returns the tolerance in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::from_secs(300)
    }
}

/// Rounds down to whole seconds, then clamps to 1 second to 1 hour.
impl From<Duration> for Tolerance {
    fn from(duration: Duration) -> Self {
        Self::from_secs(duration.as_secs())
    }
}

/// An error returned when a [`Tolerance`] is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("invalid tolerance of {seconds} s: expected 1 to 3600 s")]
pub struct ToleranceError {
    seconds: u64,
}

/// Which bytes a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// The body as sent.
    Raw,
    /// Only the body's canonical form (RFC 8785). The handler receives that form.
    Canonical,
}

impl Form {
    /// Returns `raw` or `canonical`, for labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Canonical => "canonical",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Proof that a holder of one of the keys signed a body within the window. Only this crate can
/// create it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verified {
    key: KeyRole,
    signed_at: u64,
    form: Form,
}

impl Verified {
    fn new(key: KeyRole, signature: &Signature, form: Form) -> Self {
        Self {
            key,
            signed_at: signature.signed_at(),
            form,
        }
    }

    /// Returns the key that matched.
    #[must_use]
    pub fn key(&self) -> KeyRole {
        self.key
    }

    /// Returns the request's `t`, in seconds since the Unix epoch.
    #[must_use]
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// Returns the form that matched.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }
}

/// A body that [`verify`] accepted, with the bytes that were authenticated.
#[derive(Clone, Debug)]
#[must_use = "use these bytes, and not the body as received"]
pub struct Authentic<'body> {
    verified: Verified,
    bytes: Cow<'body, [u8]>,
}

impl<'body> Authentic<'body> {
    pub(crate) fn new(verified: Verified, body: &'body [u8], canonical: Option<Vec<u8>>) -> Self {
        Self {
            verified,
            bytes: canonical.map_or(Cow::Borrowed(body), Cow::Owned),
        }
    }

    /// Returns how the body was verified.
    #[must_use]
    pub fn verified(&self) -> Verified {
        self.verified
    }

    /// Returns the bytes to use: the body itself, or its canonical form if only that was signed.
    ///
    /// Any other bytes were not signed. For example, a body as sent may contain a key twice, and
    /// two parsers may choose different values.
    #[must_use]
    pub fn into_bytes(self) -> Cow<'body, [u8]> {
        self.bytes
    }
}

/// An error returned when [`verify`] rejects a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Signed longer ago than the tolerance.
    #[error("signed {age} s ago")]
    Stale {
        /// The age, in seconds.
        age: u64,
    },
    /// Signed further in the future than the tolerance.
    #[error("signed {ahead} s in the future")]
    Future {
        /// How far in the future, in seconds.
        ahead: u64,
    },
    /// No key signed these bytes or their canonical form.
    #[error("no key matches the signature")]
    Mismatch,
}

/// Checks that one of `keys` signed `body`, within `tolerance` of `now` (Unix seconds).
///
/// Compares the bytes as sent first: with the current key, then with the fallback key. Only if
/// neither matches and the body is JSON of at most 64 KiB, it compares the canonical form (RFC
/// 8785). The function is pure: it uses no clock and keeps no state.
///
/// # Errors
///
/// Returns a [`VerifyError`]. A body without a canonical form is a mismatch like any other.
///
/// ```
/// use inngest_auth::{Keys, SigningKey, Tolerance, VerifyError, verify};
///
/// let key: SigningKey = "signkey-test-12345678".parse()?;
/// let signature = key.sign(b"{}", 1_700_000_000);
/// let keys = Keys::from(key);
///
/// let accepted = verify(b"{}", &signature, &keys, 1_700_000_300, Tolerance::default())?;
/// assert_eq!(&*accepted.into_bytes(), b"{}");
///
/// let rejected = verify(b"{}", &signature, &keys, 1_700_000_301, Tolerance::default());
/// assert_eq!(rejected.unwrap_err(), VerifyError::Stale { age: 301 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify<'body>(
    body: &'body [u8],
    signature: &Signature,
    keys: &Keys,
    now: u64,
    tolerance: Tolerance,
) -> Result<Authentic<'body>, VerifyError> {
    check_fresh(signature, now, tolerance)?;
    // The raw bytes first. Calls are signed over them, and so are durable endpoints, whose bodies
    // need not be JSON. Only syncs are signed over the canonical form.
    let mut running = keys.current().mac();
    running.update(body);
    if let Some(verified) = compare_raw(running, signature, keys, [body]) {
        return Ok(Authentic::new(verified, body, None));
    }
    let (verified, canonical) =
        compare_canonical(signature, keys, [body]).ok_or(VerifyError::Mismatch)?;
    Ok(Authentic::new(verified, body, Some(canonical)))
}

/// Checks that the signature lies within the window, both ends included.
///
/// Both ends matter. An old signature could be replayed for ever, and without the end in the future
/// digits could be moved between the body and `t`, which are signed without a separator.
pub(crate) fn check_fresh(
    signature: &Signature,
    now: u64,
    tolerance: Tolerance,
) -> Result<(), VerifyError> {
    let age = now.saturating_sub(signature.signed_at());
    let ahead = signature.signed_at().saturating_sub(now);
    if age > tolerance.0 {
        Err(VerifyError::Stale { age })
    } else if ahead > tolerance.0 {
        Err(VerifyError::Future { ahead })
    } else {
        Ok(())
    }
}

/// Compares the signature with the MACs of `body`, given in pieces, under `keys`. `running` is the
/// current key's MAC and has already seen the body.
pub(crate) fn compare_raw<'a>(
    running: Mac,
    signature: &Signature,
    keys: &Keys,
    body: impl IntoIterator<Item = &'a [u8]>,
) -> Option<Verified> {
    let key = if signature.ends(running) {
        KeyRole::Current
    } else if signed_by(keys.fallback(), signature, body) {
        KeyRole::Fallback
    } else {
        return None;
    };
    Some(Verified::new(key, signature, Form::Raw))
}

/// Compares the signature with the MACs of the canonical form of `body`, if it has another one.
/// Returns that form too.
pub(crate) fn compare_canonical<'a>(
    signature: &Signature,
    keys: &Keys,
    body: impl IntoIterator<Item = &'a [u8]>,
) -> Option<(Verified, Vec<u8>)> {
    let canonical = canonical_form(body)?;
    let key = if signed_by(Some(keys.current()), signature, [&*canonical]) {
        KeyRole::Current
    } else if signed_by(keys.fallback(), signature, [&*canonical]) {
        KeyRole::Fallback
    } else {
        return None;
    };
    Some((Verified::new(key, signature, Form::Canonical), canonical))
}

fn signed_by<'a>(
    key: Option<&SigningKey>,
    signature: &Signature,
    body: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    key.is_some_and(|key| {
        let mut mac = key.mac();
        for piece in body {
            mac.update(piece);
        }
        signature.ends(mac)
    })
}

/// Returns the canonical form, or `None` if the body has none or if it equals the body, which was
/// already compared.
fn canonical_form<'a>(body: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for piece in body {
        // Before copying: unauthenticated clients reach this with bodies of any length.
        if text.len() + piece.len() > canonical::MAX_LEN {
            return None;
        }
        text.extend_from_slice(piece);
    }
    canonicalize(&text).filter(|canonical| *canonical != text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_of_all_pieces_together() {
        // Two pieces, each far longer than one byte, with the maximum total length.
        let text = format!(" \"{}\"", "x".repeat(canonical::MAX_LEN - 3));
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        assert_eq!(
            canonical_form([first, second]).unwrap(),
            &text.as_bytes()[1..]
        );
        assert_eq!(canonical_form([first, second, b" "]), None);
        assert_eq!(
            canonical_form([&text.as_bytes()[1..]]),
            None,
            "it is its canonical form"
        );
    }
}
