//! Reads keys, bodies and captured requests.

use std::io::Read;

use inngest_auth::{Config, ConfigError};

use crate::report::Failure;

/// The maximum size of an input, in bytes: twice the layer's default body limit.
const LIMIT: u64 = 16 * 1024 * 1024;

/// What is read from standard input.
#[derive(Clone, Copy)]
pub(crate) enum Stdin {
    /// The body or the request, if no argument gives it.
    Body,
    /// The keys.
    Keys,
}

/// Reads the current key from the first line of standard input, and the fallback key from the
/// second.
pub(crate) fn config() -> Result<Result<Config, ConfigError>, Failure> {
    let text = String::from_utf8(all(std::io::stdin(), "standard input")?)
        .map_err(|_| "standard input: the keys are not UTF-8 text")?;
    let mut lines = text.lines();
    let keys = [
        ("INNGEST_SIGNING_KEY", lines.next().unwrap_or_default()),
        (
            "INNGEST_SIGNING_KEY_FALLBACK",
            lines.next().unwrap_or_default(),
        ),
    ];
    if lines.any(|line| !line.trim().is_empty()) {
        return Err(
            "standard input: expected the current key, and the fallback key on a second \
                    line"
                .into(),
        );
    }
    Ok(Config::from_vars(keys))
}

/// Returns the bytes of an argument, or of the file in `@FILE`. Without an argument, reads standard
/// input.
pub(crate) fn bytes(argument: Option<&str>, stdin: Stdin) -> Result<Vec<u8>, Failure> {
    match argument.map(|text| text.strip_prefix('@').ok_or(text)) {
        Some(Ok(path)) => file(path),
        Some(Err(text)) => Ok(text.as_bytes().to_vec()),
        None if matches!(stdin, Stdin::Keys) => Err(
            "--keys-stdin uses standard input for the keys; give the rest as an argument".into(),
        ),
        None => all(std::io::stdin(), "standard input"),
    }
}

/// Reads a file.
pub(crate) fn file(path: &str) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    all(file, path)
}

/// Reads up to the limit. `name` is for errors.
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
