//! Where keys, bodies and captured requests come from.

use std::io::Read;

use inngest_auth::{Config, ConfigError};

use crate::report::Failure;

/// The longest that is read, in bytes: twice what the layer accepts by default.
const LIMIT: u64 = 16 * 1024 * 1024;

/// What standard input has.
#[derive(Clone, Copy)]
pub(crate) enum Stdin {
    HasBody,
    HasKeys,
}

/// Reads the keys from standard input: the current one, and in a second line the fallback.
pub(crate) fn config() -> Result<Result<Config, ConfigError>, Failure> {
    let text = String::from_utf8(all(std::io::stdin(), "standard input")?)
        .map_err(|_| "standard input: the key is not text")?;
    let mut lines = text.lines();
    let keys = [
        ("INNGEST_SIGNING_KEY", lines.next().unwrap_or_default()),
        (
            "INNGEST_SIGNING_KEY_FALLBACK",
            lines.next().unwrap_or_default(),
        ),
    ];
    if lines.any(|line| !line.trim().is_empty()) {
        return Err("standard input: expected a key, and in a second line the fallback key".into());
    }
    Ok(Config::from_vars(keys))
}

/// Reads the bytes that an argument gives: itself, or `@FILE`. Without one, reads standard input.
pub(crate) fn bytes(argument: Option<&str>, stdin: Stdin) -> Result<Vec<u8>, Failure> {
    match argument.map(|text| text.strip_prefix('@').ok_or(text)) {
        Some(Ok(path)) => file(path),
        Some(Err(text)) => Ok(text.as_bytes().to_vec()),
        None if matches!(stdin, Stdin::HasKeys) => {
            Err("standard input has the keys; give the rest as an argument".into())
        }
        None => all(std::io::stdin(), "standard input"),
    }
}

pub(crate) fn file(path: &str) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    all(file, path)
}

fn all(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > LIMIT {
        return Err(format!("{name}: longer than {LIMIT} bytes").into());
    }
    Ok(bytes)
}
