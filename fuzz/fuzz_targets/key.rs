//! A signing key: what of it signs, what of it is shown, and that no more is shown.
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
        (parsed, expected) => panic!("{parsed:?} for {expected:?}"),
    };

    for body in [&b""[..], b"{}"] {
        let mac = header::sign(expected.secret, body, NOW);
        assert_eq!(parsed.sign(body, NOW).to_string(), header::write(NOW, &mac));
    }

    let hash = expected.hash();
    let bearer = hash.as_deref().map(|hash| format!("{}{hash}", expected.prefix));
    assert_eq!(parsed.bearer().ok().as_deref(), bearer.as_ref());
    let fingerprint = hash.map(|hash| hash[..12].to_owned());
    assert_eq!(parsed.fingerprint().map(|it| it.to_string()), fingerprint);

    let dots = if expected.prefix.is_empty() { "" } else { "…, " };
    let shown = match fingerprint {
        Some(fingerprint) => format!("SigningKey({}{dots}fingerprint {fingerprint})", expected.prefix),
        None => format!("SigningKey({}{dots}no fingerprint)", expected.prefix),
    };
    assert_eq!(format!("{parsed:?}"), shown);
    if expected.secret.len() > 12 {
        // A secret may spell what is shown of any key.
        let other = if parsed.bearer().is_ok() { "00" } else { "-" };
        let other = format!("{}{other}", expected.prefix).parse().unwrap();
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
