//! `INNGEST_*` as a [`Config`]: every value spelled out, nothing guessed.

use std::collections::HashMap;
use std::ffi::OsString;

use thiserror::Error;

use crate::key::{KeyError, SigningKey};
use crate::keyring::{KeyRing, Keys};

const SIGNING_KEY: &str = "INNGEST_SIGNING_KEY";
const SIGNING_KEY_FALLBACK: &str = "INNGEST_SIGNING_KEY_FALLBACK";
const DEV: &str = "INNGEST_DEV";
const UNAUTHED_SYNC: &str = "INNGEST_ENABLE_UNAUTHED_SYNC";
/// Where the API is, the first that is set.
const API: [&str; 2] = ["INNGEST_API_BASE_URL", "INNGEST_BASE_URL"];
/// The branch environment's name, the first that is set: Inngest's own variable, then the platforms'.
const ENVIRONMENT: [&str; 7] = [
    "INNGEST_ENV",
    "BRANCH_NAME",
    "VERCEL_GIT_COMMIT_REF",
    "BRANCH",
    "CF_PAGES_BRANCH",
    "RENDER_GIT_BRANCH",
    "RAILWAY_GIT_BRANCH",
];
const CLOUD_API: &str = "https://api.inngest.com";
const DEV_API: &str = "http://localhost:8288";

/// What the environment says, checked. Make one a process: all that is built from it shares one [`KeyRing`].
///
/// | variable | values | unset or blank |
/// |---|---|---|
/// | `INNGEST_SIGNING_KEY` | the signing key | an error, but in dev mode |
/// | `INNGEST_SIGNING_KEY_FALLBACK` | the other key, during a rotation | none |
/// | `INNGEST_DEV` | `1`, `true` or a dev server's `http(s)://…` or `host:port`: dev mode. `0`, `false`: cloud | cloud |
/// | `INNGEST_ENABLE_UNAUTHED_SYNC` | `1`, `true`: on. `0`, `false`: off | off |
/// | `INNGEST_API_BASE_URL`, else `INNGEST_BASE_URL` | where Inngest's API is, `http(s)://…` | the address in `INNGEST_DEV`, else `https://api.inngest.com`, in dev mode `http://localhost:8288` |
/// | `INNGEST_ENV`, `BRANCH_NAME`, `VERCEL_GIT_COMMIT_REF`, `BRANCH`, `CF_PAGES_BRANCH`, `RENDER_GIT_BRANCH`, `RAILWAY_GIT_BRANCH` | the branch environment's name; the first that is set | none |
///
/// Any other value is an error, never dev mode. In dev mode the keys are not looked at.
///
/// ```
/// use inngest_auth::{Config, ConfigError};
///
/// let config = Config::from_vars([("INNGEST_SIGNING_KEY", "signkey-prod-12345678")])?;
/// assert!(config.keys().is_some() && !config.is_dev());
///
/// let refused = Config::from_vars([("INNGEST_DEV", "yes")]).unwrap_err();
/// assert_eq!(refused.variable(), "INNGEST_DEV");
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    mode: Mode,
    insecure_unsigned_sync: bool,
    api_base: String,
    environment: Option<String>,
}

/// How requests are treated, with what verification needs.
#[derive(Clone, Debug)]
pub(crate) enum Mode<K = KeyRing> {
    /// Every request is verified.
    Cloud(K),
    /// Nothing is verified.
    Dev {
        /// Somebody who sets a key may not mean to run unverified.
        #[cfg_attr(not(feature = "layer"), expect(dead_code, reason = "the layer warns of it"))]
        key_set: bool,
    },
    /// The configuration cannot be used: nothing passes.
    #[cfg_attr(
        not(feature = "layer"),
        expect(dead_code, reason = "only layers live on without one")
    )]
    Unusable(ConfigError),
}

impl Config {
    /// Reads this process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], whose text says what to write instead.
    pub fn from_env() -> Result<Self, ConfigError> {
        let names = [SIGNING_KEY, SIGNING_KEY_FALLBACK, DEV, UNAUTHED_SYNC]
            .into_iter()
            .chain(API)
            .chain(ENVIRONMENT);
        Self::from_vars(names.filter_map(|name| Some((name, std::env::var_os(name)?))))
    }

