//! `INNGEST_*` as a [`Config`]: every value checked, nothing guessed.

mod defect;
mod env;
mod error;

use std::ffi::OsString;

pub use defect::KeyDefect;
pub use error::ConfigError;

use crate::keyring::KeyRing;
use env::Vars;

/// The configuration that the environment's variables describe, checked. Make one per process:
/// everything that is built from it shares one [`KeyRing`].
///
/// | variable | values | unset or blank |
/// |---|---|---|
/// | `INNGEST_SIGNING_KEY` | the signing key | an error, except in dev mode |
/// | `INNGEST_SIGNING_KEY_FALLBACK` | the other key, during a rotation | none |
/// | `INNGEST_DEV` | `1`, `true` or a dev server's `http(s)://…` or `host:port`: dev mode. `0`, `false`: cloud | cloud |
/// | `INNGEST_ENABLE_UNAUTHED_SYNC` | `1`, `true`: on. `0`, `false`: off | off |
/// | `INNGEST_API_BASE_URL`, else `INNGEST_BASE_URL` | where Inngest's API is, `http(s)://…` | the address in `INNGEST_DEV`, else `https://api.inngest.com`, in dev mode `http://localhost:8288` |
/// | `INNGEST_ENV`, `BRANCH_NAME`, `VERCEL_GIT_COMMIT_REF`, `BRANCH`, `CF_PAGES_BRANCH`, `RENDER_GIT_BRANCH`, `RAILWAY_GIT_BRANCH` | the branch environment's name; the first that is set | none |
///
/// Switches compare case-insensitively. Any other value is an error, never dev mode; so is one of
/// Inngest's own hosts in `INNGEST_DEV`. In dev mode the keys are not looked at. The last two rows
/// are not needed to verify requests: an invalid value there is an error only where it is used.
///
/// ```
/// use inngest_auth::{Config, ConfigError};
///
/// let config = Config::from_vars([("INNGEST_SIGNING_KEY", "signkey-prod-12345678")])?;
/// assert!(config.keys().is_some() && !config.is_dev());
///
/// let rejected = Config::from_vars([("INNGEST_DEV", "yes")]).unwrap_err();
/// assert_eq!(rejected.variable(), "INNGEST_DEV");
///
/// let rejected = Config::from_vars([("INNGEST_SIGNING_KEY", "'signkey-prod-12345678'")]).unwrap_err();
/// assert_eq!(
///     rejected.to_string(),
///     "invalid signing key in INNGEST_SIGNING_KEY: it contains quotation marks; remove them"
/// );
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    mode: Mode,
    insecure_unsigned_sync: bool,
    api_base: Result<String, ConfigError>,
    environment: Result<Option<String>, ConfigError>,
}

/// Whether requests are verified, and what is needed for that.
#[derive(Clone, Debug)]
pub(crate) enum Mode<K = KeyRing> {
    /// Requests are verified with these keys.
    Cloud(K),
    /// Nothing is verified.
    Dev {
        /// Whether there is a key: whoever sets one may not mean to run unverified.
        #[cfg_attr(not(feature = "layer"), allow(dead_code, reason = "the layer warns of it"))]
        key_set: bool,
    },
    /// There is no usable configuration: every request is rejected.
    #[allow(dead_code, reason = "made by layers, which exist whatever the configuration is")]
    Unusable(ConfigError),
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to set.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(env::names().filter_map(|name| Some((name, std::env::var_os(name)?))))
    }

    /// Reads variables from any source of names and values. Ignores other names.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let vars = Vars::new(vars);
        let insecure_unsigned_sync = vars.unsigned_sync()?;
        let dev_server = vars.dev_server()?;
        let mode = match dev_server {
            Some(_) => Mode::Dev {
                key_set: vars.has_key(),
            },
            None => Mode::Cloud(vars.keys()?.into()),
        };
        Ok(Self {
            mode,
            insecure_unsigned_sync,
            api_base: vars.api_base(dev_server.as_deref()),
            environment: vars.environment(),
        })
    }

    /// Returns the ring that everything built from this configuration shares; `None` in dev mode.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Cloud(keys) => Some(keys),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Returns `true` if `INNGEST_DEV` chose dev mode, in which nothing is verified.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        matches!(self.mode, Mode::Dev { .. })
    }

    /// Returns `true` if an unsigned `PUT` may ask for a sync (`INNGEST_ENABLE_UNAUTHED_SYNC`).
    #[must_use]
    pub fn insecure_unsigned_sync(&self) -> bool {
        self.insecure_unsigned_sync
    }

    /// Returns where Inngest's API is: `http(s)://host`, perhaps with a port and a path, without a
    /// slash at its end.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the variable that says so is invalid. Requests are verified all the same.
    pub fn api_base(&self) -> Result<&str, ConfigError> {
        self.api_base.as_deref().map_err(|error| *error)
    }

    /// Returns the branch environment's name, for `X-Inngest-Env`.
    ///
    /// # Errors
    ///
    /// As [`api_base`](Self::api_base).
    pub fn environment(&self) -> Result<Option<&str>, ConfigError> {
        self.environment.as_ref().map(Option::as_deref).map_err(|error| *error)
    }

    #[cfg(feature = "layer")]
    pub(crate) fn mode(&self) -> &Mode {
        &self.mode
    }
}
