//! The RFC 8785 (JCS) form of a JSON text, strict.
//!
//! Libraries format numbers and strings. The structure around them is handled here, and written as
//! it is read, for two reasons. First, unauthenticated clients can trigger this work, and a tree of
//! values takes 50 to 100 bytes per byte of text. Second, the same text must be read the same way
//! whatever features of `serde_json` a program enables: `arbitrary_precision` and `raw_value` give
//! some object keys a second meaning in a `serde_json::Value`. With `arbitrary_precision`, numbers
//! look like objects with such a key; those are rejected.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The longest text, in bytes, whose canonical form is computed.
///
/// Unauthenticated clients reach this step, so its cost is bounded. The requests that need it (a
/// sync with `&` in its URL) are under 100 bytes.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// Returns the canonical form of `text`, or `None` if it has none.
///
/// A text has no canonical form if it is not JSON, longer than [`MAX_LEN`], nested deeper than 127
/// levels, or contains a number that no `f64` holds or a lone surrogate. If an object repeats a
/// key, the last value counts, as in ECMAScript's `JSON.parse`, which RFC 8785 builds on.
pub(crate) fn canonicalize(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_LEN {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut json = serde_json::Deserializer::from_slice(text);
    Canonical(&mut out).deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(out)
}

/// Reads one value and appends its canonical form.
struct Canonical<'a>(&'a mut Vec<u8>);

impl Canonical<'_> {
    fn scalar<E: Error>(self, value: impl Serialize) -> Result<(), E> {
        serde_json_canonicalizer::to_writer(&value, self.0).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Canonical<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "RFC 8785 §3.2.2.3: every number is a double"
    )]
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(value as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "RFC 8785 §3.2.2.3: every number is a double"
    )]
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let out = self.0;
        out.push(b'[');
        let first = out.len();
        while seq.next_element_seed(Canonical(out))?.is_some() {
            out.push(b',');
        }
        if out.len() > first {
            out.pop();
        }
        out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let out = self.0;
        out.push(b'{');
        let first = out.len();
        let mut members: Vec<Member> = Vec::new();
        while let Some(key) = map.next_key::<Box<str>>()? {
            // `arbitrary_precision` shows a number to a visitor under this key. It cannot be told
            // from an object in which the client wrote this key, so both are rejected, with and
            // without the feature.
            if &*key == "$serde_json::private::Number" {
                return Err(A::Error::custom("reserved key"));
            }
            if !members.is_empty() {
                out.push(b',');
            }
            let begin = out.len();
            Canonical(out).scalar(&*key)?;
            out.push(b':');
            map.next_value_seed(Canonical(out))?;
            let at = begin - first..out.len() - first;
            members.push(Member { key, at });
        }
        if !members.is_sorted_by(|a, b| a.order().lt(b.order())) {
            let as_sent = out.split_off(first);
            rearrange(&as_sent, members, out);
        }
        out.push(b'}');
        Ok(())
    }
}

/// A member of an object, and where its text begins and ends.
struct Member {
    key: Box<str>,
    at: Range<usize>,
}

impl Member {
    /// Returns the key's UTF-16 code units, by which RFC 8785 §3.2.3 sorts.
    fn order(&self) -> impl Iterator<Item = u16> {
        self.key.encode_utf16()
    }
}

