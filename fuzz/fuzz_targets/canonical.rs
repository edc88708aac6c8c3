//! The canonical form, seen from outside: `verify` returns it if only that form was signed.
#![no_main]

use std::sync::LazyLock;

use inngest_auth::testing::TestInngest;
use inngest_auth::{Form, Keys, SIGNATURE_HEADER, Signature, Tolerance, VerifyError, verify};
use inngest_auth_fuzz::{CURRENT, NOW, header, json, planned};
use libfuzzer_sys::fuzz_target;

static INNGEST: LazyLock<TestInngest> =
    LazyLock::new(|| TestInngest::new(CURRENT.0.parse().unwrap()));
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new(CURRENT.0.parse().unwrap(), None));

fuzz_target!(|input: &[u8]| {
    let Some((length, text)) = planned::<json::Length>(input) else {
        return;
    };
    // The helper below adds a space in front, so that the form never equals the text.
    let sent = length.of(&[b" ", text].concat());

    let expected = json::canonical(&sent);
    let mac = header::sign(CURRENT.1, expected.as_deref().unwrap_or_default(), NOW);
    let signature = header::write(NOW, &mac);
    // The crate's own form, as it signs it for tests: empty if the body has none.
    let request = INNGEST.call_in_canonical_form("/", sent[1..].to_vec());
    assert_eq!(request.headers()[SIGNATURE_HEADER], signature);

    let signature: Signature = signature.parse().unwrap();
    let judge = |body: &[u8]| {
        let authentic = verify(body, &signature, &KEYS, NOW, Tolerance::default())?;
        Ok((
            authentic.verified().form(),
            authentic.into_bytes().into_owned(),
        ))
    };
    let Some(form) = expected else {
        assert_eq!(judge(&sent), Err(VerifyError::Mismatch));
        return;
    };
    assert_eq!(judge(&form), Ok((Form::Raw, form.clone())));
    let mut bodies = vec![sent];
    if form.len() < json::LONGEST {
        // The canonical form of a canonical form is itself.
        bodies.push([b" ", &*form].concat());
    }
    for body in bodies {
        assert_eq!(judge(&body), Ok((Form::Canonical, form.clone())));
    }
});
