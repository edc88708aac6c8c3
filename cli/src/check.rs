//! `inngest-auth check`: reports the configuration of the environment.

use inngest_auth::{Config, ConfigError, KeyRing, SigningKey};

use crate::report::Report;

pub(crate) fn run(config: Result<Config, ConfigError>) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            return Report::new(false)
                .line("mode", "unusable")
                .line("error", error.to_string())
                .line("variable", error.variable());
        }
    };
    let keys = config.keys().map(KeyRing::snapshot);
    let fingerprint = |key: &SigningKey| key.fingerprint().to_string();
    // Requests can be verified even if the settings for API calls are wrong.
    let (api, environment) = (config.api_base(), config.environment());
    let problem = api.err().or(environment.err());
    Report::new(problem.is_none())
        .line(
            "mode",
            if config.is_dev() {
                "dev; requests are not verified"
            } else {
                "cloud"
            },
        )
        .line(
            "current key",
            keys.as_ref().map(|keys| fingerprint(keys.current())),
        )
        .line(
            "fallback key",
            keys.as_ref()
                .and_then(|keys| keys.fallback().map(fingerprint)),
        )
        .line("unsigned sync", config.insecure_unsigned_sync())
        .line("api", api.ok())
        .line("environment", environment.ok().flatten())
        .line("error", problem.map(|error| error.to_string()))
}
