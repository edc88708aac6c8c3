//! Why a signature may not match, for logs and tools. It never affects the verdict.

use std::fmt;

use crate::canonical;
use crate::key::{Mac, Misreading, SigningKey};
use crate::keyring::Keys;
use crate::signature::{Signature, finish};

/// The longest body, in bytes, for which causes are proved. Each proof is an HMAC over the body, so
/// the length bounds the CPU time that a client can cause.
pub(crate) const MAX_LEN: usize = 64 * 1024;
/// How far from the signature's `t`, in seconds, to look for another time that was signed.
const TIMES: u8 = 60;

/// Why a signature may not match a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Proved: the HMAC key is the whole text of the key, including its prefix.
    PrefixLeftOn,
    /// Proved: the HMAC key is the bytes that the key's digits spell in hex.
    HexDecoded,
    /// Proved: the HMAC key has hex digits of the other case.
    OtherCase,
    /// Proved: the HMAC key ends in white space.
    WhiteSpace,
    /// Proved: the signed body had more or fewer newlines at its end. A proxy changed it, or
    /// someone who sends a captured request again.
    BodyNewline,
    /// Proved: the signed body had `LF` instead of `CRLF`, or the reverse. A proxy changed it, or
    /// someone who sends a captured request again.
    LineEnds,
    /// Proved: the signature covers a time other than its own `t`, or no time.
    OtherTime,
    /// Suspected: the body is compressed.
    Compressed,
    /// Suspected: the body was lost on its way.
    EmptyBody,
    /// Suspected: the body is JSON that was encoded again, and is too long for its canonical form
    /// to be compared.
    Reencoded,
}

impl Cause {
    /// Returns `true` if an HMAC matched under this assumption, so that a holder of the key made
    /// the signature. Anyone can make a request with a suspected cause.
    #[must_use]
    pub const fn is_proved(self) -> bool {
        !matches!(self, Self::Compressed | Self::EmptyBody | Self::Reencoded)
    }

    /// Returns the cause's name in snake case, for labels and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrefixLeftOn => "prefix_left_on",
            Self::HexDecoded => "hex_decoded",
            Self::OtherCase => "other_case",
            Self::WhiteSpace => "white_space",
            Self::BodyNewline => "body_newline",
            Self::LineEnds => "line_ends",
            Self::OtherTime => "other_time",
            Self::Compressed => "compressed",
            Self::EmptyBody => "empty_body",
            Self::Reencoded => "reencoded",
        }
    }
}

/// Writes what was found and what to do.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PrefixLeftOn => {
                "the sender signs with the key's prefix included, as a self-hosted server does if \
                 it was started with a prefixed key; start that server with the bare hex digits"
            }
            Self::HexDecoded => {
                "the sender hex-decodes the key; it must use the hex digits \
                themselves, as text"
            }
            Self::OtherCase => {
                "the sender's key differs from this app's only in upper and lower case; set \
                 INNGEST_SIGNING_KEY to exactly the key that the sender uses"
            }
            Self::WhiteSpace => {
                "the sender's key ends in white space, such as a newline; remove it from the \
                 sender's secret"
            }
            Self::BodyNewline => {
                "a proxy adds or removes a newline at the end of the body; configure proxies to \
                 forward bodies unchanged"
            }
            Self::LineEnds => {
                "a proxy changes the body's line endings between LF and CRLF; configure proxies to \
                 forward bodies unchanged"
            }
            Self::OtherTime => {
                "the signature covers a time other than its own `t`, or no time; either the \
                 sender does not sign the `t` that it sends, or someone changed the `t` of a \
                 captured request"
            }
            Self::Compressed => "the body is compressed; put decompression outside the layer",
            Self::EmptyBody => {
                "the body is empty; look for a redirect, or for an outer layer that consumes the \
                 body"
            }
            Self::Reencoded => {
                "the body is JSON that a proxy may have re-encoded, and over 64 KiB only the \
                 exact bytes are compared; configure proxies to forward bodies unchanged"
            }
        })
    }
}

/// Finds out why none of `keys` matches a signature over `body`.
///
/// Returns a proved cause, otherwise a suspected one, otherwise `None`. This costs up to twenty
/// times as much as [`verify`](crate::verify()), so limit how often unauthenticated clients can
/// cause it. Bodies over 64 KiB are inspected but not hashed.
///
/// ```
/// use inngest_auth::{Cause, Keys, SigningKey, diagnose, testing::odd_key};
///
/// let keys = Keys::from("signkey-prod-12345678".parse::<SigningKey>()?);
/// // A sender whose secret ends in a newline.
/// let signature = odd_key("signkey-prod-12345678\n").sign(b"{}", 1_700_000_000);
/// assert_eq!(diagnose(b"{}", &signature, &keys), Some(Cause::WhiteSpace));
///
/// let signature = "signkey-prod-00".parse::<SigningKey>()?.sign(b"{}", 1_700_000_000);
/// assert_eq!(diagnose(b"{}", &signature, &keys), None);
/// # Ok::<(), inngest_auth::KeyError>(())
/// ```
#[must_use]
pub fn diagnose(body: &[u8], signature: &Signature, keys: &Keys) -> Option<Cause> {
    prove(body, signature, keys).or_else(|| suspect(body, body.len()))
}

