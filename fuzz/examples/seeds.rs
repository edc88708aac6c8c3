//! Writes the seeds: what real servers and other implementations sent (`tests/vectors`), and JSON
//! that a fuzzer would take long to find.

use std::collections::BTreeSet;
use std::io::Result;
use std::path::{Path, PathBuf};

use inngest_auth_fuzz::request::{Over, Plan};
use inngest_auth_fuzz::{CURRENT, NOW, as_planned, framing, header, json, key, planned};
use serde_json::Value;

fn main() -> Result<()> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let answers: Value =
        serde_json::from_slice(&std::fs::read(vectors.join("known_answers.json"))?)?;
    let mut corpus = Corpus::default();

    for kind in ["header_case", "request_signature", "response_signature"] {
        for case in cases(&answers, kind) {
            corpus.header(text(case, "header"));
            corpus.header(text(case, "template"));
        }
    }
    for kind in [
        "bearer_hash",
        "bearer_hash_error",
        "normalize_key",
        "fingerprint",
    ] {
        for case in cases(&answers, kind) {
            corpus.add(
                "key",
                as_planned::<key::Around>(text(case, "key").as_bytes()),
            );
        }
    }
    for kind in [
        "request_signature",
        "request_signature_reject",
        "jcs",
        "jcs_invalid",
    ] {
        for case in cases(&answers, kind) {
            corpus.body(text(case, "body").as_bytes());
            corpus.body(text(case, "input").as_bytes());
        }
    }
    for line in std::fs::read_to_string(vectors.join("server_requests.jsonl"))?.lines() {
        let request: Value = serde_json::from_str(line)?;
        corpus.body(text(&request, "body").as_bytes());
        for header in cases(&request, "headers") {
            if header[0] == "X-Inngest-Signature" {
                corpus.header(header[1].as_str().unwrap_or_default());
            }
        }
    }
    for shape in [
        r#"{"b":[1.5e300,-0.0,1e21,1E-7,0.1e1,9007199254740993],"a":{"":null,"\u0000":true,"\u20ac":false}}"#,
        r#"{"\ud83d\ude00":"\"\\\/\b\f\n\r\t\u001f\u2028","a":1,"\u0061":2,"﷐":"\ud800"}"#,
        r#"{"\ufb33":0,"😀":1,"$serde_json::private::Number":"1","$serde_json::private::RawValue":"[1]"}"#,
        "[123456789012345678901234567890,1e-400,1e400,18446744073709551615,-9223372036854775808,5e-324]",
        &("[".repeat(127) + &"]".repeat(127)),
        &(r#"{"a":"#.repeat(128) + "1" + &"}".repeat(128)),
    ] {
        corpus.body(shape.as_bytes());
    }
    corpus.edges();
    corpus.write()
}

/// Returns how `arbitrary` encodes a choice: a `u32` within the choice's share of the range.
fn variant(choice: u32, of: u32) -> [u8; 4] {
    (u32::MAX / of * choice + choice).to_le_bytes()
}

fn cases<'a>(of: &'a Value, kind: &str) -> &'a [Value] {
    of[kind].as_array().unwrap_or_else(|| panic!("{kind}"))
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_default()
}

#[derive(Default)]
struct Corpus(BTreeSet<(&'static str, Vec<u8>)>);

impl Corpus {
    fn add(&mut self, target: &'static str, seed: Vec<u8>) {
        self.0.insert((target, seed));
    }

    fn header(&mut self, template: &str) {
        let usual = header::write(NOW, &header::sign(CURRENT.1, b"{}", NOW));
        let mac = &usual[usual.len() - 64..];
        let header = template
            .replace("{now}", &NOW.to_string())
            .replace("{mac}", mac)
            .replace("{MAC upper}", &mac.to_uppercase());
        self.add("header", header.into());
    }

    fn body(&mut self, body: &[u8]) {
        let raw = as_planned::<Plan>(body);
        let mut canonical = raw.clone();
        canonical[8..12].copy_from_slice(&variant(1, 5));
        let chosen = planned::<Plan>(&canonical).map(|(plan, _)| plan.over);
        assert!(matches!(chosen, Some(Over::CanonicalForm)), "{chosen:?}");
        self.add("verify", raw);
        self.add("verify", canonical);
        self.add("body", as_planned::<framing::Plan>(body));
        self.add("canonical", as_planned::<json::Length>(body));
    }

    /// Adds inputs at the limits.
    fn edges(&mut self) {
        for age in [300_i16, 301, -300, -301] {
            let mut seed = as_planned::<Plan>(b"{}");
            seed[12..14].copy_from_slice(&age.to_le_bytes());
            let chosen = planned::<Plan>(&seed).map(|(plan, _)| plan.age);
            assert_eq!(chosen, Some(age));
            self.add("verify", seed);
        }
        for more in [0_i8, 1] {
            let more = more.to_le_bytes();
            self.add("canonical", [&variant(1, 2)[..], &more, b"[1]"].concat());
            let mut seed = as_planned::<framing::Plan>(b"{}");
            seed.splice(4..8, [&variant(1, 3)[..], &more].concat());
            let length = planned::<framing::Plan>(&seed).map(|(plan, body)| plan.body(body).len());
            assert_eq!(length, Some(framing::LIMIT + usize::from(more[0])));
            self.add("body", seed);
        }
    }

    fn write(self) -> Result<()> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (number, (target, seed)) in self.0.iter().enumerate() {
            let folder: PathBuf = corpus.join(target);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
        println!("{} seeds in {}", self.0.len(), corpus.display());
        Ok(())
    }
}
