//! `X-Inngest-Signature`: its grammar, how it is made, and the check of bytes against it.
//!
//! ```text
//! signature = param *( "&" param )          ; in any order
//! param     = "t=" %x31-39 9DIGIT           ; Unix seconds, exactly once
//!           / "s=" 64HEXDIG                 ; HMAC-SHA256(key, body ‖ t), exactly once
//!           / 1*name "=" *value             ; any other name: ignored
//! name      = %x21-25 / %x27-3C / %x3E-7E   ; visible ASCII but "&" and "="
//! value     = name / "="
//! ```
//!
//! No separator stands between body and `t` in what is signed. That is safe only because `t` is always ten
//! digits, the first not 0, and must lie inside a window closed on both sides: digits cannot wander from one
//! into the other without leaving the window.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::canonical::canonicalize;
use crate::key::{Keys, Mac, SigningKey};

/// The header that carries a [`Signature`], on requests and on answers.
pub const SIGNATURE_HEADER: &str = "x-inngest-signature";

/// A parsed `X-Inngest-Signature`: when the sender says it signed, and the MAC.
///
/// It says nothing yet about who sent it: that is what [`verify`] is for. `Display` prints the header's
/// value, `t` first; `Debug` leaves the MAC out.
///
/// ```
/// use inngest_auth::{Signature, SignatureError};
///
/// let header = "t=1700000000&s=67a82077baa52522b1f612a154a25275c00a0338efc32be5ee396bd2391ba5e0";
/// let signature: Signature = header.parse()?;
/// assert_eq!(signature.signed_at(), 1_700_000_000);
/// assert_eq!(signature.to_string(), header);
///
/// assert_eq!("t=1700000000".parse::<Signature>().unwrap_err(), SignatureError::NoMac);
/// # Ok::<(), SignatureError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Signature {
    signed_at: u64,
    mac: [u8; 32],
}

impl Signature {
    /// Seconds since the Unix epoch; always ten digits.
    #[must_use]
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// Parses the header's value. Total: no input panics, none costs more than its length.
    ///
    /// # Errors
    ///
    /// [`SignatureError`] names the first rule of the grammar that is broken.
    pub fn parse(header: &[u8]) -> Result<Self, SignatureError> {
        let (mut signed_at, mut mac) = (None, None);
        let mut rest = Some(header);
        while let Some(param) = rest {
            let twice;
            (twice, rest) = match param {
                [b't', b'=', value @ ..] => {
                    let (digits, rest) = whole_value(value).ok_or(SignatureError::BadTime)?;
                    (signed_at.replace(parse_time(digits)?).is_some(), rest)
                }
                [b's', b'=', value @ ..] => {
                    let (digits, rest) = whole_value(value).ok_or(SignatureError::BadMac)?;
                    (mac.replace(parse_mac(digits)?).is_some(), rest)
                }
                other => (false, skip_unknown(other)?),
            };
            if twice {
                return Err(SignatureError::Repeated);
            }
        }
        Ok(Self {
            signed_at: signed_at.ok_or(SignatureError::NoTime)?,
            mac: mac.ok_or(SignatureError::NoMac)?,
        })
    }

    #[cfg(feature = "layer")]
    pub(crate) fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    /// The header's value: `t` is ten digits, so its length is always the same.
    pub(crate) fn encode(&self) -> [u8; 79] {
        let mut header = [0; 79];
        header[..2].copy_from_slice(b"t=");
        header[2..12].copy_from_slice(&decimal(self.signed_at));
        header[12..15].copy_from_slice(b"&s=");
        let encoded = hex::encode_to_slice(self.mac, &mut header[15..]);
        debug_assert!(encoded.is_ok(), "32 bytes are 64 digits");
        header
    }

    pub(crate) fn sign<'a>(key: &SigningKey, body: impl IntoIterator<Item = &'a [u8]>, unix_seconds: u64) -> Self {
        let signed_at = unix_seconds.clamp(MIN_TIME, MAX_TIME);
        let mut mac = key.mac();
        for piece in body {
            mac.update(piece);
        }
        Self {
            signed_at,
            mac: finish(mac, signed_at),
        }
    }
}

const MIN_TIME: u64 = 1_000_000_000;
const MAX_TIME: u64 = 9_999_999_999;

/// A value of exactly `N` bytes, and the parameters behind it: `None` where it is the last.
fn whole_value<const N: usize>(text: &[u8]) -> Option<(&[u8; N], Option<&[u8]>)> {
    match text.split_first_chunk()? {
        (value, []) => Some((value, None)),
        (value, [b'&', rest @ ..]) => Some((value, Some(rest))),
        _ => None,
    }
}

fn parse_time(digits: &[u8; 10]) -> Result<u64, SignatureError> {
    match digits {
        [b'1'..=b'9', ..] if digits.iter().all(u8::is_ascii_digit) => {
            Ok(digits.iter().fold(0, |time, digit| time * 10 + u64::from(digit - b'0')))
        }
        _ => Err(SignatureError::BadTime),
    }
}

/// By hand, for a twentieth of the whole check: every digit is looked up, and one look at the end tells whether
/// all of them were digits.
fn parse_mac(digits: &[u8; 64]) -> Result<[u8; 32], SignatureError> {
    let mut mac = [0; 32];
    let mut seen = 0;
    for (byte, pair) in mac.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| HEX[usize::from(digit)]);
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    if seen == NOT_HEX {
        Err(SignatureError::BadMac)
    } else {
        Ok(mac)
    }
}

