//! A signing key: which part signs, which part is shown, and that nothing else is shown.
#![no_main]

use inngest_auth::{KeyError, KeyRing, Keys, SigningKey};
use inngest_auth_fuzz::key::Around;
use inngest_auth_fuzz::{NOW, header, key, planned};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((around, text)) = planned::<Around>(input) else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let padded = around.of(&text);

    let parsed = padded.parse::<SigningKey>();
    assert_eq!(parsed, text.parse(), "white space");
    let (parsed, expected) = match (parsed, key::read(&padded)) {
        (Ok(parsed), Some(expected)) => (parsed, expected),
        (Err(KeyError::Blank), None) if text.trim().is_empty() => return,
        (Err(KeyError::OnlyPrefix), None) if text.trim().ends_with('-') => return,
        (Err(KeyError::NotHex | KeyError::OddLength), None) => return,
        (parsed, expected) => panic!("{parsed:?} for {expected:?}"),
    };

    for body in [&b""[..], b"{}"] {
        let mac = header::sign(expected.secret, body, NOW);
        assert_eq!(parsed.sign(body, NOW).to_string(), header::write(NOW, &mac));
    }

    let hash = expected.hash;
    assert_eq!(
        parsed.bearer().as_str(),
        format!("{}{hash}", expected.prefix)
    );
    assert_eq!(parsed.fingerprint().to_string(), hash[..12]);

    let dots = if expected.prefix.is_empty() {
        ""
    } else {
        "…, "
    };
    let shown = format!(
        "SigningKey({}{dots}fingerprint {})",
        expected.prefix,
        &hash[..12]
    );
    assert_eq!(format!("{parsed:?}"), shown);
    if expected.secret.len() > 12 {
        // A secret may happen to contain what is shown of any key.
        let other = format!("{}00", expected.prefix).parse().unwrap();
        for (debug, harmless) in debugs(&parsed).iter().zip(debugs(&other)) {
            let told = debug.contains(expected.secret) && !harmless.contains(expected.secret);
            assert!(!told, "{debug}");
        }
    }
});

fn debugs(key: &SigningKey) -> [String; 3] {
    let keys = Keys::new(key.clone(), Some("signkey-test-0000".parse().unwrap()));
    [
        format!("{key:?}"),
        format!("{keys:?}"),
        format!("{:?}", KeyRing::from(keys)),
    ]
}
