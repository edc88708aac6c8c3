//! The header's grammar and the check of bytes against it, rule by rule, on the lower floor without
//! HTTP.

use std::time::Duration;

use inngest_auth::testing::TestClock;
use inngest_auth::{
    Form, KeyRing, KeyRole, Keys, RejectionKind, Signature, SignatureError, SigningKey, Tolerance,
    Verifier, VerifyError, verify,
};

const TIME: &str = "t=1700000000";
const MAC: &str = "s=67a82077baa52522b1f612a154a25275c00a0338efc32be5ee396bd2391ba5e0";

#[test]
fn each_rule_has_its_error() {
    use SignatureError as Error;
    let both = format!("{TIME}&{MAC}");
    let upper = format!("{TIME}&s={}", MAC[2..].to_uppercase());
    for header in [
        &both,
        &format!("{MAC}&{TIME}"),
        &upper,
        &format!("v=2&{both}&x=&T=1&tt=2&y=a=b"),
    ] {
        let parsed = Signature::parse(header.as_bytes()).unwrap();
        assert_eq!(parsed.to_string(), both, "{header}");
    }
    let mac_with = |tail: &str| format!("{TIME}&{}{tail}", &MAC[..MAC.len() - 1]);
    for (header, error) in [
        (MAC.to_owned(), Error::NoTime),
        (TIME.to_owned(), Error::NoMac),
        (format!("{both}&{TIME}"), Error::Repeated),
        (format!("{both}&{MAC}"), Error::Repeated),
        (format!("t=0700000000&{MAC}"), Error::BadTime),
        (format!("t=170000000&{MAC}"), Error::BadTime),
        (format!("t=17000000000&{MAC}"), Error::BadTime),
        (format!("t=+170000000&{MAC}"), Error::BadTime),
        (format!("t=170000000a&{MAC}"), Error::BadTime),
        (format!("t=&{MAC}"), Error::BadTime),
        (mac_with(""), Error::BadMac),
        (mac_with("00"), Error::BadMac),
        (mac_with("g"), Error::BadMac),
        (format!("{TIME}&s=0x{}", &MAC[4..]), Error::BadMac),
        (format!("{TIME}&s=gg{}", &MAC[4..]), Error::BadMac),
        (String::new(), Error::BadParameter),
        (format!("{both}&"), Error::BadParameter),
        (format!("{both}&&"), Error::BadParameter),
        (format!("{both}&x"), Error::BadParameter),
        (format!("{both}&=x"), Error::BadParameter),
        (format!("{both}& x=1"), Error::BadParameter),
        (format!("{TIME}, {MAC}"), Error::BadTime),
        (format!("t&{both}"), Error::BadParameter),
        (format!("{both}&é=1"), Error::BadParameter),
        // Several headers, joined by a proxy.
        (format!("{both},{both}"), Error::Joined),
        (format!("{both}, {MAC}&{TIME} ,{both}"), Error::Joined),
        (format!(", {both}"), Error::Joined),
        (format!("{both},"), Error::Joined),
        (format!("{both},{TIME}"), Error::BadMac),
        (",".to_owned(), Error::BadParameter),
        // One value with a space at its end is not several.
        (format!("{both} "), Error::BadMac),
        (format!(" {both}"), Error::BadParameter),
        (format!("{both}&x=1,{both}"), Error::Joined),
    ] {
        assert_eq!(header.parse::<Signature>().unwrap_err(), error, "{header}");
    }
}

#[test]
fn every_byte_but_hex_digits_is_rejected_in_the_mac() {
    let header = format!("{TIME}&{MAC}").into_bytes();
    let mac = header.len() - 64;
    for at in mac..header.len() {
        for byte in 0..=255u8 {
            let mut header = header.clone();
            header[at] = byte;
            let digit = byte.is_ascii_hexdigit();
            assert_eq!(
                Signature::parse(&header).is_ok(),
                digit,
                "{byte:#x} at {at}"
            );
            // Two wrong digits do not make a valid one.
            header[mac + ((at - mac) ^ 1)] = byte;
            assert_eq!(
                Signature::parse(&header).is_ok(),
                digit,
                "{byte:#x} at {at}, twice"
            );
        }
    }
}

