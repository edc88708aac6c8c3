//! What a user builds: the layer, which is its own builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum_core::BoxError;
use axum_core::body::Body;
use axum_core::response::Response;
use bytes::Bytes;
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::body::backlog::Backlog;
use super::body::budget::Budget;
use super::policy::Policy;
use super::service::InngestAuthService;
use super::sign::SignResponses;
use super::start;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Mode};
use crate::keyring::KeyRing;
use crate::rejection::Rejection;
use crate::replay::{self, ReplayStore};
use crate::verifier::Verifier;
use crate::verify::Tolerance;

/// A layer that lets in Inngest and nobody else.
///
/// ```
/// # use axum::{Router, routing::any};
/// # use inngest_auth::InngestAuth;
/// # async fn inngest_handler() {}
/// let app: Router =
///     Router::new().route("/api/inngest", any(inngest_handler).layer(InngestAuth::from_env()));
/// ```
///
/// Clones share the keys and the body budget.
///
/// # Runtime
///
/// The layer needs a Tokio runtime with its timer enabled, as `#[tokio::main]` provides: the timer
/// limits how long a body is waited for. Outside a runtime, a request whose body is not there at once
/// is rejected \[500\], and an ERROR in the log says why. In a runtime that was built without
/// `enable_time` or `enable_all`, Tokio panics at such a body (`timers are disabled`): that cannot be
/// found out beforehand.
///
/// # Steps
///
/// A request takes these steps in this order. What fails is rejected with the status in brackets.
///
/// 1. In dev mode the request is forwarded untouched, marked [`Caller::Dev`](crate::Caller::Dev).
///    This is decided before keys are parsed.
/// 2. There must be a usable key \[500\]. No HMAC is ever made with an empty key.
/// 3. There must be exactly one `X-Inngest-Signature` \[401\]. An empty one counts as missing. The
///    one exception, where [`insecure_unsigned_sync`](Self::insecure_unsigned_sync) was chosen: an
///    unsigned `PUT` whose query has no `fnId`, `stepId` or `probe` is forwarded with an empty body,
///    marked [`Caller::UnsignedSync`](crate::Caller::UnsignedSync).
/// 4. The header must follow the grammar `t=…&s=…`: `t` ten digits, `s` 64 hex digits, each once
///    \[401\]. See [`Signature::parse`](crate::Signature::parse).
/// 5. `t` must lie within the [tolerance](Self::tolerance) of the clock, in the past and in the
///    future \[401\]. A clock that cannot tell the time rejects \[500\].
/// 6. `Content-Length` must not be over the [limit](Self::body_limit) \[413\]. A smaller one is not
///    believed: nothing is allocated by it.
/// 7. The body is read under a size limit \[413\], a [deadline](Self::body_deadline) \[408\] and a
///    [memory budget](Self::body_budget) that all unverified bodies share: when it is used up, the
///    oldest that waits for its sender makes room \[503\]. The HMAC runs along. Trailers are dropped:
///    nobody signed them.
/// 8. The MAC is compared in constant time over the raw bytes: with the current key, then with the
///    fallback key.
/// 9. If neither matches and the body is JSON of at most 64 KiB, the MAC is compared over its
///    canonical form (RFC 8785). If that matches, the handler gets the canonical form \[401 if
///    nothing matched\].
/// 10. The time is checked again, so that a slow body does not outlive the window. A
///     [replay guard](crate::replay), if one is set, records the signature and rejects one that was
///     accepted before \[401\]; if its store cannot tell, it rejects \[503\]. Then the time is
///     checked once more, so that a slow store does not outlive the window either.
/// 11. A verified trust probe (`POST ?probe=trust`) gets its response: 200 and `{}`.
/// 12. Only now does the inner service exist for this request: until here a stranger held nothing of
///     it, no permit and no readiness. The request's extensions hold
///     [`Caller`](crate::Caller) and [`Verified`](crate::Verified). Its `Content-Length` is right,
///     and `Transfer-Encoding`, `Trailer` and digests of what was sent are removed.
/// 13. The response is signed if Inngest requires it ([`sign_responses`](Self::sign_responses)),
///     with the key that verified the request and the request's own `t`.
///
/// A rejection tells its sender a status and no reason. The reason is in the log, and as
/// [`Rejection`] in the response's extensions, where any outer layer can count it. Other responses
/// carry `Caller`, and `Verified` if the request was.
#[derive(Clone)]
#[must_use]
pub struct InngestAuth(Arc<Policy>);

