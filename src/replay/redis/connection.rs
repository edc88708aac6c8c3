//! One connection to Redis at a time. It is dropped when it is unusable, and replaced at a limited
//! rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    RedisConnectionInfo, RedisError,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::replay::error::ReplayStoreError;

/// How long connecting may take. A call does not wait that long, but later calls benefit.
const CONNECTING: Duration = Duration::from_secs(5);
/// The pause before the next attempt after a connection that never worked.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes connections, and holds the current one.
pub(super) struct Connector {
    client: Client,
    login: RedisConnectionInfo,
    link: Mutex<Option<Arc<Link>>>,
    eviction: Mutex<Option<EvictionPolicy>>,
}

/// A connection, or an attempt to make one.
struct Link {
    began: Instant,
    outcome: watch::Receiver<Option<Result<MultiplexedConnection, ReplayStoreError>>>,
    /// Whether the server has successfully executed a command.
    worked: AtomicBool,
    /// Why the connection must not be used any more.
    left: OnceLock<ReplayStoreError>,
}

/// Whether the server removes keys before they expire.
#[derive(Clone, PartialEq, Eq)]
enum EvictionPolicy {
    Keeps,
    Evicts(String),
    /// Holds the code of the server's error.
    Unreadable(String),
}

impl Connector {
    pub(super) fn new(server: ConnectionInfo) -> Self {
        let login = server.redis_settings().clone();
        // Without the login: `connect` logs in itself, because the client discards the server's
        // error code.
        let server = server.set_redis_settings(RedisConnectionInfo::default());
        Self {
            client: Client::open(server).expect("it is parsed already"),
            login,
            link: Mutex::default(),
            eviction: Mutex::default(),
        }
    }

    /// Sends `command`. If a connection that has worked turns out to be unusable, sends the command
    /// again on a new one. That happens, for example, if the server has closed the connection or
    /// has become a replica, or if the runtime that made the connection has ended. Each wait is
    /// limited by `patience`.
    pub(super) async fn query<T: FromRedisValue>(
        self: &Arc<Self>,
        name: &'static str,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, ReplayStoreError> {
        if Handle::try_current().is_err() {
            return Err(unavailable(
                "it needs a Tokio runtime, and is polled outside one",
            ));
        }
        let link = self.link();
        let worked = link.worked.load(Ordering::Relaxed);
        match link.query(name, command, patience).await {
            Err(Failed::Elsewhere(_)) if worked => self.link().query(name, command, patience).await,
            result => result,
        }
        .map_err(Failed::into_error)
    }

    fn link(self: &Arc<Self>) -> Arc<Link> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match &*link {
            Some(link) if !link.is_to_be_replaced() => Arc::clone(link),
            _ => Arc::clone(link.insert(Arc::new(self.begin()))),
        }
    }

    /// Connects in a separate task, so that a caller that gives up does not end what others wait
    /// for.
    fn begin(self: &Arc<Self>) -> Link {
        let (outcome, received) = watch::channel(None);
        let connector = Arc::clone(self);
        tokio::spawn(async move {
            let connected = timeout(CONNECTING, connector.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(unavailable("connecting timed out")));
            outcome.send_replace(Some(connected));
        });
        Link {
            began: Instant::now(),
            outcome: received,
            worked: AtomicBool::new(false),
            left: OnceLock::new(),
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, ReplayStoreError> {
        #[cfg(feature = "redis-tls")]
        provide_cryptography();
        // The limits are set here: `CONNECTING`, and the patience of each call.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting
            .await
            .map_err(|error| explain("CONNECT", &error))?;
        if let Some(password) = self.login.password() {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = self.login.username() {
                auth.arg(user);
            }
            let done = auth.arg(password).exec_async(&mut connection).await;
            done.map_err(|error| explain("AUTH", &error))?;
        }
        if self.login.db() != 0 {
            let mut select = redis::cmd("SELECT");
            let done = select
                .arg(self.login.db())
                .exec_async(&mut connection)
                .await;
            done.map_err(|error| explain("SELECT", &error))?;
        }
        self.check_policy(&mut connection).await?;
        Ok(connection)
    }

    /// Logs, once for each new state, that the server may remove keys or does not reveal its
    /// policy.
    async fn check_policy(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), ReplayStoreError> {
        const NAME: &str = "maxmemory-policy";
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(NAME);
        let read: Result<HashMap<String, String>, _> = command.query_async(connection).await;
        let policy = match read.map(|mut settings| settings.remove(NAME)) {
            Ok(Some(policy)) if policy == "noeviction" => EvictionPolicy::Keeps,
            Ok(Some(policy)) => EvictionPolicy::Evicts(policy),
            Ok(None) => EvictionPolicy::Unreadable("nothing".into()),
            Err(error) => match explain("CONFIG", &error) {
                ReplayStoreError::Server { code, .. } if code != "NOAUTH" => {
                    EvictionPolicy::Unreadable(code)
                }
                error => return Err(error),
            },
        };
        let mut known = self.eviction.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&policy) {
            match &policy {
                EvictionPolicy::Keeps => {}
                EvictionPolicy::Evicts(policy) => tracing::error!(
                    policy,
                    "Redis may remove keys of the replay guard, and then replays are accepted: \
                     set maxmemory-policy to noeviction"
                ),
                EvictionPolicy::Unreadable(response) => tracing::warn!(
                    response,
                    "cannot read maxmemory-policy from Redis: make sure that it is noeviction, \
                     or keys of the replay guard are removed and replays accepted"
                ),
            }
            *known = Some(policy);
        }
        Ok(())
    }
}