    /// The same from any source of names and values; other names are ignored.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let vars = Vars(
            vars.into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        );
        let insecure_unsigned_sync = vars.switch(UNAUTHED_SYNC)?;
        let dev_server = vars.dev()?;
        let mode = if dev_server.is_some() {
            let key_set = vars
                .0
                .get(SIGNING_KEY)
                .is_some_and(|key| !key.to_string_lossy().trim().is_empty());
            Mode::Dev { key_set }
        } else {
            Mode::Cloud(vars.keys()?.into())
        };
        Ok(Self {
            mode,
            insecure_unsigned_sync,
            api_base: vars.api_base(dev_server.as_deref())?,
            environment: vars.environment()?,
        })
    }

    /// The ring that everything built from this configuration shares; `None` in dev mode.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Cloud(keys) => Some(keys),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Whether `INNGEST_DEV` chose dev mode, in which nothing is verified.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        matches!(self.mode, Mode::Dev { .. })
    }

    /// Whether an unsigned `PUT` may ask for a sync.
    #[must_use]
    pub fn insecure_unsigned_sync(&self) -> bool {
        self.insecure_unsigned_sync
    }

    /// Where Inngest's API is: `http(s)://host`, perhaps with port and path, without a slash at its end.
    #[must_use]
    pub fn api_base(&self) -> &str {
        &self.api_base
    }

    /// The branch environment's name, for `X-Inngest-Env`.
    #[must_use]
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    #[cfg(feature = "layer")]
    pub(crate) fn mode(&self) -> &Mode {
        &self.mode
    }
}

struct Vars(HashMap<String, OsString>);

impl Vars {
    /// Trimmed; blank is unset.
    fn text(&self, variable: &'static str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.0.get(variable) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or(ConfigError::NotUnicode { variable })?.trim();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn switch(&self, variable: &'static str) -> Result<bool, ConfigError> {
        match self.text(variable)? {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(ConfigError::UnknownValue {
                variable,
                write: "`1` or `true` to turn it on; `0`, `false` or nothing to leave it off",
            }),
        }
    }

    /// In dev mode, where the dev server is.
    fn dev(&self) -> Result<Option<String>, ConfigError> {
        match self.text(DEV)? {
            Some(text) if is_url(text) => Ok(Some(text.to_owned())),
            Some(text) if text.contains(':') && is_url(&format!("http://{text}")) => Ok(Some(format!("http://{text}"))),
            _ => match self.switch(DEV) {
                Ok(on) => Ok(on.then(|| DEV_API.to_owned())),
                Err(ConfigError::UnknownValue { variable, .. }) => Err(ConfigError::UnknownValue {
                    variable,
                    write: "`1`, `true` or the dev server's URL for dev mode; `0`, `false` or nothing for production",
                }),
                Err(other) => Err(other),
            },
        }
    }

    fn api_base(&self, dev_server: Option<&str>) -> Result<String, ConfigError> {
        for variable in API {
            match self.text(variable)? {
                Some(url) if is_url(url) => return Ok(url.trim_end_matches('/').to_owned()),
                Some(_) => {
                    return Err(ConfigError::UnknownValue {
                        variable,
                        write: "the API's address, like https://api.inngest.com; or nothing, for that one",
                    });
                }
                None => {}
            }
        }
        let url = dev_server.unwrap_or(CLOUD_API);
        Ok(url.trim_end_matches('/').to_owned())
    }

    fn environment(&self) -> Result<Option<String>, ConfigError> {
        for variable in ENVIRONMENT {
            match self.text(variable)? {
                // It becomes a header's value.
                Some(name) if name.chars().any(char::is_control) => {
                    return Err(ConfigError::UnknownValue {
                        variable,
                        write: "the branch environment's name, in one line",
                    });
                }
                Some(name) => return Ok(Some(name.to_owned())),
                None => {}
            }
        }
        Ok(None)
    }

    fn keys(&self) -> Result<Keys, ConfigError> {
        let current = self.key(SIGNING_KEY)?;
        let fallback = self.key(SIGNING_KEY_FALLBACK)?;
        match (current, fallback) {
            (None, None) => Err(ConfigError::NoKey),
            (None, Some(_)) => Err(ConfigError::FallbackAlone),
            (Some(current), fallback) => {
                if fallback.as_ref() == Some(&current) {
                    tracing::warn!(
                        "{SIGNING_KEY_FALLBACK} equals {SIGNING_KEY}: there is no fallback; unset it, or set it to the \
                         rotation's other key"
                    );
                }
                Ok(Keys::new(current, fallback))
            }
        }
    }

