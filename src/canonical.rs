//! The RFC 8785 (JCS) form of a JSON text, strict.
//!
//! The text is read into a tree of our own, not into `serde_json::Value`: what that type reads depends on
//! features that any crate of a program can switch on (`arbitrary_precision` and `raw_value` give some
//! object keys a second meaning). Ours reads the same text the same way under all of them, except that
//! `arbitrary_precision` disguises numbers as objects with such a key; those are refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Longest text, in bytes, whose canonical form is worked out. Strangers reach this step, so its cost is
/// bounded; what needs it (a sync with `&` in its URL) is under 100 bytes.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// The canonical form of `text`, or `None` where it has none: not JSON, longer than [`MAX_LEN`], nested
/// deeper than 127, a number that no `f64` holds, a lone surrogate.
///
/// Of an object's equal keys the last one counts, as in ECMAScript's `JSON.parse`, which RFC 8785 builds on.
pub(crate) fn canonicalize(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_LEN {
        return None;
    }
    let json: Json = serde_json::from_slice(text).ok()?;
    serde_json_canonicalizer::to_vec(&json).ok()
}

enum Json {
    Null,
    Bool(bool),
    Number(f64),
    String(Box<str>),
    Array(Box<[Json]>),
    Object(Box<[(Box<str>, Json)]>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "RFC 8785 §3.2.2.3: every number is a double")]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "RFC 8785 §3.2.2.3: every number is a double")]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members: Vec<(Box<str>, Json)> = Vec::new();
        while let Some(key) = map.next_key::<Box<str>>()? {
            // How `arbitrary_precision` shows a number to a visitor. Telling it from an object that a
            // sender spelled so is not possible; both are refused, with and without the feature.
            if &*key == "$serde_json::private::Number" {
                return Err(A::Error::custom("reserved key"));
            }
            members.push((key, map.next_value()?));
        }
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        // `sort_by` is stable, so of equal keys the last one sent is the last one here.
        members.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Ok(Json::Object(members.into()))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        canonicalize(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn equals_what_other_implementations_computed() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/vectors/known_answers.json")).unwrap();
        let mut seen = 0;
        for case in vectors["jcs"].as_array().unwrap() {
            let input = case["input"].as_str().unwrap();
            assert_eq!(canonical(input).as_deref(), case["canonical"].as_str(), "{input}");
            seen += 1;
        }
        for case in vectors["request_signature"].as_array().unwrap() {
            if let Some(expected) = case["canonical"].as_str() {
                assert_eq!(canonical(case["body"].as_str().unwrap()).as_deref(), Some(expected));
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
    fn the_last_of_equal_keys_counts() {
        assert_eq!(
            canonical(r#"{"a":1,"b":0,"a":2,"\u0061":3}"#).as_deref(),
            Some(r#"{"a":3,"b":0}"#)
        );
    }

    #[test]
    fn what_has_no_canonical_form_gets_none() {
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
}
