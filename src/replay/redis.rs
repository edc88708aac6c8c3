//! The store that several machines share.

use std::sync::OnceLock;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ExistenceCheck, RedisError, SetExpiry, SetOptions};

use super::{Recorded, ReplayStore, ReplayStoreError, Sighting};

/// Longest that a call may wait for Redis.
const PATIENCE: Duration = Duration::from_millis(250);

/// Remembers in Redis: what one instance has seen, all refuse. One `SET … NX EX` a call.
///
/// It connects when it is first asked, so Redis may be down when the service starts, and connects again by itself. A call
/// that Redis does not answer within 250 ms is refused (503), or passes where
/// [failing open](crate::InngestAuth::insecure_replay_fail_open) was chosen. Redis keeps its own time: an entry lives for as
/// many seconds as are left by the layer's clock.
///
/// Exact only as far as Redis forgets nothing: give it `maxmemory-policy noeviction`.
#[derive(Clone)]
pub struct RedisReplayStore {
    client: Client,
    manager: OnceLock<ConnectionManager>,
    namespace: Box<str>,
}

impl RedisReplayStore {
    /// `url` is `redis://[user:password@]host[:port][/database]`; `rediss://…` needs the feature `redis-tls`. Does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// [`ReplayStoreError::Unavailable`] where the URL is none. It does not quote it: there may be a password in it.
    pub fn new(url: &str) -> Result<Self, ReplayStoreError> {
        let client = Client::open(url).map_err(|error| unavailable(&error))?;
        Ok(Self {
            client,
            manager: OnceLock::new(),
            namespace: "inngest-auth".into(),
        })
    }

    /// What keys begin with, before `:` and the MAC in hex: `inngest-auth` unless set. One for all instances that share
    /// the guard, another for each environment that shares the Redis.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Made when it is first asked for, because it needs the runtime that asks.
    fn manager(&self) -> Result<ConnectionManager, RedisError> {
        if let Some(manager) = self.manager.get() {
            return Ok(manager.clone());
        }
        // One try a call: the next call is the next try.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.manager.get_or_init(|| manager).clone())
    }

    async fn set(&self, sighting: Sighting) -> Result<Recorded, RedisError> {
        let Some(seconds) = sighting.seconds_left() else {
            return Ok(Recorded::Seen);
        };
        let key = format!("{}:{}", self.namespace, hex::encode(sighting.mac));
        let options = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::EX(seconds));
        let mut manager = self.manager()?;
        let set: Option<String> = redis::AsyncCommands::set_options(&mut manager, key, "", options).await?;
        Ok(if set.is_some() { Recorded::Fresh } else { Recorded::Seen })
    }
}

impl ReplayStore for RedisReplayStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        match tokio::time::timeout(PATIENCE, self.set(sighting)).await {
            Ok(recorded) => recorded.map_err(|error| unavailable(&error)),
            Err(_) => Err(ReplayStoreError::Unavailable("no answer within 250 ms".into())),
        }
    }
}

/// Without what the server or the URL say: either may hold what is nobody's business.
fn unavailable(error: &RedisError) -> ReplayStoreError {
    ReplayStoreError::Unavailable(error.category().into())
}