#[test]
fn signatures_are_equal_in_time_and_mac_and_show_only_their_time() {
    let signature = |header: String| header.parse::<Signature>().unwrap();
    let one = signature(format!("{TIME}&{MAC}"));
    assert_eq!(one, signature(format!("{MAC}&{TIME}")));
    assert_ne!(one, signature(format!("t=1700000001&{MAC}")));
    assert_ne!(one, signature(format!("{TIME}&s={}", "0".repeat(64))));
    assert_eq!(
        format!("{one:?}"),
        "Signature { signed_at: 1700000000, .. }"
    );
}

#[test]
fn the_window_is_closed_on_both_sides() {
    let key: SigningKey = "12345678".parse().unwrap();
    let keys = Keys::from(key.clone());
    let now = 1_700_000_000;
    let stale = |age| Err(VerifyError::Stale { age });
    let future = |ahead| Err(VerifyError::Future { ahead });
    for (tolerance, at, verdict) in [
        (300, now - 300, Ok(())),
        (300, now, Ok(())),
        (300, now + 300, Ok(())),
        (300, now - 301, stale(301)),
        (300, now + 301, future(301)),
        (300, 1_000_000_000, stale(700_000_000)),
        (1, now - 1, Ok(())),
        (1, now - 2, stale(2)),
        (1, now + 2, future(2)),
    ] {
        let signature = key.sign(b"{}", at);
        let judged = verify(
            b"{}",
            &signature,
            &keys,
            now,
            Tolerance::from_secs(tolerance),
        );
        assert_eq!(judged.map(|_| ()), verdict, "{tolerance} {at}");
    }
}

#[test]
fn a_tolerance_is_between_a_second_and_an_hour() {
    for (asked, given) in [
        (0, 1),
        (1, 1),
        (2, 2),
        (3599, 3599),
        (3600, 3600),
        (3601, 3600),
        (u64::MAX, 3600),
    ] {
        assert_eq!(Tolerance::from_secs(asked).as_secs(), given, "{asked}");
        let exactly = Tolerance::try_from_secs(asked).map(Tolerance::as_secs);
        assert_eq!(exactly.ok(), Some(given).filter(|_| given == asked));
        assert_eq!(
            Tolerance::from(Duration::from_secs(asked)).as_secs(),
            given,
            "{asked}"
        );
    }
    assert_eq!(Tolerance::from(Duration::from_millis(2999)).as_secs(), 2);
    assert_eq!(Tolerance::default().as_secs(), 300);
}

#[test]
fn every_key_and_form_is_tried_and_the_signed_bytes_are_returned() {
    let key = |text: &str| text.parse::<SigningKey>().unwrap();
    let keys = Keys::new(key("aa"), Some(key("bb")));
    let (now, sent, canonical) = (1_700_000_000, &b"{ }"[..], &b"{}"[..]);
    for (signer, signed, expected) in [
        ("aa", sent, Some((KeyRole::Current, Form::Raw))),
        ("bb", sent, Some((KeyRole::Fallback, Form::Raw))),
        ("aa", canonical, Some((KeyRole::Current, Form::Canonical))),
        ("bb", canonical, Some((KeyRole::Fallback, Form::Canonical))),
        ("cc", sent, None),
        ("cc", canonical, None),
        ("aa", b"{", None),
    ] {
        let signature = key(signer).sign(signed, now - 7);
        let Ok(authentic) = verify(sent, &signature, &keys, now, Tolerance::default()) else {
            assert_eq!(expected, None, "{signer}");
            continue;
        };
        let verified = authentic.verified();
        assert_eq!(
            Some((verified.key(), verified.form())),
            expected,
            "{signer}"
        );
        assert_eq!(verified.signed_at(), now - 7);
        assert_eq!(&*authentic.into_bytes(), signed, "{signer}");
    }
}

