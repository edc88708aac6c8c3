//! The header's grammar, rule by rule; the lower floor, without HTTP.

use inngest_auth::{Signature, SignatureError};

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
        (String::new(), Error::BadParameter),
        (format!("{both}&"), Error::BadParameter),
        (format!("{both}&&"), Error::BadParameter),
        (format!("{both}&x"), Error::BadParameter),
        (format!("{both}&=x"), Error::BadParameter),
        (format!("{both}& x=1"), Error::BadParameter),
        (format!("{TIME}, {MAC}"), Error::BadTime),
        (format!("t&{both}"), Error::BadParameter),
        (format!("{both}&é=1"), Error::BadParameter),
    ] {
        assert_eq!(header.parse::<Signature>().unwrap_err(), error, "{header}");
    }
}

#[test]
fn every_byte_that_is_no_hex_digit_is_refused_in_the_mac() {
    for byte in 0..=255u8 {
        let mut header = format!("{TIME}&{MAC}").into_bytes();
        *header.last_mut().unwrap() = byte;
        let digit = byte.is_ascii_hexdigit();
        assert_eq!(Signature::parse(&header).is_ok(), digit, "{byte:#x}");
    }
}
