//! What a user builds around an HTTP client.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Scheme, Uri};
use tower_layer::Layer;

use super::service::InngestApiAuthService;
use crate::config::{Config, ConfigError};
use crate::keyring::KeyRing;

/// The layer that authenticates calls to Inngest's API. See the [module's page](crate::api) for the rules.
///
/// Give it and [`InngestAuth`](crate::InngestAuth) one [`Config`], or clones of one [`KeyRing`]: each `from_env()`
/// makes a ring of its own, and rotating one would not rotate the other.
#[derive(Clone, Debug)]
#[must_use]
pub struct InngestApiAuth(Arc<Outbound>);

#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) stance: Stance,
    pub(super) environment: Option<HeaderValue>,
}

#[derive(Debug)]
pub(super) enum Stance {
    Authenticate {
        keys: KeyRing,
        api: Origin,
    },
    /// No token; the same limits otherwise.
    Dev {
        api: Origin,
    },
    /// The configuration cannot be used: every call is an error.
    Refuse(ConfigError),
}

impl InngestApiAuth {
    /// Configured by the environment. Always a layer: where the configuration cannot be used, an ERROR says now
    /// what to set, and every call fails.
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| {
            tracing::error!("no call to Inngest's API can be authenticated: {error}");
            Self(Arc::new(Outbound {
                stance: Stance::Refuse(error),
                environment: None,
            }))
        })
    }

    /// Configured by the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to set.
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| Self::from_config(&config))
    }

    /// Shares the configuration's [`KeyRing`] with all else that is built from it.
    pub fn from_config(config: &Config) -> Self {
        Self::checked(config).unwrap_or_else(|error| {
            tracing::error!("no call to Inngest's API can be authenticated: {error}");
            Self(Arc::new(Outbound {
                stance: Stance::Refuse(error),
                environment: None,
            }))
        })
    }

    fn checked(config: &Config) -> Result<Self, ConfigError> {
        let (base, environment) = (config.api_base()?, config.environment()?);
        let origin = base.parse().ok().as_ref().and_then(Origin::of);
        let api = origin.expect("`Config` lets pass only an address that has an origin");
        let stance = match config.keys() {
            Some(keys) => {
                if api.scheme == Scheme::HTTP && !api.is_loopback() {
                    tracing::warn!(api = base, "the API's token goes over plain http: use https");
                }
                Stance::Authenticate {
                    keys: keys.clone(),
                    api,
                }
            }
            None => Stance::Dev { api },
        };
        let environment = environment.map(|name| {
            HeaderValue::from_bytes(name.as_bytes()).expect("`Config` lets pass only UTF-8 without control characters")
        });
        Ok(Self(Arc::new(Outbound { stance, environment })))
    }

    /// The ring whose keys the API is called with. `None` in dev mode, and where the configuration cannot be used.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.0.stance {
            Stance::Authenticate { keys, .. } => Some(keys),
            Stance::Dev { .. } | Stance::Refuse(_) => None,
        }
    }
}

impl<S> Layer<S> for InngestApiAuth {
    type Service = InngestApiAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InngestApiAuthService::new(inner, Arc::clone(&self.0))
    }
}

/// Scheme, host and port (RFC 6454 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for what is not absolute, not HTTP, or names a user.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?;
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        Some(Self {
            scheme: scheme.clone(),
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(default),
        })
    }

    fn is_loopback(&self) -> bool {
        let address = self
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |uri: &str| Origin::of(&uri.parse().unwrap());
        let api = origin("https://api.inngest.com");
        for same in ["https://api.inngest.com:443/fn/register", "HTTPS://API.inngest.com/?x"] {
            assert_eq!(origin(same), api, "{same}");
        }
        for other in [
            "http://api.inngest.com",
            "https://api.inngest.com:8443",
            "https://inngest.com",
            "https://api.inngest.com.evil.example",
            "https://api.inngest.com@evil.example",
            "https://user@api.inngest.com",
            "/fn/register",
            "api.inngest.com:443",
        ] {
            assert_ne!(origin(other), api, "{other}");
        }
    }

    #[test]
    fn loopback_is_told_by_address_or_localhost() {
        for (uri, loopback) in [
            ("http://localhost:8288", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:8288", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(
                Origin::of(&uri.parse().unwrap()).unwrap().is_loopback(),
                loopback,
                "{uri}"
            );
        }
    }
}
