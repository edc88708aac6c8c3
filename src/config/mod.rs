//! `INNGEST_*` as a [`Config`]: every value checked, nothing guessed.

mod defect;
mod env;
mod error;
mod files;
mod names;
mod source;
#[cfg(feature = "layer")]
mod watch;

use std::ffi::OsString;
use std::sync::Arc;
#[cfg(feature = "layer")]
use std::time::Duration;

pub use defect::KeyDefect;
pub use error::ConfigError;
pub use files::FileDefect;

use crate::keyring::KeyRing;
use env::Vars;
use source::KeySource;

/// The configuration that the environment's variables describe, checked. Make one per process:
/// everything that is built from it shares one [`KeyRing`].
///
/// | variable | values | unset or blank |
/// |---|---|---|
/// | `INNGEST_SIGNING_KEY` | the signing key | an error, except in dev mode |
/// | `INNGEST_SIGNING_KEY_FALLBACK` | the other key, during a rotation | none |
/// | `INNGEST_SIGNING_KEY_FILE`, `INNGEST_SIGNING_KEY_FALLBACK_FILE` | the path of a regular file of at most 4 KiB with that key, in place of the variable above; a blank fallback file means no fallback key | none |
/// | `INNGEST_DEV` | `1`, `true` or a dev server's `http(s)://…` or `host:port`: dev mode. `0`, `false`: cloud | cloud |
/// | `INNGEST_ENABLE_UNAUTHED_SYNC` | `1`, `true`: on. `0`, `false`: off | off |
/// | `INNGEST_API_BASE_URL`, else `INNGEST_BASE_URL` | where Inngest's API is, `http(s)://…` | the address in `INNGEST_DEV`, else `https://api.inngest.com`, in dev mode `http://localhost:8288` |
/// | `INNGEST_ENV`, `BRANCH_NAME`, `VERCEL_GIT_COMMIT_REF`, `BRANCH`, `CF_PAGES_BRANCH`, `RENDER_GIT_BRANCH`, `RAILWAY_GIT_BRANCH` | the branch environment's name; the first that is set | none |
///
/// Switches compare case-insensitively. Any other value is an error, never dev mode; so is one of
/// Inngest's own hosts in `INNGEST_DEV`. In dev mode the keys are not looked at. The last two rows
/// are not needed to verify requests: an invalid value there is an error only where it is used.
/// `.env` files are not read: whatever starts the process does that.
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
    mode: Mode<Arc<KeySource>>,
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
        #[cfg_attr(
            not(feature = "layer"),
            allow(dead_code, reason = "the layer warns of it")
        )]
        key_set: bool,
    },
    /// There is no usable configuration: every request is rejected.
    #[allow(
        dead_code,
        reason = "made by layers, which exist whatever the configuration is"
    )]
    Unusable(ConfigError),
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to set.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(env::names().filter_map(|name| {
            let value = std::env::var_os(&name)?;
            Some((name, value))
        }))
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
            None => Mode::Cloud(Arc::new(vars.keys()?)),
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
            Mode::Cloud(source) => Some(source.ring()),
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
        self.environment
            .as_ref()
            .map(Option::as_deref)
            .map_err(|error| *error)
    }

    /// Reads the key files again, at once, and publishes what they hold. Returns `true` if the keys
    /// changed.
    ///
    /// Both keys are checked before either is published: on any error the last good keys stay in
    /// use. The change is logged with the fingerprints before and after it. Only keys change, never
    /// the mode, and only those that are in files. In dev mode nothing happens.
    ///
    /// It believes what it reads: call it when the files are complete, on SIGHUP say.
    #[cfg_attr(feature = "layer", doc = "[`watch`](Self::watch) does without a call.")]
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what is wrong with which file, or that no key is in a file.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        match &self.mode {
            Mode::Cloud(source) if source.has_files() => source.reload(|_, _| true),
            Mode::Cloud(_) => Err(ConfigError::NoKeyFile),
            Mode::Dev { .. } | Mode::Unusable(_) => Ok(false),
        }
    }

    /// Polls the key files, and publishes what they hold when it has changed. Spawn the future: it
    /// never ends, unless there is no file to watch. It needs a Tokio runtime with its timer enabled;
    /// outside one it logs an ERROR and ends.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use inngest_auth::{Config, ConfigError, InngestAuth};
    /// # async fn serve() -> Result<(), ConfigError> {
    /// let config = Config::from_env()?;
    /// tokio::spawn(config.watch(Duration::from_secs(10)));
    /// let auth = InngestAuth::from_config(&config);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What is new is published when two polls in a row have read the same, so that a file that is
    /// being written is not believed: two intervals after a change at the latest. The rest is as
    /// with [`reload`](Self::reload), but an error is logged (WARN, repeated at intervals that grow
    /// to an hour). Keys that were changed in the ring by hand stay until the files change.
    ///
    /// Two files in one directory are read through one resolved directory, so that a directory
    /// swapped by symbolic link, as Kubernetes does it, is never seen half. Files that are replaced
    /// one by one are read as they are at that moment: write the fallback key's first.
    #[cfg(feature = "layer")]
    pub fn watch(&self, every: Duration) -> impl Future<Output = ()> + Send + use<> {
        let source = match &self.mode {
            Mode::Cloud(source) if source.has_files() => Some(Arc::clone(source)),
            _ => None,
        };
        watch::watch(source, every)
    }

    #[cfg(feature = "layer")]
    pub(crate) fn mode(&self) -> Mode {
        match &self.mode {
            Mode::Cloud(source) => Mode::Cloud(source.ring().clone()),
            Mode::Dev { key_set } => Mode::Dev { key_set: *key_set },
            Mode::Unusable(error) => Mode::Unusable(*error),
        }
    }
}