    fn key(&self, variable: &'static str) -> Result<Option<SigningKey>, ConfigError> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        let key: SigningKey = text
            .parse()
            .map_err(|source| ConfigError::BadKey { variable, source })?;
        if let Err(why) = key.bearer() {
            tracing::warn!(
                "{variable} does not look like a signing key ({why}): it can verify, but not call the API; copy the whole \
                 key again, in one line"
            );
        }
        Ok(Some(key))
    }
}

/// `http(s)://host`, perhaps with a port, a path. No user, query or fragment: what is sent there is a secret.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    is_host(host)
        && port_fits
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(allowed)
}

/// Why the environment cannot be used. The text names the variable and what to write; never a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cloud mode, and no key.
    #[error(
        "INNGEST_SIGNING_KEY is not set, or blank: set it to your environment's signing key, or set INNGEST_DEV=1 to develop without one"
    )]
    NoKey,
    /// A fallback, and no current key.
    #[error("INNGEST_SIGNING_KEY_FALLBACK is set but INNGEST_SIGNING_KEY is not: put the key into INNGEST_SIGNING_KEY")]
    FallbackAlone,
    /// A key that is no key.
    #[error("{variable}: {source}; copy the whole key, like signkey-prod-0123…, from Inngest's dashboard")]
    BadKey {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A value that means nothing here.
    #[error("{variable} has a value that means nothing: write {write}")]
    UnknownValue {
        /// The variable's name.
        variable: &'static str,
        /// What to write instead.
        write: &'static str,
    },
    /// Bytes that are not Unicode.
    #[error("{variable} is not Unicode text: set it again")]
    NotUnicode {
        /// The variable's name.
        variable: &'static str,
    },
}

