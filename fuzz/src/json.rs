//! The canonical form (RFC 8785), computed by way of a tree.

use std::collections::BTreeMap;
use std::fmt::Write;

use arbitrary::Arbitrary;

/// The longest text that has a canonical form.
pub const LONGEST: usize = 64 * 1024;
/// The deepest nesting that has one.
const DEEPEST: usize = 127;

/// How long a text is made by spaces in front of it.
#[derive(Arbitrary)]
pub enum Length {
    AsItIs,
    /// By this much longer than the longest that has a canonical form.
    Beyond(i8),
}

impl Length {
    #[must_use]
    pub fn of(&self, text: &[u8]) -> Vec<u8> {
        let spaces = match self {
            Self::AsItIs => 0,
            Self::Beyond(more) => LONGEST
                .saturating_add_signed(isize::from(*more))
                .saturating_sub(text.len()),
        };
        [&*b" ".repeat(spaces), text].concat()
    }
}

enum Json {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Json>),
    /// Sorted by UTF-16 code units (RFC 8785 §3.2.3).
    Object(BTreeMap<Vec<u16>, (String, Json)>),
}

/// Returns the canonical form, or `None` if the text has none.
#[must_use]
pub fn canonical(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > LONGEST {
        return None;
    }
    let mut reader = Reader(str::from_utf8(text).ok()?);
    let value = reader.value(0)?;
    reader.space();
    let mut out = String::new();
    value.write(&mut out);
    reader.0.is_empty().then_some(out.into_bytes())
}

/// Reads RFC 8259 JSON one character at a time.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn char(&mut self) -> Option<char> {
        let next = self.0.chars().next()?;
        self.0 = &self.0[next.len_utf8()..];
        Some(next)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        if self.take("null") {
            Some(Json::Null)
        } else if self.take("true") {
            Some(Json::Bool(true))
        } else if self.take("false") {
            Some(Json::Bool(false))
        } else if self.take("\"") {
            self.string().map(Json::String)
        } else if self.take("[") {
            self.array(depth + 1)
        } else if self.take("{") {
            self.object(depth + 1)
        } else {
            self.number()
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.space();
        if depth > DEEPEST {
            return None;
        }
        if self.take("]") {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.space();
            match self.char()? {
                ',' => {}
                ']' => return Some(Json::Array(items)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut members = BTreeMap::new();
        self.space();
        if depth > DEEPEST {
            return None;
        }
        if self.take("}") {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = if self.take("\"") {
                self.string()?
            } else {
                return None;
            };
            // Rejected by choice: with a feature of `serde_json` it could not be told from a
            // number.
            if key == "$serde_json::private::Number" {
                return None;
            }
            self.space();
            let value = if self.take(":") {
                self.value(depth)?
            } else {
                return None;
            };
            // The last of several equal keys is kept.
            members.insert(key.encode_utf16().collect(), (key, value));
            self.space();
            match self.char()? {
                ',' => {}
                '}' => return Some(Json::Object(members)),
                _ => return None,
            }
        }
    }

    /// Reads a string after its opening quote.
    fn string(&mut self) -> Option<String> {
        let mut units = Vec::new();
        loop {
            match self.char()? {
                '"' => return String::from_utf16(&units).ok(),
                '\\' => units.push(match self.char()? {
                    'u' => self.unit()?,
                    'b' => 8,
                    't' => 9,
                    'n' => 10,
                    'f' => 12,
                    'r' => 13,
                    same @ ('"' | '\\' | '/') => same as u16,
                    _ => return None,
                }),
                '\0'..='\x1f' => return None,
                other => units.extend_from_slice(other.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit * 16 + u16::try_from(self.char()?.to_digit(16)?).ok()?;
        }
        Some(unit)
    }

    fn number(&mut self) -> Option<Json> {
        let begin = self.0;
        self.take("-");
        if !self.take("0") && self.digits() == 0 {
            return None;
        }
        if self.take(".") && self.digits() == 0 {
            return None;
        }
        if self.take("e") || self.take("E") {
            let _sign = self.take("+") || self.take("-");
            if self.digits() == 0 {
                return None;
            }
        }
        let text = &begin[..begin.len() - self.0.len()];
        let number: f64 = text.parse().ok()?;
        number.is_finite().then_some(Json::Number(number))
    }

    fn digits(&mut self) -> usize {
        let rest = self.0.trim_start_matches(|it: char| it.is_ascii_digit());
        let count = self.0.len() - rest.len();
        self.0 = rest;
        count
    }
}

impl Json {
    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => out.push_str(&number(*value)),
            Self::String(value) => string(value, out),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.values().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Writes a string (RFC 8785 §3.2.2.2).
fn string(text: &str, out: &mut String) {
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\x1f' => write!(out, "\\u{:04x}", u32::from(it)).unwrap(),
            _ => out.push(it),
        }
    }
    out.push('"');
}

/// Returns the text of ECMAScript's `Number::toString` (ECMA-262 §6.1.6.1.20).
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let shortest = format!("{:e}", value.abs());
    // If two texts with that many digits are equally near, RFC 8785 requires the even one. Rust's
    // shortest text may be either.
    let count = shortest
        .bytes()
        .take_while(|&it| it != b'e')
        .filter(u8::is_ascii_digit)
        .count();
    let even = format!("{:.*e}", count - 1, value.abs());
    let text = if even.parse() == Ok(value.abs()) {
        even
    } else {
        shortest
    };
    let (digits, exponent) = text.split_once('e').unwrap();
    let digits = digits.replace('.', "");
    let length = i32::try_from(digits.len()).unwrap();
    // The position of the decimal point, as the number of digits before it.
    let point = exponent.parse::<i32>().unwrap() + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap());
    let printed = if (length..=21).contains(&point) {
        digits + &zeros(point - length)
    } else if (1..=21).contains(&point) {
        let (whole, part) = digits.split_at(usize::try_from(point).unwrap());
        format!("{whole}.{part}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{:+}", point - 1)
    };
    if value < 0.0 {
        format!("-{printed}")
    } else {
        printed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Option<String> {
        canonical(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn equals_what_sdks_computed() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/known_answers.json")).unwrap();
        let mut seen = 0;
        for case in vectors["jcs"].as_array().unwrap() {
            let expected = case["canonical"].as_str();
            assert!(expected.is_some(), "{case}");
            assert_eq!(
                form(case["input"].as_str().unwrap()).as_deref(),
                expected,
                "{case}"
            );
            seen += 1;
        }
        for case in vectors["request_signature"].as_array().unwrap() {
            if let Some(expected) = case["canonical"].as_str() {
                assert_eq!(
                    form(case["body"].as_str().unwrap()).as_deref(),
                    Some(expected),
                    "{case}"
                );
                seen += 1;
            }
        }
        for case in vectors["jcs_invalid"].as_array().unwrap() {
            assert_eq!(form(case["input"].as_str().unwrap()), None, "{case}");
            seen += 1;
        }
        assert!(seen > 25, "only {seen} vectors");
    }

    /// RFC 8785, appendix B.
    #[test]
    fn prints_numbers_as_the_rfc_has_them() {
        for (bits, expected) in [
            (0, "0"),
            (0x8000_0000_0000_0000, "0"),
            (1, "5e-324"),
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
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(number(f64::from_bits(bits)), expected);
        }
    }
}
