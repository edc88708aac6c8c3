//! Signing keys.

use arbitrary::Arbitrary;
use sha2::{Digest, Sha256};

/// The white space before and after a key.
#[derive(Arbitrary)]
pub struct Around(u8, u8);

const SPACE: [&str; 8] = [
    "",
    "\n",
    " ",
    "\t",
    "\r\n",
    "\u{a0}",
    "\u{2003}\u{2028}",
    "\x0b\x0c\u{85}",
];

impl Around {
    #[must_use]
    pub fn of(&self, text: &str) -> String {
        let [before, behind] = [self.0, self.1].map(|it| SPACE[usize::from(it) % SPACE.len()]);
        format!("{before}{text}{behind}")
    }
}

/// A key's parts.
#[derive(Debug)]
pub struct Key<'a> {
    /// `signkey-<env>-`, or empty.
    pub prefix: &'a str,
    /// The HMAC's key.
    pub secret: &'a str,
    /// The SHA-256 of the bytes that the secret spells, in hex.
    pub hash: String,
}

/// Returns a key's parts, or `None` if the text is not a key.
#[must_use]
pub fn read(text: &str) -> Option<Key<'_>> {
    let text = text.trim();
    let (prefix, secret) = text.split_at(prefix(text).unwrap_or_default());
    let bytes = unhex(secret).filter(|bytes| !bytes.is_empty())?;
    let hash = hex(&Sha256::digest(bytes));
    Some(Key {
        prefix,
        secret,
        hash,
    })
}

/// Returns the length of what `^signkey-\w+-` matches, as a state machine.
fn prefix(text: &str) -> Option<usize> {
    let mut rest = text.strip_prefix("signkey-")?;
    let mut word = 0;
    while let Some(tail) = rest.strip_prefix(|it: char| it.is_ascii_alphanumeric() || it == '_') {
        (rest, word) = (tail, word + 1);
    }
    rest = rest.strip_prefix('-')?;
    (word > 0).then_some(text.len() - rest.len())
}

/// Returns the bytes that hex digits of either case spell.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|it| it.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high * 16 + low).collect())
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte / 16), digit(byte % 16)])
        .collect()
}
