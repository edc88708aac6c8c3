//! The `INNGEST_*` variables as a [`Config`]. Every value is checked, and nothing is guessed.

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

/// The checked configuration from environment variables. Create one per process: everything that is
/// built from it shares one [`KeyRing`].
///
/// - `INNGEST_SIGNING_KEY`: the signing key. Required, except in dev mode.
/// - `INNGEST_SIGNING_KEY_FALLBACK`: the other key, during a rotation (default: no fallback key).
/// - `INNGEST_SIGNING_KEY_FILE`, `INNGEST_SIGNING_KEY_FALLBACK_FILE`: the path of a file that
///   contains the key, instead of the variable above. It must be a regular file of at most 4 KiB. A
///   blank fallback file means no fallback key.
/// - `INNGEST_DEV`: `1`, `true` or a dev server's address (`http(s)://…` or `host:port`) for dev
///   mode; `0` or `false` for cloud mode (default: cloud mode).
/// - `INNGEST_ENABLE_UNAUTHED_SYNC`: `1` or `true` to admit unsigned syncs; `0` or `false` to
///   reject them (default: reject).
/// - `INNGEST_API_BASE_URL`, otherwise `INNGEST_BASE_URL`: the URL of Inngest's API, `http(s)://…`
///   (default: the address in `INNGEST_DEV`; without one `https://api.inngest.com`, in dev mode
///   `http://localhost:8288`).
/// - `INNGEST_ENV`, `BRANCH_NAME`, `VERCEL_GIT_COMMIT_REF`, `BRANCH`, `CF_PAGES_BRANCH`,
///   `RENDER_GIT_BRANCH`, `RAILWAY_GIT_BRANCH`: the branch environment's name (default: no branch
///   environment). The first that is set is used.
///
/// A blank variable counts as unset. Switches compare case-insensitively. Any other value is an
/// error and never selects dev mode, as is one of Inngest's own hosts in `INNGEST_DEV`. In dev mode
/// the keys are ignored. The last two entries are not needed to verify requests: an invalid value
/// is an error only where it is used. `.env` files are not read; load them before the process
/// starts.
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
/// let quoted = [("INNGEST_SIGNING_KEY", "'signkey-prod-12345678'")];
/// assert_eq!(
///     Config::from_vars(quoted).unwrap_err().to_string(),
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

/// Whether requests are verified, and what that needs.
#[derive(Clone, Debug)]
pub(crate) enum Mode<K = KeyRing> {
    /// Requests are verified with these keys.
    Cloud(K),
    /// Requests are not verified.
    Dev {
        /// Whether a key is set. Someone who sets a key may not intend to run unverified.
        #[cfg_attr(
            not(feature = "layer"),
            allow(dead_code, reason = "the layer warns of it")
        )]
        key_set: bool,
    },
    /// The configuration cannot be used, so every request is rejected.
    #[allow(
        dead_code,
        reason = "made by layers, which exist whatever the configuration is"
    )]
    Unusable(ConfigError),
}

impl Config {
    /// Reads the environment variables of this process.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that says what to set.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(env::names().filter_map(|name| {
            let value = std::env::var_os(&name)?;
            Some((name, value))
        }))
    }

    /// Reads variables from an iterator of names and values. Ignores other names.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`], as [`from_env`](Self::from_env) does.
    ///
    /// ```
    /// use inngest_auth::Config;
    ///
    /// let config = Config::from_vars([
    ///     ("INNGEST_SIGNING_KEY", "signkey-test-12345678"),
    ///     ("INNGEST_API_BASE_URL", "http://inngest.internal:8288/"),
    ///     ("PATH", "/usr/bin"),
    /// ])?;
    /// assert_eq!(config.api_base()?, "http://inngest.internal:8288");
    /// # Ok::<(), inngest_auth::ConfigError>(())
    /// ```
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

    /// Returns the ring that everything built from this configuration shares, or `None` in dev
    /// mode.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Cloud(source) => Some(source.ring()),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Returns `true` if `INNGEST_DEV` selects dev mode, in which requests are not verified.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        matches!(self.mode, Mode::Dev { .. })
    }

    /// Returns `true` if unsigned syncs are admitted (`INNGEST_ENABLE_UNAUTHED_SYNC`).
    #[must_use]
    pub fn insecure_unsigned_sync(&self) -> bool {
        self.insecure_unsigned_sync
    }

    /// Returns the URL of Inngest's API: `http(s)://host`, optionally with a port and a path,
    /// without a trailing slash.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if the variable for it is invalid. This does not affect the
    /// verification of requests.
    pub fn api_base(&self) -> Result<&str, ConfigError> {
        self.api_base.as_deref().map_err(|error| *error)
    }

    /// Returns the branch environment's name, for `X-Inngest-Env`.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`], as [`api_base`](Self::api_base) does.
    pub fn environment(&self) -> Result<Option<&str>, ConfigError> {
        self.environment
            .as_ref()
            .map(Option::as_deref)
            .map_err(|error| *error)
    }

    /// Reads the key files again, at once, and publishes their keys. Returns `true` if the keys
    /// changed.
    ///
    /// Both keys are checked before either is published: on any error the last good keys stay in
    /// use. A change is logged with the fingerprints before and after it. Only keys from files
    /// change; the mode never changes. In dev mode nothing happens.
    ///
    /// A reload does not check whether a file is still being written. Call it when the files are
    /// complete, for example on SIGHUP. It waits for the file system: if a file is on a network, use
    /// a thread in which waiting is allowed, such as one of Tokio's `spawn_blocking`.
    #[cfg_attr(feature = "layer", doc = "[`watch`](Self::watch) reloads by itself.")]
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that names the file and says what is wrong with it, or that no key
    /// is read from a file.
    pub fn reload(&self) -> Result<bool, ConfigError> {
        match &self.mode {
            Mode::Cloud(source) if source.has_files() => source.reload(|_, _| true),
            Mode::Cloud(_) => Err(ConfigError::NoKeyFile),
            Mode::Dev { .. } | Mode::Unusable(_) => Ok(false),
        }
    }

    /// Polls the key files, and publishes their keys when they change. Spawn the future. It never
    /// ends unless there is no file to watch. It needs a Tokio runtime with its timer enabled;
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
    /// Keys are published when two polls in a row have read the same, so that a file that is still
    /// being written is not used. A change therefore takes effect after at most two intervals.
    /// Otherwise it works as [`reload`](Self::reload) does, except that an error is logged (WARN,
    /// repeated at intervals that grow to an hour). Keys that were changed in the ring by other
    /// code stay until the files change.
    ///
    /// Two files in one directory are read through one resolved directory, so that a directory
    /// swapped by symbolic link, as in Kubernetes, is never read half before and half after the
    /// swap. Files that are replaced one by one may be read between the replacements: write the
    /// fallback key's file first.
    ///
    /// Files are read outside the runtime's workers, so one on a network that does not respond holds
    /// up only the watch. Intervals are at least a millisecond and at most a year.
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
