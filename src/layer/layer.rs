//! The layer that users build. It is its own builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum_core::BoxError;
use axum_core::body::Body;
use axum_core::response::Response;
use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;
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
use crate::verifier::{BODY_LIMIT, Verifier};
use crate::verify::Tolerance;

/// A layer that admits requests from Inngest only.
///
/// ```
/// # use axum::{Router, routing::any};
/// # use inngest_auth::InngestAuth;
/// # async fn inngest_handler() {}
/// let inngest = any(inngest_handler).layer(InngestAuth::from_env());
/// let app: Router = Router::new().route("/api/inngest", inngest);
/// ```
///
/// Clones share the keys and the body budget.
///
/// # Runtime
///
/// The layer needs a Tokio runtime with its timer enabled, as `#[tokio::main]` provides, because
/// the timer limits how long it waits for a body. Outside a runtime, a request whose body has not
/// arrived yet is rejected with \[500\], and an ERROR in the log says why. In a runtime built
/// without `enable_time` or `enable_all`, Tokio panics (`timers are disabled`) when a body has not
/// arrived yet. The layer cannot detect such a runtime beforehand.
///
/// # Steps
///
/// The layer takes these steps for each request, in this order. If a step fails, the request is
/// rejected with the status in brackets.
///
/// 1. In dev mode, forward the request unchanged, marked [`Caller::Dev`](crate::Caller::Dev). Dev
///    mode is decided before keys are parsed.
/// 2. Require a usable key \[500\]. The layer never computes an HMAC with an empty key.
/// 3. Require exactly one `X-Inngest-Signature` header \[401\]. An empty one counts as missing.
///    There is one exception: if [`insecure_unsigned_sync`](Self::insecure_unsigned_sync) is set,
///    an unsigned sync is forwarded. That setting lists the conditions. The body is emptied, and
///    the request is marked [`Caller::UnsignedSync`](crate::Caller::UnsignedSync).
/// 4. Parse the header by its grammar, `t=…&s=…`, where `t` is ten digits and `s` is 64 hex digits,
///    each present once \[401\]. See [`Signature::parse`](crate::Signature::parse).
/// 5. Require `t` to be within the [tolerance](Self::tolerance) of the clock, in the past and in
///    the future \[401\]. If the clock cannot tell the time, reject with \[500\].
/// 6. Reject a `Content-Length` over the [limit](Self::body_limit) \[413\]. A value within the
///    limit is not trusted either: the layer allocates memory only for bytes that arrive.
/// 7. Read the body under the size limit \[413\], a [deadline](Self::body_deadline) \[408\] and a
///    [memory budget](Self::body_budget) that all unverified bodies share. If a body does not fit,
///    the oldest body that is waiting for its client is rejected to make room, or the new one if
///    that would not make enough \[503\]. Requests with more than 64 headers are rejected first.
///    The HMAC is computed as frames arrive. Trailers are dropped, because the signature does not
///    cover them.
/// 8. Compare the MAC over the raw bytes in constant time: with the current key, then with the
///    fallback key.
/// 9. If neither matches and the body is JSON of at most 64 KiB, compare the MAC over its canonical
///    form (RFC 8785). If that matches, the handler receives the canonical form. If nothing
///    matches, reject \[401\].
/// 10. Check the time again, so that a slow body does not outlive the window. If a [replay
///     guard](crate::replay) is set, record the signature. Reject the request if the signature was
///     already accepted \[401\], except for trust probes and introspection (`GET` or `HEAD`), which
///     run no function. Reject it, with the same exceptions, if the store cannot tell \[503\],
///     unless [`insecure_replay_fail_open`](Self::insecure_replay_fail_open) is set. Then check the
///     time again, so that a slow store does not outlive the window either.
/// 11. Respond to a verified trust probe (`POST ?probe=trust`) with 200 and `{}`.
/// 12. Call the inner service. Nothing before this step uses it, so an unverified request never
///     reserves its readiness (`poll_ready`) or takes one of its permits. The request's extensions
///     contain [`Caller`](crate::Caller) and [`Verified`](crate::Verified). `Content-Length` is
///     corrected, and `Transfer-Encoding`, `Trailer` and digests of the received body are removed.
/// 13. Sign the response if Inngest requires it ([`sign_responses`](Self::sign_responses)), with
///     the key that verified the request and the request's own `t`.
///
/// A rejection tells the client a status, but no reason, except which variable to set if there is
/// no usable configuration. The reason is in the log, and in the response's extensions as a
/// [`Rejection`], where an outer layer can count it. Responses of the inner service have `Caller`
/// in their extensions, and `Verified` if the request was verified.
#[derive(Clone)]
#[must_use]
pub struct InngestAuth(Arc<Policy>);