/// Sorts the members. Of members with equal keys, keeps only the last.
fn rearrange(as_sent: &[u8], mut members: Vec<Member>, out: &mut Vec<u8>) {
    // The sort is stable: of members with equal keys, the last one sent stays last.
    members.sort_by(|a, b| a.order().cmp(b.order()));
    for (index, member) in members.iter().enumerate() {
        if members
            .get(index + 1)
            .is_some_and(|next| next.key == member.key)
        {
            continue;
        }
        out.extend_from_slice(&as_sent[member.at.clone()]);
        out.push(b',');
    }
    out.pop();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        canonicalize(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_form_equals_the_results_of_other_implementations() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/known_answers.json")).unwrap();
        let mut seen = 0;
        for case in vectors["jcs"].as_array().unwrap() {
            let input = case["input"].as_str().unwrap();
            assert_eq!(
                canonical(input).as_deref(),
                case["canonical"].as_str(),
                "{input}"
            );
            seen += 1;
        }
        for case in vectors["request_signature"].as_array().unwrap() {
            if let Some(expected) = case["canonical"].as_str() {
                assert_eq!(
                    canonical(case["body"].as_str().unwrap()).as_deref(),
                    Some(expected)
                );
                seen += 1;
            }
        }
        for case in vectors["jcs_invalid"].as_array().unwrap() {
            assert_eq!(canonical(case["input"].as_str().unwrap()), None);
            seen += 1;
        }
        assert!(seen > 25, "only {seen} vectors");
    }

    #[test]
    fn numbers_are_doubles_as_ecmascript_prints_them() {
        for (input, expected) in [
            ("9007199254740993", "9007199254740992"),
            ("-0.0", "0"),
            ("-0", "0"),
            ("1e21", "1e+21"),
            ("1E-7", "1e-7"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("0.1e1", "1"),
            // Needs correctly rounded parsing (`float_roundtrip`).
            ("122.416294033786585", "122.41629403378658"),
        ] {
            assert_eq!(canonical(input).as_deref(), Some(expected), "{input}");
        }
    }

    #[test]
    fn white_space_is_removed_and_empty_values_stay() {
        for (input, expected) in [
            (" [ ] ", "[]"),
            (" { } ", "{}"),
            (
                r#"[ [ ] , { "a" : [ 1 , null ] } ]"#,
                r#"[[],{"a":[1,null]}]"#,
            ),
        ] {
            assert_eq!(canonical(input).as_deref(), Some(expected), "{input}");
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        assert_eq!(
            canonical(r#"{"a":1,"b":0,"a":2,"\u0061":3}"#).as_deref(),
            Some(r#"{"a":3,"b":0}"#)
        );
    }

    #[test]
    fn a_text_without_a_canonical_form_gets_none() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(canonical(&deep(127)).is_some());
        let long = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
        assert!(canonical(&long(MAX_LEN)).is_some());
        for text in [
            "",
            " ",
            "{",
            "not json",
            "1 2",
            r#""\ud800""#,
            r#"{"\udc00":1}"#,
            "1e400",
            "-1e400",
            "NaN",
            "01",
            "[1,]",
            "\u{feff}{}",
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"\u0024serde_json::private::Number":"1"}"#,
            &deep(128),
            &long(MAX_LEN + 1),
        ] {
            assert_eq!(canonical(text), None, "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(canonicalize(b"\"\xff\""), None, "not UTF-8");
    }

    #[test]
    fn a_key_that_raw_value_gives_a_meaning_stays_a_key() {
        let text = r#"{"$serde_json::private::RawValue":"[1]"}"#;
        assert_eq!(canonical(text).as_deref(), Some(text));
    }

    /// The bits and texts are those of the table in RFC 8785, appendix B.
    #[test]
    fn numbers_match_the_table_of_rfc_8785() {
        for (bits, expected) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0x41b3_de43_5555_5556, "333333333.3333334"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            let number = f64::from_bits(bits);
            // In full, and in the shortest notation.
            for input in [format!("{number:.1074}"), format!("{number:e}")] {
                assert_eq!(
                    canonical(&input).as_deref(),
                    Some(expected),
                    "{bits:016x}: {input}"
                );
            }
        }
        // 7fffffffffffffff and 7ff0000000000000 have no text in the table.
        for input in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(canonical(input), None);
        }
    }

    #[test]
    fn the_samples_of_rfc_8785_give_its_results() {
        // From §3.2.2; the outcome is in §3.2.4.
        let sample = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(canonical(sample).as_deref(), Some(expected));
        // From §3.2.3: sorted by UTF-16 code units, so the emoji (two surrogates) comes before
        // U+FB33.
        let sample = r#"{
            "\u20ac": "Euro Sign",
            "\r": "Carriage Return",
            "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\ud83d\ude00": "Emoji: Grinning Face",
            "\u0080": "Control",
            "\u00f6": "Latin Small Letter O With Diaeresis"
        }"#;
        let expected = concat!(
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",",
            "\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",",
            "\"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
        assert_eq!(canonical(sample).as_deref(), Some(expected));
    }
}
