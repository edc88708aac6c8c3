//! `inngest-auth fingerprint`: prints the fingerprints of the keys.

use inngest_auth::{Config, SigningKey};

use crate::report::{Failure, Report};

pub(crate) fn run(config: &Config) -> Result<Report, Failure> {
    let keys = config
        .keys()
        .ok_or("INNGEST_DEV is set, so no key is read; unset it")?
        .snapshot();
    let fingerprint = |key: &SigningKey| key.fingerprint().to_string();
    Ok(Report::new(true)
        .line("current", fingerprint(keys.current()))
        .line("fallback", keys.fallback().map(fingerprint)))
}