impl InngestAuth {
    /// Configures the layer from the environment ([`Config`] lists the variables).
    ///
    /// Always returns a layer. If the configuration cannot be used, an ERROR says now what to set, and
    /// every request is rejected with 500.
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| Self::with(Mode::Unusable(error)))
    }

    /// Configures the layer from the environment.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that says what to set.
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| Self::from_config(&config))
    }

    /// Configures the layer from a [`Config`], and shares its [`KeyRing`] with everything else that is built from it.
    pub fn from_config(config: &Config) -> Self {
        match config.mode() {
            Mode::Cloud(keys) => {
                Self::new(keys).insecure_unsigned_sync(config.insecure_unsigned_sync())
            }
            Mode::Dev { key_set } => Self::with(Mode::Dev { key_set }),
            Mode::Unusable(error) => Self::with(Mode::Unusable(error)),
        }
    }

    /// Verifies with these keys, whatever the environment says.
    pub fn new(keys: impl Into<KeyRing>) -> Self {
        Self::with(Mode::Cloud(Verifier::new(keys)))
    }

    /// Verifies **nothing**: forwards every request, marked [`Caller::Dev`](crate::Caller::Dev). `INNGEST_DEV=1` chooses
    /// the same.
    pub fn unverified_dev() -> Self {
        Self::with(Mode::Dev { key_set: false })
    }

    fn with(mode: Mode<Verifier>) -> Self {
        start::built(&mode);
        Self(Arc::new(Policy {
            mode,
            body_limit: 8 * 1024 * 1024,
            body_deadline: Duration::from_secs(30),
            budget: Arc::new(Budget::new(256 * 1024 * 1024)),
            backlog: Arc::new(Backlog::new(256 * 1024 * 1024)),
            insecure_unsigned_sync: false,
            sign_responses: SignResponses::default(),
            replay: None,
            replay_skew: 60,
            replay_fails_open: false,
            on_rejection: None,
            log: Arc::default(),
        }))
    }

    fn set(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        let policy = Arc::make_mut(&mut self.0);
        change(policy);
        // Another layer, whose settings are to be logged, and whose lines are its own.
        policy.log = Arc::default();
        self
    }

    fn set_verifier(self, change: impl FnOnce(Verifier) -> Verifier) -> Self {
        self.set(|policy| {
            if let Mode::Cloud(verifier) = &mut policy.mode {
                *verifier = change(verifier.clone());
            }
        })
    }

    /// Returns the ring that requests are verified with, or `None` if nothing is verified. Rotate it, and the next
    /// request follows.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.0.mode {
            Mode::Cloud(verifier) => Some(verifier.keys()),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Returns what this layer does with requests, for a readiness probe.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.0.mode {
            Mode::Cloud(_) => Status::Verifying,
            Mode::Dev { .. } => Status::Dev,
            Mode::Unusable(error) => Status::Unusable(*error),
        }
    }

    /// Sets how far a signature's time may lie from the clock, in the past and in the future: 1 s to 1 h (default:
    /// 5 min).
    pub fn tolerance(self, tolerance: impl Into<Tolerance>) -> Self {
        self.set_verifier(|verifier| verifier.tolerance(tolerance))
    }

    /// Sets the maximum body size in bytes (default: 8 MiB). Larger requests are rejected with 413. Inngest's own limit
    /// is 4 MiB.
    pub fn body_limit(self, bytes: usize) -> Self {
        self.set(|policy| policy.body_limit = bytes)
            .set_verifier(|verifier| verifier.body_limit(bytes))
    }

    /// Sets how long a body may take from its first byte to its last (default: 30 s). Slower requests are rejected with
    /// 408.
    pub fn body_deadline(self, deadline: Duration) -> Self {
        self.set(|policy| policy.body_deadline = deadline)
    }

    /// Sets how many bytes all bodies not yet verified may hold together (default: 256 MiB). If that
    /// is reached, the oldest body that waits for its sender makes room: its request is rejected
    /// with 503. A body that arrives in one frame, as small ones do, holds none.
    pub fn body_budget(self, bytes: usize) -> Self {
        self.set(|policy| policy.budget = Arc::new(Budget::new(bytes)))
    }

    /// Sets how many bytes all verified bodies of more than 64 KiB may hold together until their
    /// handlers read them: while they wait for a replay store, or in the queue of a concurrency
    /// limit (default: 256 MiB). Beyond it, requests are rejected with 503, and Inngest retries them
    /// later.
    pub fn verified_backlog(self, bytes: usize) -> Self {
        self.set(|policy| policy.backlog = Arc::new(Backlog::new(bytes)))
    }

    /// Forwards unsigned `PUT` requests whose query names no function, step or probe: the sync that the UI of a
    /// self-hosted server asks for (default: `false`).
    ///
    /// The handler gets an empty body and no `X-Inngest-Sync-Kind`, and sees
    /// [`Caller::UnsignedSync`](crate::Caller::UnsignedSync).
    pub fn insecure_unsigned_sync(self, allow: bool) -> Self {
        self.set(|policy| policy.insecure_unsigned_sync = allow)
    }

    /// Sets which responses to verified requests are signed (default: [`SignResponses::Required`]).
    ///
    /// A response is signed with the key that verified the request and the request's own `t`. Only a 2xx response of
    /// exactly known size, up to 8 MiB, is buffered for it. Streams, empty responses (also to `HEAD`), responses with
    /// trailers, a `Content-Encoding` or a signature of the handler's own, and responses later than the tolerance stay
    /// unsigned. A response that breaks while it is buffered becomes a 500.
    ///
    /// A layer inside that compresses hides the bytes to be signed: put compression outside this one.
    pub fn sign_responses(self, sign: SignResponses) -> Self {
        self.set(|policy| policy.sign_responses = sign)
    }

    /// Accepts each signature once, by what `store` remembers (default: no guard). Read [`replay`](crate::replay) before
    /// turning it on.
    pub fn replay_guard(self, store: impl ReplayStore) -> Self {
        self.set(|policy| policy.replay = Some(replay::Guard::new(store)))
    }

    /// Sets for how much longer than the tolerance the replay guard remembers a signature, in whole seconds (default:
    /// 60 s, at most a day): as far as the clocks of instances that share a store may differ.
    pub fn replay_skew(self, skew: Duration) -> Self {
        // A store refuses a lifetime that is no time.
        self.set(|policy| policy.replay_skew = skew.as_secs().min(24 * 60 * 60))
    }

    /// Admits requests that the replay guard cannot check, because its store is down or full: **replays too** (default:
    /// `false`, which rejects them with 503).
    pub fn insecure_replay_fail_open(self, fail_open: bool) -> Self {
        self.set(|policy| policy.replay_fails_open = fail_open)
    }

    /// Sets the clock (default: the system's). For tests.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set_verifier(|verifier| verifier.clock(clock))
    }

    /// Changes what the sender of a rejected request sees. The closure starts from the default response.
    ///
    /// It chooses the body, headers and another 4xx or 5xx status. Any other status becomes the kind's own, and
    /// `X-Inngest-No-Retry`, `Retry-After`, `Location` and `X-Inngest-Signature` are removed: a rejection is neither a
    /// completed run nor the end of one, and Inngest retries with its own back-off. The [`Rejection`] is in the
    /// response's extensions whatever the closure returns.
    pub fn on_rejection(
        self,
        respond: impl Fn(&Rejection, Response) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.set(|policy| policy.on_rejection = Some(Arc::new(respond)))
    }
}

/// What an [`InngestAuth`] does with requests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Requests are verified.
    Verifying,
    /// Nothing is verified: dev mode.
    Dev,
    /// Every request is rejected with 500: the configuration cannot be used.
    Unusable(ConfigError),
}

impl Status {
    /// Returns `true` if the layer can admit a request.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !matches!(self, Self::Unusable(_))
    }
}

/// The bounds on the inner service are those of every layer whose future is boxed. They are here so that one that is
/// missing is reported where the layer is added.
impl<S, R> Layer<S> for InngestAuth
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Service = InngestAuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        start::used(&self.0);
        InngestAuthService::new(inner, Arc::clone(&self.0))
    }
}

impl fmt::Debug for InngestAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
