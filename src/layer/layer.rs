//! What a user builds: the layer, which is its own builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum_core::response::Response;
use tower_layer::Layer;

use super::body::{Budget, Limits};
use super::policy::{Guard, Stance};
use super::rejection::Rejection;
use super::service::InngestAuthService;
use super::sign::SignResponses;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, Mode};
use crate::keyring::KeyRing;
use crate::replay::{self, ReplayStore};
use crate::verify::Tolerance;

/// The layer that lets in Inngest and nobody else. See the [crate's front page](crate) for the order of work.
///
/// ```
/// # use axum::{Router, routing::any};
/// # use inngest_auth::InngestAuth;
/// # async fn inngest_handler() {}
/// let app: Router = Router::new().route("/api/inngest", any(inngest_handler).layer(InngestAuth::from_env()));
/// ```
///
/// Clones share the keys and the body budget. It takes no permit and no readiness of what it stands before
/// until a request is verified. Needs a Tokio runtime with its timer on, as `#[tokio::main]` gives.
#[derive(Clone)]
#[must_use]
pub struct InngestAuth(Arc<Guard>);

impl InngestAuth {
    /// Configured by the environment ([`Config`] has the variables). Always a layer: where the configuration
    /// cannot be used, an ERROR says now what to set, and every request is refused (500).
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| {
            tracing::error!("inngest-auth refuses every request: {error}");
            Self::with(Stance::Refuse(error))
        })
    }

    /// Configured by the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says what to set.
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| Self::from_config(&config))
    }

    /// Shares the configuration's [`KeyRing`] with all else that is built from it.
    pub fn from_config(config: &Config) -> Self {
        match config.mode() {
            Mode::Cloud(keys) => Self::new(keys.clone()).insecure_unsigned_sync(config.insecure_unsigned_sync()),
            Mode::Dev { key_set } => Self::dev(*key_set),
            Mode::Unusable(error) => Self::with(Stance::Refuse(*error)),
        }
    }

    /// Verifies with these keys, whatever the environment says.
    pub fn new(keys: impl Into<KeyRing>) -> Self {
        let ring = keys.into();
        let keys = ring.snapshot();
        tracing::info!(
            mode = "cloud",
            current = ?keys.current(),
            fallback = ?keys.fallback(),
            "inngest-auth verifies every request; off unless turned on: unauthenticated sync, replay guard"
        );
        Self::with(Stance::Verify(ring))
    }

    /// Verifies **nothing**: every request passes, marked [`Caller::Dev`](crate::Caller::Dev). What
    /// `INNGEST_DEV=1` chooses.
    pub fn unverified_dev() -> Self {
        Self::dev(false)
    }

    fn dev(key_set: bool) -> Self {
        tracing::warn!(
            mode = "dev",
            "inngest-auth verifies NOTHING: anybody who reaches this service can run its functions. \
             Unset INNGEST_DEV in production"
        );
        Self::with(Stance::Dev { key_set })
    }

    fn with(stance: Stance) -> Self {
        Self(Arc::new(Guard {
            stance,
            tolerance: Tolerance::default(),
            body: Limits {
                len: 8 * 1024 * 1024,
                time: Duration::from_secs(30),
            },
            budget: Arc::new(Budget::new(256 * 1024 * 1024)),
            insecure_unsigned_sync: false,
            sign_responses: SignResponses::default(),
            replay: None,
            replay_skew: 60,
            replay_fails_open: false,
            clock: Arc::new(SystemClock),
            on_rejection: None,
        }))
    }

    fn set(mut self, change: impl FnOnce(&mut Guard)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The ring that requests are verified with: rotate it, and the next request follows. `None` where nothing
    /// is verified.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.0.stance {
            Stance::Verify(keys) => Some(keys),
            Stance::Dev { .. } | Stance::Refuse(_) => None,
        }
    }

    /// How far a signature's time may lie from ours, either way: whole seconds, 1 s to 1 h (cut to that), 300 s
    /// unless set.
    pub fn tolerance(self, tolerance: impl Into<Tolerance>) -> Self {
        self.set(|guard| guard.tolerance = tolerance.into())
    }

    /// Longest body, in bytes: 8 MiB unless set. Inngest's own limit is 4 MiB. Over it: 413.
    pub fn body_limit(self, bytes: usize) -> Self {
        self.set(|guard| guard.body.len = bytes)
    }

    /// How long a body may take from its first byte to its last: 30 s unless set. Over it: 408.
    pub fn body_deadline(self, deadline: Duration) -> Self {
        self.set(|guard| guard.body.time = deadline)
    }

    /// Bytes that all bodies not yet verified may hold together: 256 MiB unless set. Over it: 503 and `Retry-After`.
    pub fn body_budget(self, bytes: usize) -> Self {
        self.set(|guard| guard.budget = Arc::new(Budget::new(bytes)))
    }

    /// Lets an unsigned `PUT` pass whose query names no function, step or probe: the sync that the UI of a
    /// self-hosted server asks for. Off unless set. The handler gets an empty body and no
    /// `X-Inngest-Sync-Kind`, and sees [`Caller::UnsignedSync`](crate::Caller::UnsignedSync).
    pub fn insecure_unsigned_sync(self, allow: bool) -> Self {
        if allow {
            tracing::warn!("inngest-auth lets anybody ask for a sync (unsigned PUT)");
        }
        self.set(|guard| guard.insecure_unsigned_sync = allow)
    }

    /// Sets which responses to verified requests are signed (default: [`SignResponses::Required`]).
    ///
    /// A response is signed with the key that verified the request and the request's own `t`. Only a 2xx response of
    /// exactly known size, up to 8 MiB, is buffered for it. Streams, empty responses (also to `HEAD`), responses with
    /// trailers, a `Content-Encoding` or a signature of the handler's own, and responses later than the tolerance stay
    /// unsigned. A response that breaks while it is buffered becomes a 500.
    ///
    /// A layer inside that compresses hides the bytes to be signed: put compression outside of this one.
    pub fn sign_responses(self, sign: SignResponses) -> Self {
        self.set(|guard| guard.sign_responses = sign)
    }

    /// Accepts each signature once, by what `store` remembers. Off unless set. See [`replay`](crate::replay) before
    /// turning it on.
    pub fn replay_guard(self, store: impl ReplayStore) -> Self {
        self.set(|guard| guard.replay = Some(replay::Guard::new(store)))
    }

    /// For how much longer than the tolerance the replay guard remembers a signature: 60 s unless set, whole seconds. As
    /// far as the clocks of instances that share a store may differ.
    pub fn replay_skew(self, skew: Duration) -> Self {
        self.set(|guard| guard.replay_skew = skew.as_secs())
    }

    /// Lets calls pass that the replay guard cannot judge, because its store is down or full: **replays too**. Off
    /// unless set: 503.
    pub fn insecure_replay_fail_open(self, fail_open: bool) -> Self {
        self.set(|guard| guard.replay_fails_open = fail_open)
    }

    /// Where the time comes from: the system unless set. For tests.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set(|guard| guard.clock = Arc::new(clock))
    }

    /// Changes what a refused sender sees. The closure starts from the default answer.
    ///
    /// Body, headers and another 4xx or 5xx are its choice. Any other status becomes the kind's own, and
    /// `X-Inngest-No-Retry`, `Location` and `X-Inngest-Signature` are removed: a refusal is neither a completed
    /// run nor the end of one. The [`Rejection`] stands in the response's extensions whatever it returns.
    pub fn on_rejection(self, answer: impl Fn(&Rejection, Response) -> Response + Send + Sync + 'static) -> Self {
        self.set(|guard| guard.on_rejection = Some(Arc::new(answer)))
    }
}

impl<S> Layer<S> for InngestAuth {
    type Service = InngestAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InngestAuthService::new(inner, Arc::clone(&self.0))
    }
}

impl fmt::Debug for InngestAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
