//! The check of bytes against a signature, the keys and the time. Pure: no clock, no state, no secret of its own.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::canonical::{self, canonicalize};
use crate::key::{Mac, SigningKey};
use crate::keyring::{KeyRole, Keys};
use crate::signature::Signature;

/// How far, in whole seconds, a signature's time may be from ours, in either direction: 1 second to
/// 1 hour (default: 5 minutes).
///
/// The upper bound limits for how long a captured request can be sent again. The lower bound is
/// there because a window of zero would reject Inngest.
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
    /// The longest tolerance: an hour.
    pub const MAX: Self = Self(3600);

    /// Takes whole seconds, clamped to 1 to 3600.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        // `clamp` is not const.
        match seconds {
            0 => Self(1),
            3600.. => Self(3600),
            _ => Self(seconds),
        }
    }

    /// Takes whole seconds.
    ///
    /// # Errors
    ///
    /// [`ToleranceError`] if `seconds` is not in 1 to 3600.
    pub const fn try_from_secs(seconds: u64) -> Result<Self, ToleranceError> {
        match seconds {
            1..=3600 => Ok(Self(seconds)),
            _ => Err(ToleranceError { seconds }),
        }
    }

    /// Returns the seconds.
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

/// Which bytes a signature was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// The body as sent.
    Raw,
    /// The body's RFC 8785 form, and only that: what is handed on is that form.
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

/// Proof that a body was signed by a holder of one of the keys, inside the window. Only this crate makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verified {
    key: KeyRole,
    signed_at: u64,
    form: Form,
}

impl Verified {
    /// The key that matched.
    #[must_use]
    pub fn key(&self) -> KeyRole {
        self.key
    }

    /// The request's `t`, in seconds since the Unix epoch.
    #[must_use]
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// The form that matched.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }
}

/// A body that [`verify`] accepted, and the bytes of it that were authenticated.
#[derive(Clone, Debug)]
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

    /// How it was verified.
    #[must_use]
    pub fn verified(&self) -> Verified {
        self.verified
    }

    /// The bytes to read: the body itself, or its canonical form where that is what was signed.
    /// Reading anything else (the body as sent, with its equal keys twice, say) is reading what nobody signed.
    #[must_use]
    pub fn into_bytes(self) -> Cow<'body, [u8]> {
        self.bytes
    }
}

/// Why [`verify`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Signed longer ago than the tolerance.
    #[error("signed {age} s ago")]
    Stale {
        /// In seconds.
        age: u64,
    },
    /// Signed further ahead than the tolerance.
    #[error("signed {ahead} s in the future")]
    Future {
        /// In seconds.
        ahead: u64,
    },
    /// No key signed these bytes, neither as they are nor in their canonical form.
    #[error("no key matches the signature")]
    Mismatch,
}

/// Checks that `body` was signed with one of `keys`, and that within `tolerance` of `now` (Unix seconds).
///
/// The bytes as they are come first, with the current key and then the fallback. Only if neither matches,
/// and the body is JSON of at most 64 KiB, the same over its RFC 8785 form. Pure: no clock, no state.
///
/// # Errors
///
/// [`VerifyError`]. A body without a canonical form is a mismatch like any other.
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
/// let refused = verify(b"{}", &signature, &keys, 1_700_000_301, Tolerance::default());
/// assert_eq!(refused.unwrap_err(), VerifyError::Stale { age: 301 });
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
    let mut running = keys.current().mac();
    running.update(body);
    let (verified, canonical) = compare(running, signature, keys, [body])?;
    Ok(Authentic::new(verified, body, canonical))
}

/// Whether the signature lies inside the window, both ends included.
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

/// Compares the signature with what `keys` make of `body`, in pieces. `running` is the current key's MAC and has seen
/// the body already. Returns the canonical form too, if that is what was signed.
pub(crate) fn compare<'a, I>(
    running: Mac,
    signature: &Signature,
    keys: &Keys,
    body: I,
) -> Result<(Verified, Option<Vec<u8>>), VerifyError>
where
    I: IntoIterator<Item = &'a [u8]> + Clone,
{
    let verified = |key, form| Verified {
        key,
        signed_at: signature.signed_at(),
        form,
    };
    if signature.ends(running) {
        return Ok((verified(KeyRole::Current, Form::Raw), None));
    }
    if signed_by(keys.fallback(), signature, body.clone()) {
        return Ok((verified(KeyRole::Fallback, Form::Raw), None));
    }
    let canonical = canonical_form(body).ok_or(VerifyError::Mismatch)?;
    let key = if signed_by(Some(keys.current()), signature, [&*canonical]) {
        KeyRole::Current
    } else if signed_by(keys.fallback(), signature, [&*canonical]) {
        KeyRole::Fallback
    } else {
        return Err(VerifyError::Mismatch);
    };
    Ok((verified(key, Form::Canonical), Some(canonical)))
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

/// `None` too where the body *is* its canonical form: that has been tried.
fn canonical_form<'a>(body: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for piece in body {
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
        // Two pieces, each far over one byte, together as long as is allowed.
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