/// Returns the approximate maximum number of bytes that are hashed to prove a cause.
#[cfg(feature = "layer")]
pub(crate) fn cost(len: usize, keys: &Keys) -> usize {
    // Six misreadings and three more passes over the body; and the other times, of three blocks
    // each.
    let a_key = 9 * len + 2 * usize::from(TIMES) * 3 * 64;
    a_key * (1 + usize::from(keys.fallback().is_some()))
}

/// Returns a cause under which an HMAC matches.
pub(crate) fn prove(body: &[u8], signature: &Signature, keys: &Keys) -> Option<Cause> {
    if body.len() > MAX_LEN {
        return None;
    }
    let keys = [Some(keys.current()), keys.fallback()];
    keys.into_iter().flatten().find_map(|key| {
        let mut found = None;
        try_all(key, body, signature.signed_at(), |cause, mac| {
            if found.is_none() && signature.has_mac(mac) {
                found = Some(cause);
            }
        });
        found
    })
}

/// Calls `found` with the MAC under each assumption.
fn try_all(key: &SigningKey, body: &[u8], signed_at: u64, mut found: impl FnMut(Cause, &[u8; 32])) {
    for (misreading, mut mac) in key.misread() {
        mac.update(body);
        found(misreading.into(), &finish(mac, signed_at));
    }
    let last = body.iter().rposition(|byte| !b"\r\n".contains(byte));
    let mut without_newlines = key.mac();
    without_newlines.update(&body[..last.map_or(0, |last| last + 1)]);
    for newline in [&b""[..], b"\n", b"\r\n"] {
        let mut mac = without_newlines.clone();
        mac.update(newline);
        found(Cause::BodyNewline, &finish(mac, signed_at));
    }
    found(
        Cause::LineEnds,
        &finish(with_other_line_ends(key.mac(), body), signed_at),
    );
    let mut body_only = key.mac();
    body_only.update(body);
    let times = u64::from(TIMES);
    for time in signed_at.saturating_sub(times)..=signed_at.saturating_add(times) {
        if time != signed_at {
            found(Cause::OtherTime, &finish(body_only.clone(), time));
        }
    }
    found(Cause::OtherTime, &body_only.finish());
}

/// Continues a MAC with the body, in which each `LF` is replaced by `CRLF`, or each `CRLF` by `LF`.
fn with_other_line_ends(mut mac: Mac, body: &[u8]) -> Mac {
    let crlf = body.windows(2).any(|pair| pair == b"\r\n");
    let mut lines = body.split(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        match line {
            [line @ .., b'\r'] if crlf && !last => mac.update(line),
            _ => mac.update(line),
        }
        if !last {
            mac.update(if crlf { b"\n" } else { b"\r\n" });
        }
    }
    mac
}

/// Returns the cause that the beginning and length of a body suggest.
pub(crate) fn suspect(head: &[u8], len: usize) -> Option<Cause> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    if len == 0 {
        return Some(Cause::EmptyBody);
    }
    if head.starts_with(GZIP) || head.starts_with(ZSTD) {
        return Some(Cause::Compressed);
    }
    let json = matches!(head.trim_ascii_start(), [b'{' | b'[', ..]);
    (json && len > canonical::MAX_LEN).then_some(Cause::Reencoded)
}

impl From<Misreading> for Cause {
    fn from(misreading: Misreading) -> Self {
        match misreading {
            Misreading::PrefixLeftOn => Self::PrefixLeftOn,
            Misreading::HexDecoded => Self::HexDecoded,
            Misreading::OtherCase => Self::OtherCase,
            Misreading::WhiteSpace => Self::WhiteSpace,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[cfg(feature = "layer")]
    #[test]
    fn the_cost_is_counted_by_the_bytes_and_by_the_keys() {
        let key: SigningKey = "ab".parse().unwrap();
        let (one, two) = (Keys::from(key.clone()), Keys::new(key, "cd".parse().ok()));
        assert_eq!(2 * cost(1000, &one), cost(1000, &two));
        assert_eq!(cost(1000, &one) - cost(0, &one), 9000);
        assert_eq!(cost(0, &one), 120 * 3 * 64);
    }

    /// Uses the smallest and largest `t` that the grammar allows.
    #[test]
    fn times_without_ten_digits_do_no_harm() {
        let key: SigningKey = "signkey-prod-a1b2c3d4e5f60718".parse().unwrap();
        for time in [1_000_000_000, 9_999_999_999] {
            let mut macs = HashSet::new();
            try_all(&key, b"", time, |_, mac| {
                macs.insert(*mac);
            });
            assert!(macs.len() > 100);
        }
    }
}
