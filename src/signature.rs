//! The `X-Inngest-Signature` header: its grammar, and how a signature is made.
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
//! The signed text has no separator between the body and `t`. This is safe only because `t` is
//! always ten digits, the first of which is not 0, and must lie within a window closed on both
//! sides. So digits cannot move between the end of the body and `t` without leaving the window.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hex;
use crate::key::{self, Mac, SigningKey};

/// The header that carries a [`Signature`], on requests and responses.
pub const SIGNATURE_HEADER: &str = "x-inngest-signature";

/// A parsed `X-Inngest-Signature` header: the time that it was signed, according to the signer, and
/// the MAC.
///
/// A parsed signature proves nothing yet; use [`verify`](crate::verify) to check it. `Display`
/// prints the header's value, `t` first. `Debug` omits the MAC.
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
    /// The same as digits, as the sender signed it.
    digits: [u8; 10],
    mac: [u8; 32],
}

impl Signature {
    /// Returns the signature's time in seconds since the Unix epoch. It always has ten digits.
    #[must_use]
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// Parses the header's value. Never panics, and takes time linear in the value's length.
    ///
    /// # Errors
    ///
    /// Returns a [`SignatureError`] that names the first violated rule of the grammar.
    pub fn parse(header: &[u8]) -> Result<Self, SignatureError> {
        let joined = || is_joined(header).then_some(SignatureError::Joined);
        Self::parse_one(header).map_err(|error| joined().unwrap_or(error))
    }

    fn parse_one(header: &[u8]) -> Result<Self, SignatureError> {
        let (mut time, mut mac) = (None, None);
        let mut rest = Some(header);
        while let Some(param) = rest {
            let twice;
            (twice, rest) = match param {
                [b't', b'=', value @ ..] => {
                    let (digits, rest) = whole_value(value).ok_or(SignatureError::BadTime)?;
                    (time.replace((parse_time(digits)?, *digits)).is_some(), rest)
                }
                [b's', b'=', value @ ..] => {
                    let (digits, rest) = whole_value(value).ok_or(SignatureError::BadMac)?;
                    (mac.replace(parse_mac(digits)?).is_some(), rest)
                }
                other => (false, skip_unknown(other)?),
            };
            // Another parser might choose the other one.
            if twice {
                return Err(SignatureError::Repeated);
            }
        }
        let (signed_at, digits) = time.ok_or(SignatureError::NoTime)?;
        Ok(Self {
            signed_at,
            digits,
            mac: mac.ok_or(SignatureError::NoMac)?,
        })
    }

    /// Adds the time to a MAC that has seen the body, and returns `true` if the result is this
    /// signature's MAC. Compares in constant time.
    pub(crate) fn ends(&self, mut running: Mac) -> bool {
        running.update(&self.digits);
        running.verify(&self.mac)
    }

    /// Compares the MAC in constant time.
    pub(crate) fn has_mac(&self, mac: &[u8; 32]) -> bool {
        key::equal(&self.mac, mac)
    }

    #[cfg(feature = "layer")]
    pub(crate) fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    /// Returns the header's value. Its length is constant, because `t` always has ten digits.
    pub(crate) fn encode(&self) -> [u8; 79] {
        let mut header = [0; 79];
        header[..2].copy_from_slice(b"t=");
        header[2..12].copy_from_slice(&self.digits);
        header[12..15].copy_from_slice(b"&s=");
        for (digits, byte) in header[15..].as_chunks_mut().0.iter_mut().zip(self.mac) {
            *digits = hex::encode(byte);
        }
        header
    }

    pub(crate) fn sign<'a>(
        key: &SigningKey,
        body: impl IntoIterator<Item = &'a [u8]>,
        unix_seconds: u64,
    ) -> Self {
        let signed_at = unix_seconds.clamp(MIN_TIME, MAX_TIME);
        let mut mac = key.mac();
        for piece in body {
            mac.update(piece);
        }
        let digits = decimal(signed_at);
        mac.update(&digits);
        Self {
            signed_at,
            digits,
            mac: mac.finish(),
        }
    }
}

const MIN_TIME: u64 = 1_000_000_000;
const MAX_TIME: u64 = 9_999_999_999;

