//! `INNGEST_*` as a [`Config`]: every value spelled out, nothing guessed.

use std::collections::HashMap;
use std::ffi::OsString;

use thiserror::Error;

use crate::key::{KeyError, Keys, SigningKey};
use crate::keyring::KeyRing;

const SIGNING_KEY: &str = "INNGEST_SIGNING_KEY";
const SIGNING_KEY_FALLBACK: &str = "INNGEST_SIGNING_KEY_FALLBACK";
const DEV: &str = "INNGEST_DEV";
const UNAUTHED_SYNC: &str = "INNGEST_ENABLE_UNAUTHED_SYNC";
const VARIABLES: [&str; 4] = [SIGNING_KEY, SIGNING_KEY_FALLBACK, DEV, UNAUTHED_SYNC];

/// What the environment says, checked. Make one a process: all that is built from it shares one [`KeyRing`].
///
/// | variable | values | unset or blank |
/// |---|---|---|
/// | `INNGEST_SIGNING_KEY` | the signing key | an error, but in dev mode |
/// | `INNGEST_SIGNING_KEY_FALLBACK` | the other key, during a rotation | none |
/// | `INNGEST_DEV` | `1`, `true` or a dev server's `http(s)://…` or `host:port`: dev mode. `0`, `false`: cloud | cloud |
/// | `INNGEST_ENABLE_UNAUTHED_SYNC` | `1`, `true`: on. `0`, `false`: off | off |
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
    unauthenticated_sync: bool,
}

/// Cloud or dev, and what each has.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Cloud(KeyRing),
    Dev {
        /// Somebody who sets a key may not mean to run unverified.
        #[cfg_attr(not(feature = "layer"), expect(dead_code, reason = "the layer says so"))]
        key_set: bool,
    },
}

impl Config {
    /// Reads this process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], whose text says what to write instead.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(
            VARIABLES
                .iter()
                .filter_map(|&name| Some((name, std::env::var_os(name)?))),
        )
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
        let unauthenticated_sync = vars.switch(UNAUTHED_SYNC)?;
        let mode = if vars.dev()? {
            let key_set = vars.0.get(SIGNING_KEY).is_some_and(|key| !key.is_empty());
            Mode::Dev { key_set }
        } else {
            Mode::Cloud(vars.keys()?.into())
        };
        Ok(Self {
            mode,
            unauthenticated_sync,
        })
    }

    /// The ring that everything built from this configuration shares; `None` in dev mode.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Cloud(keys) => Some(keys),
            Mode::Dev { .. } => None,
        }
    }

    /// Whether `INNGEST_DEV` chose dev mode, in which nothing is verified.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        matches!(self.mode, Mode::Dev { .. })
    }

    /// Whether an unsigned `PUT` may ask for a sync.
    #[must_use]
    pub fn unauthenticated_sync(&self) -> bool {
        self.unauthenticated_sync
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

    fn dev(&self) -> Result<bool, ConfigError> {
        match self.text(DEV)? {
            Some(text) if is_address(text) => Ok(true),
            _ => self.switch(DEV).map_err(|error| match error {
                ConfigError::UnknownValue { variable, .. } => ConfigError::UnknownValue {
                    variable,
                    write: "`1`, `true` or the dev server's URL for dev mode; `0`, `false` or nothing for production",
                },
                other => other,
            }),
        }
    }

    fn keys(&self) -> Result<Keys, ConfigError> {
        let current = self.key(SIGNING_KEY)?;
        let fallback = self.key(SIGNING_KEY_FALLBACK)?;
        match (current, fallback) {
            (None, None) => Err(ConfigError::NoKey),
            (None, Some(_)) => Err(ConfigError::FallbackAlone),
            (Some(current), fallback) => {
                if fallback.as_ref() == Some(&current) {
                    tracing::warn!("{SIGNING_KEY_FALLBACK} equals {SIGNING_KEY}: there is no fallback");
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
            tracing::warn!("{variable} does not look like a signing key ({why}): it can verify, but not call the API");
        }
        Ok(Some(key))
    }
}

/// `http://…`, `https://…` or `host:port`.
fn is_address(text: &str) -> bool {
    let authority = match text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) {
        Some(rest) => return is_host(rest.split(['/', ':', '?', '#']).next().unwrap_or_default()),
        None => text.rsplit_once(':'),
    };
    authority.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

fn is_host(text: &str) -> bool {
    let name = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

/// Why the environment cannot be used. The text names the variable and what to write; never a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Cloud mode, and no key.
    #[error(
        "INNGEST_SIGNING_KEY is not set: set it to your environment's signing key, or set INNGEST_DEV=1 to develop without one"
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
