//! The signature header.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::key::unhex;

/// Returns the time and MAC of a header that matches the grammar.
#[must_use]
pub fn read(header: &[u8]) -> Option<(u64, [u8; 32])> {
    let (mut times, mut macs) = (Vec::new(), Vec::new());
    for param in header.split(|&byte| byte == b'&') {
        let equals = param.iter().position(|&byte| byte == b'=')?;
        match (&param[..equals], &param[equals + 1..]) {
            (b"", _) => return None,
            (b"t", value) => times.push(time(value)?),
            (b"s", value) => macs.push(mac(value)?),
            _ if param.iter().all(|byte| (0x21..=0x7e).contains(byte)) => {}
            _ => return None,
        }
    }
    match (&times[..], &macs[..]) {
        ([time], [mac]) => Some((*time, *mac)),
        _ => None,
    }
}

/// Returns `true` for several headers joined by a proxy: values of the grammar between commas.
#[must_use]
pub fn joined(header: &[u8]) -> bool {
    let values: Vec<_> = header
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .collect();
    let (empty, others): (Vec<&[u8]>, Vec<_>) = values.iter().partition(|value| value.is_empty());
    values.len() > 1
        && empty.len() < values.len()
        && others.into_iter().all(|value| read(value).is_some())
}

fn time(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok()?;
    let right = digits.len() == 10
        && digits.chars().all(|it| it.is_ascii_digit())
        && !digits.starts_with('0');
    right.then(|| digits.parse().ok())?
}

fn mac(value: &[u8]) -> Option<[u8; 32]> {
    unhex(str::from_utf8(value).ok()?)?.try_into().ok()
}

/// Returns the header's value as Inngest writes it.
#[must_use]
pub fn write(time: impl std::fmt::Display, mac: &[u8]) -> String {
    format!("t={time}&s={}", crate::key::hex(mac))
}

/// Returns the HMAC-SHA256 over the body and the decimal time.
///
/// # Panics
///
/// Never: HMAC accepts a key of any length.
#[must_use]
pub fn sign(secret: &str, body: &[u8], time: u64) -> [u8; 32] {
    hmac(secret, &[body, time.to_string().as_bytes()].concat())
}

/// Returns the HMAC-SHA256 of a message.
///
/// # Panics
///
/// Never: HMAC accepts a key of any length.
#[must_use]
pub fn hmac(secret: &str, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}
