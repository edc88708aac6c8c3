//! Hex digits, without a lookup table. Some of what passes here is secret, and cache timing can
//! reveal which entry of a table was read.

/// Encodes a byte in lower case.
pub(crate) fn encode(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xf].map(|value| value + if value < 10 { b'0' } else { b'a' - 10 })
}

/// Decodes pairs of digits, in either case, into the same number of bytes.
///
/// Returns `false` if there is anything else among them. The bytes are then meaningless.
#[must_use]
pub(crate) fn decode(pairs: &[[u8; 2]], bytes: &mut [u8]) -> bool {
    let digits = pairs.as_flattened().iter();
    let valid = digits.fold(true, |valid, digit| valid & digit.is_ascii_hexdigit());
    // The low half of the byte is the digit for `0` to `9`. For `A` and `a`, whose byte has bit 6
    // set, it is 1.
    let value = |digit: u8| (digit & 0xf) + 9 * (digit >> 6);
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(high) << 4 | value(low);
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits_and_nothing_else_is_one() {
        let mut decoded = [0];
        for high in 0..=u8::MAX {
            for low in 0..=u8::MAX {
                let text = [char::from(high), char::from(low)];
                let valid = text.iter().all(char::is_ascii_hexdigit);
                assert_eq!(decode(&[[high, low]], &mut decoded), valid, "{text:?}");
                if valid {
                    let value = u8::from_str_radix(&String::from_iter(text), 16).unwrap();
                    assert_eq!(decoded, [value], "{text:?}");
                    assert_eq!(encode(value), [high, low].map(|it| it.to_ascii_lowercase()));
                }
            }
        }
        assert!(!decode(&[*b"00", *b"0g", *b"00"], &mut [0; 3]));
    }
}