/// Returns `true` for the values of several headers that a proxy joined into one (RFC 9110 §5.3).
/// This is checked last, because an unknown parameter's value may contain a comma.
fn is_joined(header: &[u8]) -> bool {
    let values = || header.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let is_value = |value: &[u8]| value.is_empty() || Signature::parse_one(value).is_ok();
    header.contains(&b',') && values().all(is_value) && values().any(|value| !value.is_empty())
}

/// Splits off a value of exactly `N` bytes. The second part is the parameters after it, or `None`
/// if it is the last.
fn whole_value<const N: usize>(text: &[u8]) -> Option<(&[u8; N], Option<&[u8]>)> {
    match text.split_first_chunk()? {
        (value, []) => Some((value, None)),
        (value, [b'&', rest @ ..]) => Some((value, Some(rest))),
        _ => None,
    }
}

/// Parses exactly ten digits without a leading 0. With any other length, digits could be moved
/// between the end of the body and `t` without changing the MAC.
fn parse_time(digits: &[u8; 10]) -> Result<u64, SignatureError> {
    match digits {
        [b'1'..=b'9', ..] if digits.iter().all(u8::is_ascii_digit) => Ok(digits
            .iter()
            .fold(0, |time, digit| time * 10 + u64::from(digit - b'0'))),
        _ => Err(SignatureError::BadTime),
    }
}

fn parse_mac(digits: &[u8; 64]) -> Result<[u8; 32], SignatureError> {
    let mut mac = [0; 32];
    let valid = hex::decode(digits.as_chunks().0, &mut mac);
    valid.then_some(mac).ok_or(SignatureError::BadMac)
}

fn skip_unknown(params: &[u8]) -> Result<Option<&[u8]>, SignatureError> {
    let end = params.iter().position(|&byte| byte == b'&');
    let (param, rest) = match end {
        Some(end) => (&params[..end], Some(&params[end + 1..])),
        None => (params, None),
    };
    let named = param
        .iter()
        .position(|&byte| byte == b'=')
        .is_some_and(|at| at > 0);
    if named && param.iter().all(u8::is_ascii_graphic) {
        Ok(rest)
    } else {
        Err(SignatureError::BadParameter)
    }
}

/// Completes a MAC over a body with the decimal time, as the protocol requires.
pub(crate) fn finish(mut mac: Mac, signed_at: u64) -> [u8; 32] {
    mac.update(&decimal(signed_at));
    mac.finish()
}

/// Returns the decimal digits of a ten-digit time.
fn decimal(time: u64) -> [u8; 10] {
    let mut digits = [b'0'; 10];
    let mut rest = time;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).expect("one digit");
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

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.signed_at == other.signed_at && self.has_mac(&other.mac)
    }
}

impl Eq for Signature {}

impl SigningKey {
    /// Signs `body` with the time `unix_seconds`: `hex(HMAC-SHA256(key, body ‖ decimal(t)))`.
    ///
    /// A time that does not have ten digits (before 2001 or after 2286) is replaced by the nearest
    /// that does. The format has no other times, and no verifier with a working clock accepts
    /// either.
    #[must_use]
    pub fn sign(&self, body: &[u8], unix_seconds: u64) -> Signature {
        Signature::sign(self, [body], unix_seconds)
    }
}

/// An error returned when a header is not a signature. It is for the operator; the client is not
/// told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// `t` is missing.
    #[error("the signature has no `t`")]
    NoTime,
    /// `s` is missing.
    #[error("the signature has no `s`")]
    NoMac,
    /// `t` or `s` is present more than once.
    #[error("the signature repeats `t` or `s`")]
    Repeated,
    /// `t` is not a ten-digit number without a leading 0.
    #[error("the signature's `t` is not a ten-digit number without a leading 0")]
    BadTime,
    /// `s` is not 64 hex digits.
    #[error("the signature's `s` is not 64 hex digits")]
    BadMac,
    /// A parameter is not `name=value` in visible ASCII.
    #[error("the signature has a parameter that is not `name=value` in visible ASCII")]
    BadParameter,
    /// One header contains several signatures.
    #[error("more than one X-Inngest-Signature, joined by commas into one header")]
    Joined,
}
