//! The store that several machines share.

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

/// A replay store in Redis, shared by all instances of a service: one `SET … NX EX` a call.
///
/// For **one primary**. A Redis Cluster or Sentinel needs a [`ReplayStore`] over a client that
/// knows them; see the [module](super#which-store).
///
/// # Connection
///
/// The store connects when it is first asked, so Redis may be down when the service starts. A call
/// waits for a connection and for a response, each for at most the [timeout](Self::timeout), and is
/// then rejected (503), or accepted if
/// [failing open](crate::InngestAuth::insecure_replay_fail_open) was chosen.
///
/// The store leaves a connection that does not respond in time, and one to a server that cannot
/// take writes (`READONLY`, `LOADING`, `MASTERDOWN`): after a failover the name in the URL leads to
/// the new primary. A connection that has worked is replaced at once; after one that has not, the
/// next attempt is made a second later.
///
/// # What the server must do
///
/// - Remove no key before its time: set `maxmemory-policy` to `noeviction`. The store reads it each
///   time it connects, and logs an ERROR if it is another one, or a WARN if the server does not
///   tell. Without memory the server responds `OOM`, and calls are rejected.
/// - Lose no key when it restarts or fails over: with `appendfsync everysec` and asynchronous
///   replication, each can lose those of about a second.
/// - Allow the user to `SET` keys of the [namespace](Self::namespace), and if possible
///   `CONFIG GET`: `ACL SETUSER inngest on >PASSWORD ~inngest-auth:* +set +config|get`.
///
/// An entry lives for the seconds that are left by the layer's clock, counted by Redis from when it
/// is written; the [skew](super#clocks) must cover what differs between clocks.
#[derive(Clone)]
pub struct RedisReplayStore {
    connector: Arc<Connector>,
    namespace: Box<str>,
    timeout: Duration,
}

impl RedisReplayStore {
    /// Creates a store from a URL, `redis://[user:password@]host[:port][/database]`. Does not
    /// connect yet.
    ///
    /// `rediss://…` is TLS and needs the feature `redis-tls`. It trusts the certificates that the
    /// system trusts, or those of the file that `SSL_CERT_FILE` names.
    ///
    /// Percent-encode special characters in the user and password: `#` is `%23`, `/` is `%2F`,
    /// `%` is `%25`.
    ///
    /// # Errors
    ///
    /// [`RedisUrlError`] says what is wrong with the URL without quoting it.
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        Ok(Self {
            connector: Arc::new(Connector::new(url::parse(url)?)),
            namespace: "inngest-auth".into(),
            timeout: Duration::from_millis(250),
        })
    }

    /// Sets what keys begin with, before `:` and the MAC in hex (default: `inngest-auth`). Use one
    /// for all instances that share the guard, and another for each environment that shares Redis.
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
        let key = format!("{}:{}", self.namespace, String::from_iter(digits));
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
