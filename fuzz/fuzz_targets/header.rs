//! The signature header: exactly what the grammar allows is parsed, and a printed signature parses
//! to the same.
#![no_main]

use inngest_auth::{Signature, SignatureError};
use inngest_auth_fuzz::header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let parsed = Signature::parse(input);
    if let Ok(text) = str::from_utf8(input) {
        assert_eq!(text.parse::<Signature>(), parsed);
    }
    match (parsed, header::read(input)) {
        (Ok(signature), Some((time, mac))) => {
            assert_eq!(signature.signed_at(), time);
            let printed = signature.to_string();
            assert_eq!(printed, header::write(time, &mac));
            assert_eq!(printed.parse(), Ok(signature));
            assert!(!format!("{signature:?}").contains(&printed[printed.len() - 64..]));
        }
        (Err(error), None) => assert!(is_true(error, input), "{error}"),
        (parsed, expected) => panic!("{parsed:?} where the grammar has {expected:?}"),
    }
});

/// Returns `true` if the given reason applies, even if others do too.
fn is_true(error: SignatureError, input: &[u8]) -> bool {
    let params = || input.split(|&byte| byte == b'&');
    let named = |name: &'static [u8]| params().filter(move |param| param.starts_with(name));
    // The other parameter is valid, so only the one of this name can be wrong.
    let broken =
        |param: &[u8], beside: &str| header::read(&[param, beside.as_bytes()].concat()).is_none();
    let mac = format!("&s={}", "0".repeat(64));
    match error {
        SignatureError::Joined => header::joined(input),
        _ if header::joined(input) => false,
        SignatureError::NoTime => named(b"t=").count() == 0,
        SignatureError::NoMac => named(b"s=").count() == 0,
        SignatureError::Repeated => named(b"t=").count() > 1 || named(b"s=").count() > 1,
        SignatureError::BadTime => named(b"t=").any(|param| broken(param, &mac)),
        SignatureError::BadMac => named(b"s=").any(|param| broken(param, "&t=1700000000")),
        SignatureError::BadParameter => params().any(|param| {
            let known = param.starts_with(b"t=") || param.starts_with(b"s=");
            !known && broken(param, &format!("{mac}&t=1700000000"))
        }),
        _ => false,
    }
}