/// Installs a provider of cryptography for TLS, unless the program has one. Without a provider, or
/// with two to choose from, the client panics.
#[cfg(feature = "redis-tls")]
fn provide_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};
    if CryptoProvider::get_default().is_none() {
        // Another thread may have installed one first, which is fine.
        let _ = ring::default_provider().install_default();
    }
}

/// Why a command has no result.
enum Failed {
    /// Another connection may succeed.
    Elsewhere(ReplayStoreError),
    Here(ReplayStoreError),
}

impl Failed {
    fn into_error(self) -> ReplayStoreError {
        match self {
            Self::Elsewhere(error) | Self::Here(error) => error,
        }
    }
}

impl Link {
    async fn query<T: FromRedisValue>(
        &self,
        name: &'static str,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, Failed> {
        let mut connection = self.connection(patience).await.map_err(Failed::Here)?;
        let Ok(response) = timeout(patience, command.query_async(&mut connection)).await else {
            // The connection may be dead. A server that disappears from the network closes nothing.
            let error = format!("no response within {patience:?}");
            return Err(Failed::Here(
                self.leave(ReplayStoreError::Unavailable(error)),
            ));
        };
        let error = match response {
            Ok(response) => {
                self.worked.store(true, Ordering::Relaxed);
                return Ok(response);
            }
            Err(error) => error,
        };
        let failed = explain(name, &error);
        Err(match failed.code() {
            // The server cannot accept writes. After a failover the old primary is a replica, and
            // the name in the URL resolves to the new primary.
            Some("READONLY" | "LOADING" | "MASTERDOWN") => Failed::Elsewhere(self.leave(failed)),
            Some(_) => {
                self.worked.store(true, Ordering::Relaxed);
                Failed::Here(failed)
            }
            // If the command was executed after all, the second attempt finds the signature
            // recorded and rejects the request, which is safe.
            None if error.is_connection_dropped() => Failed::Elsewhere(self.leave(failed)),
            None => Failed::Here(self.leave(failed)),
        })
    }

    async fn connection(
        &self,
        patience: Duration,
    ) -> Result<MultiplexedConnection, ReplayStoreError> {
        if let Some(error) = self.left.get() {
            return Err(error.clone());
        }
        let mut outcome = self.outcome.clone();
        match timeout(patience, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().expect("waited for"),
            Ok(Err(_)) => Err(unavailable("its runtime ended while it was connecting")),
            Err(_) => {
                let error = format!("no connection within {patience:?}");
                Err(ReplayStoreError::Unavailable(error))
            }
        }
    }

    fn leave(&self, error: ReplayStoreError) -> ReplayStoreError {
        self.left.get_or_init(|| error.clone());
        error
    }

    fn is_to_be_replaced(&self) -> bool {
        let connected = self.outcome.borrow().as_ref().map(Result::is_ok);
        // The task is gone without an outcome, because its runtime has ended.
        let orphaned = connected.is_none() && self.outcome.has_changed().is_err();
        // The task has not run for too long: its runtime exists, but nothing drives it.
        let stuck = connected.is_none() && self.began.elapsed() > 2 * CONNECTING;
        let over = stuck || connected == Some(false) || self.left.get().is_some();
        let worked = self.worked.load(Ordering::Relaxed);
        orphaned || over && (worked || self.began.elapsed() >= PAUSE)
    }
}

/// Describes what went wrong without text from the server or the URL, because either may contain a
/// secret.
fn explain(command: &'static str, error: &RedisError) -> ReplayStoreError {
    if let Some(code) = error.code() {
        let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let code = if code.len() <= 32 && code.bytes().all(is_code) {
            code
        } else {
            "ERR"
        };
        return ReplayStoreError::Server {
            command,
            code: code.to_owned(),
        };
    }
    unavailable(match error.kind() {
        _ if error.is_connection_refusal() => "connection refused",
        _ if error.is_timeout() => "connecting timed out",
        _ if error.is_connection_dropped() => "connection lost",
        // The text is used to tell the cause, but is not included.
        _ if error.to_string().contains("certificate") => {
            "TLS certificate not accepted: let the system trust its authority, or set SSL_CERT_FILE"
        }
        ErrorKind::Io => "the host cannot be resolved or reached",
        ErrorKind::Parse => "it does not speak Redis",
        _ => error.category(),
    })
}

fn unavailable(why: &str) -> ReplayStoreError {
    ReplayStoreError::Unavailable(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers and runtimes that fail are tested in `tests/replay_redis.rs`. This test covers what
    /// takes long.
    #[test]
    fn an_attempt_is_replaced_if_its_task_is_stuck_and_a_failure_after_a_pause() {
        let failed = || Some(Err(unavailable("test")));
        for (seconds_ago, outcome, ended, replaced) in [
            // Connecting.
            (0, None, false, false),
            (9, None, false, false),
            (11, None, false, true),
            (0, None, true, true),
            // Not connected.
            (0, failed(), true, false),
            (0, failed(), false, false),
            (1, failed(), true, true),
        ] {
            let (sender, outcome) = watch::channel(outcome);
            let sender = Some(sender).filter(|_| !ended);
            let link = Link {
                began: Instant::now()
                    .checked_sub(Duration::from_secs(seconds_ago))
                    .unwrap(),
                outcome,
                worked: AtomicBool::new(false),
                left: OnceLock::new(),
            };
            let what = format!(
                "{seconds_ago} s ago, connected: {:?}",
                link.outcome.borrow().is_some()
            );
            assert_eq!(link.is_to_be_replaced(), replaced, "{what}, ended: {ended}");
            drop(sender);
        }
    }
}