impl ConfigError {
    /// The name of the variable to set.
    #[must_use]
    pub fn variable(&self) -> &'static str {
        match self {
            Self::NoKey | Self::FallbackAlone => SIGNING_KEY,
            Self::BadKey { variable, .. } | Self::UnknownValue { variable, .. } | Self::NotUnicode { variable } => {
                variable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = (SIGNING_KEY, "signkey-test-12345678");

    fn config<const N: usize>(vars: [(&str, &str); N]) -> Result<Config, ConfigError> {
        Config::from_vars(vars)
    }

    /// The variable to blame, where the configuration cannot be used.
    fn blamed<const N: usize>(vars: [(&str, &str); N]) -> Option<&'static str> {
        config(vars).err().map(|error| error.variable())
    }

    #[test]
    fn dev_mode_is_stated_never_guessed() {
        for (value, dev) in [
            ("1", true),
            ("true", true),
            (" 1\n", true),
            ("http://localhost:8288", true),
            ("https://dev.example/", true),
            ("localhost:8288", true),
            ("[::1]:8288", true),
            ("[::1]", true),
            ("http://[::1]:8288", true),
            ("", false),
            (" ", false),
            ("0", false),
            ("false", false),
        ] {
            assert_eq!(
                config([(DEV, value), KEY]).map(|config| config.is_dev()),
                Ok(dev),
                "{value:?}"
            );
        }
        for value in [
            "yes",
            "True",
            "on",
            "2",
            "localhost",
            "ftp://localhost:8288",
            "http://",
            "http://user@host",
            "http://host:99999",
            "host:port",
            "http://a b",
            "http://localhost:abc",
            "-:1",
            "signkey-test-12345678",
        ] {
            assert_eq!(blamed([(DEV, value), KEY]), Some(DEV), "{value:?}");
        }
    }

    #[test]
    fn dev_mode_wins_before_keys_are_looked_at() {
        let config = config([
            (DEV, "1"),
            (SIGNING_KEY, "signkey-test-"),
            (SIGNING_KEY_FALLBACK, "\u{0}"),
        ])
        .unwrap();
        assert!(config.is_dev() && config.keys().is_none());
    }

    #[test]
    fn keys_are_trimmed_and_blank_ones_unset() {
        let config = config([(SIGNING_KEY, " signkey-test-12345678\n"), (SIGNING_KEY_FALLBACK, " \n")]).unwrap();
        let keys = config.keys().unwrap().snapshot();
        assert_eq!(*keys.current(), KEY.1.parse().unwrap());
        assert_eq!(keys.fallback(), None);
    }

    #[test]
    fn keys_that_cannot_be_used_are_errors_that_name_the_variable() {
        assert_eq!(config([]).unwrap_err(), ConfigError::NoKey);
        assert_eq!(config([(SIGNING_KEY, " ")]).unwrap_err(), ConfigError::NoKey);
        assert_eq!(
            config([(SIGNING_KEY_FALLBACK, "ab")]).unwrap_err(),
            ConfigError::FallbackAlone
        );
        assert_eq!(blamed([(SIGNING_KEY, "signkey-test-")]), Some(SIGNING_KEY));
        assert_eq!(
            blamed([KEY, (SIGNING_KEY_FALLBACK, "signkey-test-")]),
            Some(SIGNING_KEY_FALLBACK)
        );
    }

    #[test]
    fn equal_keys_are_one() {
        let config = config([KEY, (SIGNING_KEY_FALLBACK, KEY.1)]).unwrap();
        assert_eq!(config.keys().unwrap().snapshot().fallback(), None);
    }

    #[test]
    fn an_error_never_shows_the_value() {
        let error = config([(DEV, "signkey-prod-5ec2e7")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("5ec2e7"));
    }

    #[test]
    fn insecure_unsigned_sync_is_off_unless_turned_on() {
        for (value, on) in [("1", true), ("true", true), ("0", false), ("false", false), ("", false)] {
            let config = config([KEY, (UNAUTHED_SYNC, value)]).unwrap();
            assert_eq!(config.insecure_unsigned_sync(), on, "{value:?}");
        }
        assert!(!config([KEY]).unwrap().insecure_unsigned_sync());
        assert_eq!(blamed([KEY, (UNAUTHED_SYNC, "yes")]), Some(UNAUTHED_SYNC));
    }

    #[test]
    fn the_api_is_where_the_first_variable_says() {
        let base = |vars: &[(&'static str, &'static str)]| {
            Config::from_vars(vars.iter().copied().chain([KEY])).map(|config| config.api_base().to_owned())
        };
        for (vars, expected) in [
            (&[][..], CLOUD_API),
            (&[(DEV, "1")], DEV_API),
            (&[(DEV, "https://dev.example/")], "https://dev.example"),
            (&[(DEV, "localhost:9999")], "http://localhost:9999"),
            (&[(API[1], "http://b.example:81/")], "http://b.example:81"),
            (
                &[(API[0], "http://a.example/x"), (API[1], "http://b.example")],
                "http://a.example/x",
            ),
            (
                &[(API[0], " "), (API[1], "http://b.example"), (DEV, "http://c.example")],
                "http://b.example",
            ),
        ] {
            assert_eq!(base(vars).as_deref(), Ok(expected), "{vars:?}");
        }
        for url in [
            "api.inngest.com",
            "https://user@api.inngest.com",
            "https://a/?b",
            "file:///etc",
            "https://[x]",
        ] {
            assert_eq!(base(&[(API[0], url)]).unwrap_err().variable(), API[0], "{url}");
        }
    }

    #[test]
    fn the_environment_is_named_by_the_first_variable_that_is_set() {
        for (at, variable) in ENVIRONMENT.into_iter().enumerate() {
            let later = ENVIRONMENT[at + 1..].iter().map(|&variable| (variable, "later"));
            let config = Config::from_vars(later.chain([KEY, (variable, " this ")])).unwrap();
            assert_eq!(config.environment(), Some("this"), "{variable}");
        }
        assert_eq!(config([KEY]).unwrap().environment(), None);
        assert_eq!(blamed([KEY, ("BRANCH", "a\u{7}b")]), Some("BRANCH"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_unicode_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(vec![0xff]);
        let error = Config::from_vars([(SIGNING_KEY, value)]).unwrap_err();
        assert_eq!(error, ConfigError::NotUnicode { variable: SIGNING_KEY });
    }
}
