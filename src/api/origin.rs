//! The origin of the API, which is the only place that a token is sent to.

use std::fmt;

use http::uri::{Authority, Scheme, Uri};
use thiserror::Error;

/// A scheme, host and port (RFC 6454, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin of a base URL. Its path, if any, does not matter.
    pub(super) fn parse(base: &str) -> Result<Self, ApiBaseError> {
        let (scheme, rest) = base.split_once("://").ok_or(ApiBaseError::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(ApiBaseError::QueryOrFragment);
        }
        let authority = rest
            .split_once('/')
            .map_or(rest, |(authority, _)| authority);
        let scheme: Scheme = scheme
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| ApiBaseError::Scheme)?;
        let authority: Authority = authority.parse().map_err(|_| ApiBaseError::Host)?;
        Self::new(&scheme, &authority)
    }

    /// Returns the origin of a request's URI, or `None` if a token must not be sent there.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Self::new(uri.scheme()?, uri.authority()?).ok()
    }

    fn new(scheme: &Scheme, authority: &Authority) -> Result<Self, ApiBaseError> {
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(ApiBaseError::Scheme),
        };
        let (text, host) = (authority.as_str(), authority.host());
        // `https://api.inngest.com@evil.example` has the host `evil.example`.
        if text.contains('@') {
            return Err(ApiBaseError::UserInfo);
        }
        if host.is_empty() {
            return Err(ApiBaseError::Host);
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if text == host => default_port,
            // `http` reports a port out of range as a missing port.
            None => return Err(ApiBaseError::Port),
        };
        Ok(Self {
            scheme: scheme.clone(),
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// Returns `true` if the token would cross a network in plain text.
    pub(super) fn is_exposed(&self) -> bool {
        self.scheme == Scheme::HTTP && !self.is_loopback()
    }

    /// Returns `true` for `localhost` and literal loopback addresses. Any other name may resolve to
    /// any address.
    fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = address.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// An error returned when a text is not the base URL of an API.
///
/// The messages do not contain the text, because it might contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ApiBaseError {
    /// The URL does not begin with `http://` or `https://`.
    #[error("invalid API base URL: expected it to begin with http:// or https://")]
    Scheme,
    /// The host is missing or malformed.
    #[error("invalid API base URL: missing or malformed host; expected https://api.inngest.com")]
    Host,
    /// The port is not a number from 0 to 65535.
    #[error("invalid API base URL: invalid port; expected a number up to 65535, or no port")]
    Port,
    /// The URL contains a user name or a password.
    #[error("invalid API base URL: remove the user name and password; the signing key is used")]
    UserInfo,
    /// The URL contains a query or a fragment.
    #[error("invalid API base URL: remove the query and the fragment")]
    QueryOrFragment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |uri: &str| Origin::of(&uri.parse().unwrap());
        let api = Origin::parse("https://api.inngest.com").ok();
        assert!(api.is_some());
        for same in [
            "https://api.inngest.com:443/fn/register",
            "HTTPS://API.inngest.com/?x",
            "https://api.inngest.com:0443/",
        ] {
            assert_eq!(origin(same), api, "{same}");
        }
        for other in [
            "http://api.inngest.com",
            "http://api.inngest.com:443",
            "https://api.inngest.com:8443",
            "https://api.inngest.com:99999",
            "https://inngest.com",
            "https://api.inngest.com.",
            "https://api.inngest.com.evil.example",
            "https://api.inngest.com@evil.example",
            "https://user@api.inngest.com",
            "/fn/register",
            "api.inngest.com:443",
            "*",
        ] {
            assert_ne!(origin(other), api, "{other}");
        }
    }

    #[test]
    fn an_origin_is_printed_with_its_port_and_without_the_path() {
        for (base, printed) in [
            ("https://api.inngest.com", "https://api.inngest.com:443"),
            (
                "http://GATEWAY.example/inngest/",
                "http://gateway.example:80",
            ),
            ("http://[::1]:8288", "http://[::1]:8288"),
        ] {
            assert_eq!(Origin::parse(base).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_used_says_why() {
        for (base, expected) in [
            ("https://api.inngest.com", None),
            ("HTTP://localhost:8288/", None),
            ("https://gateway.example/inngest/", None),
            ("http://[::1]:8288", None),
            ("", Some(ApiBaseError::Scheme)),
            ("api.inngest.com", Some(ApiBaseError::Scheme)),
            ("localhost:8288", Some(ApiBaseError::Scheme)),
            ("/fn/register", Some(ApiBaseError::Scheme)),
            ("ftp://api.inngest.com", Some(ApiBaseError::Scheme)),
            (" https://api.inngest.com", Some(ApiBaseError::Scheme)),
            ("://api.inngest.com", Some(ApiBaseError::Scheme)),
            ("https://", Some(ApiBaseError::Host)),
            ("https:///path", Some(ApiBaseError::Host)),
            ("https://:443", Some(ApiBaseError::Host)),
            ("https://a b", Some(ApiBaseError::Host)),
            ("https://[::1", Some(ApiBaseError::Host)),
            ("https://a.example\n", Some(ApiBaseError::Host)),
            ("https://a.example:port", Some(ApiBaseError::Port)),
            ("https://a.example:99999", Some(ApiBaseError::Port)),
            ("https://a.example:", Some(ApiBaseError::Port)),
            ("https://user:word@a.example", Some(ApiBaseError::UserInfo)),
            (
                "https://a.example/?key=1",
                Some(ApiBaseError::QueryOrFragment),
            ),
            ("https://a.example#top", Some(ApiBaseError::QueryOrFragment)),
        ] {
            assert_eq!(Origin::parse(base).err(), expected, "{base:?}");
        }
    }

    #[test]
    fn a_token_over_plain_http_is_exposed_unless_it_stays_on_this_machine() {
        for (base, exposed) in [
            ("https://api.inngest.com", false),
            ("http://localhost:8288", false),
            ("http://127.8.0.1", false),
            ("http://[::1]:8288", false),
            ("http://localhost.example", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(Origin::parse(base).unwrap().is_exposed(), exposed, "{base}");
        }
    }
}