#[test]
fn a_canonical_form_is_computed_for_at_most_64_kib() {
    let key: SigningKey = "12345678".parse().unwrap();
    let now = 1_700_000_000;
    for (len, accepted) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let body = format!(" \"{}\"", "x".repeat(len - 3));
        assert_eq!(body.len(), len);
        let signature = key.sign(body.trim().as_bytes(), now);
        let judged = verify(
            body.as_bytes(),
            &signature,
            &key.clone().into(),
            now,
            Tolerance::default(),
        );
        assert_eq!(judged.is_ok(), accepted, "{len}");
    }
}

#[test]
fn a_body_in_pieces_is_verified_as_a_whole_and_bounded() {
    let key: SigningKey = "12345678".parse().unwrap();
    let now = 1_700_000_000;
    let verifier = Verifier::new(key.clone())
        .clock(TestClock::at(now))
        .body_limit(4);
    for (announced, pieces, outcome) in [
        (4, &["ab", "", "cd"][..], Ok(())),
        (0, &["abcd"], Ok(())),
        (5, &["abcd"], Err(RejectionKind::BodyTooLarge)),
        (4, &["ab", "cde"], Err(RejectionKind::BodyTooLarge)),
        (4, &["ab", "ce"], Err(RejectionKind::WrongSignature)),
        (4, &["abc"], Err(RejectionKind::WrongSignature)),
    ] {
        let header = key.sign(b"abcd", now).to_string();
        let mut body = verifier.start([header.as_bytes()]).unwrap();
        assert!(format!("{body:?}").contains("Signature { signed_at: 1700000000, .. }"));
        let accepted = body
            .expect(announced)
            .and_then(|()| pieces.iter().try_for_each(|it| body.push(it.as_bytes())))
            .and_then(|()| body.finish());
        let accepted = accepted.map(|(authentic, _)| {
            assert_eq!(&*authentic.into_bytes(), b"abcd");
        });
        let rejected = accepted.map_err(|rejection| rejection.kind());
        assert_eq!(rejected, outcome, "{announced} {pieces:?}");
    }
}

#[test]
fn a_response_is_signed_with_the_time_of_its_request_while_the_window_is_open() {
    let key: SigningKey = "12345678".parse().unwrap();
    let now = 1_700_000_000;
    let clock = TestClock::at(now);
    let verifier = Verifier::new(key.clone()).clock(clock.clone());
    let header = key.sign(b"{}", now).to_string();
    let (_, signer) = verifier.verify([header.as_bytes()], b"{}").unwrap();
    for (at, body, signed) in [
        (now, "{}", true),
        (now + 300, "{}", true),
        (now + 301, "{}", false),
        (now, "", false),
    ] {
        clock.set(Some(at));
        let signature = verifier.sign_response(&signer, body.as_bytes());
        let expected = signed.then(|| key.sign(body.as_bytes(), now));
        assert_eq!(signature, expected, "{at} {body:?}");
    }
}

#[test]
fn the_ring_counts_which_key_verified() {
    let key = |text: &str| text.parse::<SigningKey>().unwrap();
    let ring = KeyRing::from(Keys::new(key("aa"), Some(key("bb"))));
    let verifier = Verifier::new(ring.clone()).clock(TestClock::at(1_700_000_000));
    for (signer, current, fallback) in [("aa", 1, 0), ("bb", 1, 1), ("cc", 1, 1), ("aa", 2, 1)] {
        let header = key(signer).sign(b"{}", 1_700_000_000).to_string();
        let _ = verifier.verify([header.as_bytes()], b"{}");
        let usage = ring.usage();
        assert_eq!((usage.current, usage.fallback), (current, fallback));
        let last_used = (fallback > 0).then_some(1_700_000_000);
        assert_eq!(usage.fallback_last_used, last_used);
    }
}

#[test]
fn keys_and_forms_have_names_for_labels() {
    for (role, name) in [
        (KeyRole::Current, "current"),
        (KeyRole::Fallback, "fallback"),
    ] {
        assert_eq!((role.as_str(), &*role.to_string()), (name, name));
    }
    for (form, name) in [(Form::Raw, "raw"), (Form::Canonical, "canonical")] {
        assert_eq!((form.as_str(), &*form.to_string()), (name, name));
    }
}