/// All bits set: whatever it is combined with, it shows.
const NOT_HEX: u8 = 0xff;
const HEX: [u8; 256] = {
    let mut values = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

fn skip_unknown(params: &[u8]) -> Result<Option<&[u8]>, SignatureError> {
    let end = params.iter().position(|&byte| byte == b'&');
    let (param, rest) = match end {
        Some(end) => (&params[..end], Some(&params[end + 1..])),
        None => (params, None),
    };
    let named = param.iter().position(|&byte| byte == b'=').is_some_and(|at| at > 0);
    if named && param.iter().all(u8::is_ascii_graphic) {
        Ok(rest)
    } else {
        Err(SignatureError::BadParameter)
    }
}

/// Ends a MAC over a body with the time, in decimal, as the protocol has it.
fn finish(mut mac: Mac, signed_at: u64) -> [u8; 32] {
    mac.update(&decimal(signed_at));
    mac.finish()
}

/// Ten digits, for a time of ten digits.
fn decimal(time: u64) -> [u8; 10] {
    let mut digits = [b'0'; 10];
    let mut rest = time;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    digits
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(header: &str) -> Result<Self, SignatureError> {
        Self::parse(header.as_bytes())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.encode()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("signed_at", &self.signed_at)
            .finish_non_exhaustive()
    }
}

/// Told in constant time.
impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.signed_at == other.signed_at && equal(&self.mac, &other.mac)
    }
}

impl Eq for Signature {}

/// Why a header is no signature. For the operator: the sender is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// No `t`.
    #[error("the signature has no `t`")]
    NoTime,
    /// No `s`.
    #[error("the signature has no `s`")]
    NoMac,
    /// `t` or `s` more than once.
    #[error("the signature has `t` or `s` more than once")]
    Repeated,
    /// `t` is not ten digits, the first not 0.
    #[error("the signature's `t` is not ten digits, the first not 0")]
    BadTime,
    /// `s` is not 64 hex digits.
    #[error("the signature's `s` is not 64 hex digits")]
    BadMac,
    /// A parameter that is not `name=value` in visible ASCII.
    #[error("the signature has a parameter that is not `name=value` in visible ASCII")]
    BadParameter,
}

/// How far, in whole seconds, a signature's time may lie from ours, in either direction: 1 s to 1 h, 5 min
/// unless set.
///
/// A longer one is cut to an hour and a shorter one raised to a second: it bounds for how long a captured
/// request can be sent again, and a window of none would refuse Inngest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance(u64);

impl Tolerance {
    /// In seconds, brought into 1 to 3600.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        // `clamp` is not const.
        match seconds {
            0 => Self(1),
            3600.. => Self(3600),
            _ => Self(seconds),
        }
    }

    /// In seconds.
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

/// Rounded down to whole seconds.
impl From<Duration> for Tolerance {
    fn from(duration: Duration) -> Self {
        Self::from_secs(duration.as_secs())
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

/// Which bytes a signature was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The body as sent.
    Raw,
    /// The body's RFC 8785 form, and only that: what is handed on is that form.
    Canonical,
}

/// Proof that a body was signed by a holder of one of the keys, inside the window. Only this crate makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let (verified, canonical) = judge(running, signature, keys, [body])?;
    Ok(Authentic {
        verified,
        bytes: canonical.map_or(Cow::Borrowed(body), Cow::Owned),
    })
}

/// Whether the signature lies inside the window, both ends included.
pub(crate) fn check_fresh(signature: &Signature, now: u64, tolerance: Tolerance) -> Result<(), VerifyError> {
    let age = now.saturating_sub(signature.signed_at);
    let ahead = signature.signed_at.saturating_sub(now);
    if age > tolerance.0 {
        Err(VerifyError::Stale { age })
    } else if ahead > tolerance.0 {
        Err(VerifyError::Future { ahead })
    } else {
        Ok(())
    }
}

/// Whether one of `keys` made the signature: `running` is the current key's MAC and has seen `body`, which is given
/// again, in pieces. With the answer comes the canonical form, where that is what was signed.
pub(crate) fn judge<'a, I>(
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
        signed_at: signature.signed_at,
        form,
    };
    if equal(&finish(running, signature.signed_at), &signature.mac) {
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

/// Told in constant time, by words: by bytes it takes a twentieth of the whole check.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let words = |mac: &[u8; 32]| -> [u64; 4] {
        let chunks = mac.as_chunks().0;
        std::array::from_fn(|at| u64::from_ne_bytes(chunks[at]))
    };
    words(a).ct_eq(&words(b)).into()
}

fn signed_by<'a>(key: Option<&SigningKey>, signature: &Signature, body: impl IntoIterator<Item = &'a [u8]>) -> bool {
    key.is_some_and(|key| {
        let expected = Signature::sign(key, body, signature.signed_at);
        equal(&expected.mac, &signature.mac)
    })
}

/// `None` too where the body *is* its canonical form: that has been tried.
fn canonical_form<'a>(body: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for piece in body {
        if text.len() + piece.len() > crate::canonical::MAX_LEN {
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
        let text = format!(" \"{}\"", "x".repeat(crate::canonical::MAX_LEN - 3));
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        assert_eq!(canonical_form([first, second]).unwrap(), &text.as_bytes()[1..]);
        assert_eq!(canonical_form([first, second, b" "]), None);
        assert_eq!(
            canonical_form([&text.as_bytes()[1..]]),
            None,
            "it is its canonical form"
        );
    }
}
