//! Where bodies and captured requests come from.

use std::io::Read;

use crate::report::Failure;

/// The longest that is read, in bytes: twice what the layer accepts by default.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Reads the bytes that an argument gives: itself, `@FILE`, or standard input if there is none.
pub(crate) fn bytes(argument: Option<&str>) -> Result<Vec<u8>, Failure> {
    match argument.map(|text| text.strip_prefix('@').ok_or(text)) {
        Some(Ok(path)) => file(path),
        Some(Err(text)) => Ok(text.as_bytes().to_vec()),
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
