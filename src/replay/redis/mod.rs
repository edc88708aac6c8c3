//! The replay store that several machines share.

mod connection;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::ReplayStoreError;
use super::{Recorded, ReplayStore, Sighting};
use crate::hex;
use connection::Connector;
pub use url::RedisUrlError;

/// A replay store in Redis, shared by all instances of a service. It sends one `SET … NX EX` per
/// call.
///
/// It works with **one primary**. For a Redis Cluster or Sentinel, implement [`ReplayStore`] over a
/// client that supports them; see the [module](super#which-store).
///
/// # Connection
///
/// The store connects on first use, so Redis may be down when the service starts. A call waits for
/// a connection, and then for a response, each for at most the [timeout](Self::timeout). If a
/// connection that has worked turns out to be unusable, the command is sent once again on a new
/// one. So a call waits for at most three timeouts. Then it is rejected with 503, or admitted if
/// [failing open](crate::InngestAuth::insecure_replay_fail_open) was chosen.
///
/// The store drops a connection that does not respond in time, and one to a server that cannot
/// accept writes (`READONLY`, `LOADING`, `MASTERDOWN`). After a failover the name in the URL
/// resolves to the new primary. A connection that has worked is replaced at once. After one that
/// has not, the next attempt follows a second later.
///
/// # Requirements for the server
///
/// - It must not remove keys early: set `maxmemory-policy` to `noeviction`. The store reads this
///   setting each time it connects. It logs an ERROR if the setting differs, or a WARN if the
///   server does not reveal it. If the server is out of memory it responds with `OOM`, and calls
///   are rejected.
/// - It must not lose keys when it restarts or fails over. With `appendfsync everysec` and
///   asynchronous replication, each can lose the keys of about a second.
/// - It must allow the user to `SET` keys of the [namespace](Self::namespace), and if possible
///   `CONFIG GET`: `ACL SETUSER inngest on >PASSWORD ~inngest-auth:* +set +config|get`.
///
/// The layer's clock determines how many seconds an entry has left, and Redis counts them from the
/// write. The [skew](super#clocks) must cover differences between clocks.
#[derive(Clone)]
pub struct RedisReplayStore {
    connector: Arc<Connector>,
    namespace: Box<str>,
    timeout: Duration,
}

impl RedisReplayStore {
    /// Creates a store from a URL, `redis://[user:password@]host[:port][/database]`, without
    /// connecting.
    ///
    /// `rediss://…` uses TLS and needs the feature `redis-tls`. It trusts the system's
    /// certificates, or those in the file named by `SSL_CERT_FILE`. Percent-encode special
    /// characters in the user name and password: `#` is `%23`, `/` is `%2F`, `%` is `%25`.
    ///
    /// # Errors
    ///
    /// Returns a [`RedisUrlError`] that says what is wrong with the URL without quoting it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use inngest_auth::{InngestAuth, replay::RedisReplayStore};
    ///
    /// let store = RedisReplayStore::new("redis://inngest:p%40ssword@redis.internal:6379")?
    ///     .namespace("inngest-auth-production")
    ///     .timeout(Duration::from_millis(500));
    /// let auth = InngestAuth::from_env().replay_guard(store);
    /// # let _ = auth;
    ///
    /// let error = RedisReplayStore::new("http://redis.internal").unwrap_err();
    /// assert!(error.to_string().starts_with("invalid Redis URL: "));
    /// # Ok::<(), inngest_auth::replay::RedisUrlError>(())
    /// ```
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        Ok(Self {
            connector: Arc::new(Connector::new(url::parse(url)?)),
            namespace: "inngest-auth".into(),
            timeout: Duration::from_millis(250),
        })
    }

    /// Sets the prefix of keys, which is followed by `:` and the MAC in hex (default:
    /// `inngest-auth`). Use the same for all instances that share the guard, and a different one
    /// for each environment that shares Redis.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets how long a call waits for a connection, and then for a response (default: 250 ms).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl ReplayStore for RedisReplayStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        let Some(seconds) = sighting.seconds_left() else {
            return Ok(Recorded::Seen);
        };
        let digits = sighting
            .mac
            .into_iter()
            .flat_map(hex::encode)
            .map(char::from);
        let key = format!("{}:{}", self.namespace, digits.collect::<String>());
        let mut set = redis::cmd("SET");
        set.arg(key).arg("").arg("NX").arg("EX").arg(seconds);
        let written: Option<String> = self.connector.query("SET", &set, self.timeout).await?;
        Ok(if written.is_some() {
            Recorded::Fresh
        } else {
            Recorded::Seen
        })
    }
}

impl fmt::Debug for RedisReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplayStore")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