impl InngestAuth {
    /// Creates the layer from environment variables. [`Config`] lists them.
    ///
    /// Always returns a layer. If the configuration cannot be used, it logs an ERROR at once that
    /// says what to set, and rejects every request with 500.
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| Self::with(Mode::Unusable(error)))
    }

    /// Creates the layer from environment variables, or returns the error.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] that says what to set.
    ///
    /// ```no_run
    /// use inngest_auth::{ConfigError, InngestAuth};
    ///
    /// fn main() -> Result<(), ConfigError> {
    ///     // Stops the program, with a message that says what to set.
    ///     let auth = InngestAuth::try_from_env()?;
    ///     # let _ = auth;
    ///     Ok(())
    /// }
    /// ```
    pub fn try_from_env() -> Result<Self, ConfigError> {
        Config::from_env().map(|config| Self::from_config(&config))
    }

    /// Creates the layer from a [`Config`]. The layer shares its [`KeyRing`] with everything else
    /// that is built from the same `Config`.
    ///
    /// ```
    /// use inngest_auth::{Config, InngestApiAuth, InngestAuth};
    ///
    /// let config = Config::from_vars([("INNGEST_SIGNING_KEY", "signkey-test-12345678")])?;
    /// let inbound = InngestAuth::from_config(&config);
    /// let outbound = InngestApiAuth::from_config(&config);
    /// assert!(inbound.status().is_ready());
    /// assert!(outbound.keys().is_some());
    /// # Ok::<(), inngest_auth::ConfigError>(())
    /// ```
    pub fn from_config(config: &Config) -> Self {
        match config.mode() {
            Mode::Cloud(keys) => {
                Self::new(keys).insecure_unsigned_sync(config.insecure_unsigned_sync())
            }
            Mode::Dev { key_set } => Self::with(Mode::Dev { key_set }),
            Mode::Unusable(error) => Self::with(Mode::Unusable(error)),
        }
    }

    /// Creates a layer that verifies requests with these keys. It does not read environment
    /// variables.
    ///
    /// ```
    /// use inngest_auth::{InngestAuth, KeyRing, SigningKey};
    ///
    /// let key: SigningKey = "signkey-test-12345678".parse()?;
    /// let ring = KeyRing::from(key);
    /// let auth = InngestAuth::new(ring.clone());
    /// // Keys can change while the layer is in use.
    /// ring.rotate("signkey-test-87654321".parse()?);
    /// # let keys = auth.keys().unwrap().snapshot();
    /// # assert_eq!(keys.fallback(), Some(&"signkey-test-12345678".parse()?));
    /// # Ok::<(), inngest_auth::KeyError>(())
    /// ```
    pub fn new(keys: impl Into<KeyRing>) -> Self {
        Self::with(Mode::Cloud(Verifier::new(keys)))
    }

    /// Creates a layer that verifies **nothing**. It forwards every request, marked
    /// [`Caller::Dev`](crate::Caller::Dev), as with `INNGEST_DEV=1`.
    pub fn insecure_unverified_dev() -> Self {
        Self::with(Mode::Dev { key_set: false })
    }

    fn with(mode: Mode<Verifier>) -> Self {
        start::built(&mode);
        Self(Arc::new(Policy {
            mode,
            body_limit: BODY_LIMIT,
            body_deadline: Duration::from_secs(30),
            budget: Arc::new(Budget::new(256 * 1024 * 1024)),
            backlog: Arc::new(Backlog::new(256 * 1024 * 1024)),
            canonicalizing: Arc::new(Semaphore::new(1)),
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
        // With other settings it is another layer: they must be logged, under rate limits of their
        // own.
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

    /// Returns the ring of keys that requests are verified with, or `None` if the layer does not
    /// verify requests. A change of the ring applies from the next request on.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.0.mode {
            Mode::Cloud(verifier) => Some(verifier.keys()),
            Mode::Dev { .. } | Mode::Unusable(_) => None,
        }
    }

    /// Returns what this layer does with requests, for a readiness probe.
    ///
    /// ```
    /// use axum::{Router, http::StatusCode, routing::get};
    /// use inngest_auth::{InngestAuth, Status};
    ///
    /// /// Kubernetes and similar platforms send no requests to an instance that is not ready.
    /// fn readiness(auth: &InngestAuth) -> Router {
    ///     let status = match auth.status() {
    ///         Status::Unusable(_) => StatusCode::SERVICE_UNAVAILABLE,
    ///         _ => StatusCode::OK,
    ///     };
    ///     Router::new().route("/readyz", get(move || async move { status }))
    /// }
    /// # let _ = readiness(&InngestAuth::insecure_unverified_dev());
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.0.mode {
            Mode::Cloud(_) => Status::Verifying,
            Mode::Dev { .. } => Status::Dev,
            Mode::Unusable(error) => Status::Unusable(*error),
        }
    }

    /// Sets how far a signature's time may differ from the clock, in the past and in the future: 1
    /// s to 1 h (default: 5 min).
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::any};
    /// use inngest_auth::{Rejection, RejectionKind, testing::TestInngest};
    /// # use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let inngest = TestInngest::new("signkey-test-12345678".parse()?);
    /// let auth = inngest.auth().tolerance(Duration::from_secs(60));
    /// let app = Router::new().route("/api/inngest", any(|| async {}).layer(auth));
    ///
    /// let late = inngest.call("/api/inngest", "{}");
    /// let response = app.clone().oneshot(inngest.call("/api/inngest", "{}")).await?;
    /// assert_eq!(response.status(), 200);
    ///
    /// // 61 seconds later:
    /// inngest.clock().set(Some(1_700_000_061));
    /// let response = app.oneshot(late).await?;
    /// assert_eq!(response.status(), 401);
    /// let rejection = response.extensions().get().map(Rejection::kind);
    /// assert_eq!(rejection, Some(RejectionKind::Stale));
    /// # Ok(())
    /// # }
    /// ```
    pub fn tolerance(self, tolerance: impl Into<Tolerance>) -> Self {
        self.set_verifier(|verifier| verifier.tolerance(tolerance))
    }

    /// Sets the maximum body size in bytes (default: 8 MiB). Larger requests are rejected with 413.
    /// Inngest's own limit is 4 MiB.
    ///
    /// ```
    /// use axum::{Router, routing::any};
    /// use inngest_auth::testing::TestInngest;
    /// # use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let inngest = TestInngest::new("signkey-test-12345678".parse()?);
    /// let auth = inngest.auth().body_limit(1024);
    /// let app = Router::new().fallback(any(|| async { "ran" })).layer(auth);
    ///
    /// let response = app.clone().oneshot(inngest.call("/", "x".repeat(1024))).await?;
    /// assert_eq!(response.status(), 200);
    /// let response = app.oneshot(inngest.call("/", "x".repeat(1025))).await?;
    /// assert_eq!(response.status(), 413);
    /// # Ok(())
    /// # }
    /// ```
    pub fn body_limit(self, bytes: usize) -> Self {
        self.set(|policy| policy.body_limit = bytes)
            .set_verifier(|verifier| verifier.body_limit(bytes))
    }

    /// Sets how long the rest of a body may take, from when the layer first has to wait for it
    /// (default: 30 s). Slower requests are rejected with 408.
    pub fn body_deadline(self, deadline: Duration) -> Self {
        self.set(|policy| policy.body_deadline = deadline)
    }

    /// Sets how many bytes all unverified bodies together may hold (default: 256 MiB).
    ///
    /// If a body does not fit, the oldest body that is waiting for its client is rejected with 503
    /// to make room, or the new one if that would not make enough. Requests with more than 64
    /// headers are rejected first. A body that arrives in one frame, as small ones do, holds
    /// nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use inngest_auth::InngestAuth;
    ///
    /// // For a service with little memory: bodies of at most 5 MiB, which together hold at most
    /// // 64 MiB before they are verified and 64 MiB after, and which must arrive within 10 s.
    /// let auth = InngestAuth::from_env()
    ///     .body_limit(5 * 1024 * 1024)
    ///     .body_budget(64 * 1024 * 1024)
    ///     .verified_backlog(64 * 1024 * 1024)
    ///     .body_deadline(Duration::from_secs(10));
    /// # let _ = auth;
    /// ```
    pub fn body_budget(self, bytes: usize) -> Self {
        self.set(|policy| policy.budget = Arc::new(Budget::new(bytes)))
    }

    /// Sets how many bytes all verified bodies together may hold until their handlers read them
    /// (default: 256 MiB).
    ///
    /// Such bodies wait for a replay store, or in the queue of a concurrency limit. Bodies of up to
    /// 64 KiB are not counted. Above the limit, requests are rejected with 503, and Inngest retries
    /// them later.
    pub fn verified_backlog(self, bytes: usize) -> Self {
        self.set(|policy| policy.backlog = Arc::new(Backlog::new(bytes)))
    }

    /// Sets whether to forward unsigned syncs, which the UI of a self-hosted server sends (default:
    /// `false`).
    ///
    /// An unsigned sync is a `PUT` whose signature header is missing or empty. It has no `X-Run-ID`
    /// and at most 64 headers. Its query is at most 1 KiB long and has no `fnId`, `stepId` or
    /// `probe`. The handler receives it with an empty body and without `X-Inngest-Sync-Kind`, and
    /// sees [`Caller::UnsignedSync`](crate::Caller::UnsignedSync).
    ///
    /// ```
    /// use axum::{Router, http::Method, routing::any};
    /// use inngest_auth::{Caller, testing::TestInngest};
    /// # use tower::ServiceExt;
    ///
    /// async fn handler(caller: Caller, body: String) -> String {
    ///     format!("{caller:?}: {body:?}")
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let inngest = TestInngest::new("signkey-test-12345678".parse()?);
    /// let auth = inngest.auth().insecure_unsigned_sync(true);
    /// let app = Router::new().route("/api/inngest", any(handler).layer(auth));
    ///
    /// let mut sync = inngest.unsigned("/api/inngest", "any text");
    /// *sync.method_mut() = Method::PUT;
    /// let response = app.clone().oneshot(sync).await?;
    /// let body = axum::body::to_bytes(response.into_body(), 1024).await?;
    /// assert_eq!(body, r#"UnsignedSync: """#);
    ///
    /// // Unsigned calls are still rejected.
    /// let response = app.oneshot(inngest.unsigned("/api/inngest", "{}")).await?;
    /// assert_eq!(response.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    pub fn insecure_unsigned_sync(self, allow: bool) -> Self {
        self.set(|policy| policy.insecure_unsigned_sync = allow)
    }

    /// Sets which responses to verified requests are signed (default: [`SignResponses::Required`]).
    ///
    /// A response is signed with the key that verified the request and with the request's own `t`.
    /// Only a 2xx response with a known length of up to 8 MiB is buffered and signed. These stay
    /// unsigned: streams, empty responses (also to `HEAD`), responses with trailers, with a
    /// `Content-Encoding` or with the handler's own signature, and responses later than the
    /// tolerance. If the body fails while it is buffered, the client gets a 500.
    ///
    /// Put compression outside this layer: inside, it would hide the bytes that must be signed.
    ///
    /// ```
    /// use axum::{Router, routing::any};
    /// use inngest_auth::{SIGNATURE_HEADER, SignResponses, testing::TestInngest};
    /// # use tower::ServiceExt;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let inngest = TestInngest::new("signkey-test-12345678".parse()?);
    /// for (sign, expected) in [(SignResponses::Required, false), (SignResponses::All, true)] {
    ///     let auth = inngest.auth().sign_responses(sign);
    ///     let app = Router::new().route("/api/inngest", any(|| async { "ran" }).layer(auth));
    ///     let response = app.oneshot(inngest.call("/api/inngest", "{}")).await?;
    ///     assert_eq!(response.headers().contains_key(SIGNATURE_HEADER), expected);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_responses(self, sign: SignResponses) -> Self {
        self.set(|policy| policy.sign_responses = sign)
    }

    /// Accepts each signature once, as remembered by `store` (default: no guard). Read
    /// [`replay`](crate::replay) before turning it on.
    pub fn replay_guard(self, store: impl ReplayStore) -> Self {
        self.set(|policy| policy.replay = Some(replay::Guard::new(store)))
    }

    /// Sets for how much longer than the tolerance the replay guard remembers a signature, in whole
    /// seconds (default: 60 s, maximum: a day).
    ///
    /// It must cover how far the clocks of the instances that share a store may differ.
    ///
    /// ```
    /// use std::time::Duration;
    /// use inngest_auth::{InngestAuth, SystemClock, replay::MemoryReplayStore};
    ///
    /// let store = MemoryReplayStore::new(100_000, &SystemClock);
    /// let auth = InngestAuth::from_env()
    ///     .replay_guard(store)
    ///     .replay_skew(Duration::from_secs(10));
    /// # let _ = auth;
    /// ```
    pub fn replay_skew(self, skew: Duration) -> Self {
        // Redis rejects an expiry beyond its range. Then every request would be rejected.
        self.set(|policy| policy.replay_skew = skew.as_secs().min(24 * 60 * 60))
    }

    /// Sets whether to admit requests that the replay guard cannot check because its store is down
    /// or full (default: `false`, rejected with 503). **This admits replays too.**
    pub fn insecure_replay_fail_open(self, fail_open: bool) -> Self {
        self.set(|policy| policy.replay_fails_open = fail_open)
    }

    /// Sets the clock, for tests (default: the system clock).
    pub fn clock(self, clock: impl Clock) -> Self {
        self.set_verifier(|verifier| verifier.clock(clock))
    }

    /// Sets a function that changes the response to a rejected request. It receives the default
    /// response.
    ///
    /// It can choose the body, headers and another 4xx or 5xx status. Any other status is replaced
    /// by the rejection's own, and `X-Inngest-No-Retry`, `Retry-After`, `Location` and
    /// `X-Inngest-Signature` are removed. So a rejection neither completes a run nor fails it for
    /// good, and Inngest retries with its own back-off. The [`Rejection`] is in the response's
    /// extensions whatever the function returns.
    ///
    /// ```
    /// use axum::http::{HeaderValue, StatusCode};
    /// use inngest_auth::{RejectionKind, testing::TestInngest};
    /// # use {axum::{Router, routing::any}, tower::ServiceExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let inngest = TestInngest::new("signkey-test-12345678".parse()?);
    /// let auth = inngest.auth().on_rejection(|rejection, mut response| {
    ///     if rejection.kind() == RejectionKind::Missing {
    ///         *response.status_mut() = StatusCode::NOT_FOUND;
    ///     }
    ///     response.headers_mut().insert("x-service", HeaderValue::from_static("billing"));
    ///     response
    /// });
    /// let app = Router::new().route("/api/inngest", any(|| async {}).layer(auth));
    ///
    /// let response = app.clone().oneshot(inngest.unsigned("/api/inngest", "{}")).await?;
    /// assert_eq!(response.status(), 404);
    /// let response = app.oneshot(inngest.tampered("/api/inngest", "{}")).await?;
    /// assert_eq!(response.status(), 401);
    /// assert_eq!(response.headers()["x-service"], "billing");
    /// # Ok(())
    /// # }
    /// ```
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
    /// The layer verifies requests.
    Verifying,
    /// The layer is in dev mode and does not verify requests.
    Dev,
    /// The layer rejects every request with 500, because the configuration cannot be used.
    Unusable(ConfigError),
}

impl Status {
    /// Returns `true` if the layer can admit requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !matches!(self, Self::Unusable(_))
    }
}

/// The bounds on the inner service are those of every layer with a boxed future. They are repeated
/// here so that the compiler reports a missing bound where the layer is added.
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
