//! Let Inngest in, and nobody else: a Tower layer that verifies [Inngest]'s signed requests in front of an Axum
//! (or any `http` 1) service. A handler behind it runs only for a verified request, and reads exactly the bytes
//! that were authenticated.
//!
//! [Inngest]: https://www.inngest.com
//!
//! # Quick start
//!
//! Set `INNGEST_SIGNING_KEY`, put the layer on the route, and take [`Caller`] where you want to know who calls:
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! # use axum::{Router, body::{Body, Bytes}, http::{Request, StatusCode}, routing::any};
//! # use inngest_auth::{Caller, Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
//! # use tower::ServiceExt;
//! /// Runs for Inngest only. `body` is what was signed.
//! async fn inngest_handler(caller: Caller, body: Bytes) -> String {
//!     format!("{} bytes from {caller:?}", body.len())
//! }
//!
//! // A function of the layer, so that a test can give it another. In `main`: `app(InngestAuth::from_env())`.
//! fn app(auth: InngestAuth) -> Router {
//!     Router::new().route("/api/inngest", any(inngest_handler).layer(auth))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key: SigningKey = "signkey-test-12345678".parse()?;
//! let now = SystemClock.now().ok_or("no time")?;
//! let signature = key.sign(b"{}", now).to_string();
//! let app = app(InngestAuth::new(key));
//! let post = |body: &'static str| {
//!     Request::post("/api/inngest")
//!         .header(SIGNATURE_HEADER, &signature)
//!         .body(Body::from(body))
//! };
//!
//! // What was signed gets in.
//! assert_eq!(app.clone().oneshot(post("{}")?).await?.status(), StatusCode::OK);
//! // A changed byte does not.
//! assert_eq!(app.clone().oneshot(post("[}")?).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! [`Config`] has the environment's variables, [`InngestAuth`] the setters, [`RejectionKind`] every refusal with its
//! status. What is refused, and why, is in the log: that of [`tracing`](https://docs.rs/tracing), so give it a subscriber.
//! In a clone, `cargo run --example serve` shows all of it at work.
//!
//! # Guide
//!
//! - To begin: [in front of an existing app](guide::adoption), [what a handler can rely on](guide::handlers),
//!   [where the layer must not stand](guide::placement), [testing your own handlers](guide::tests).
//! - To run it: [dev mode and self-hosting](guide::dev_mode), [rotation](guide::rotation),
//!   [metrics and alerts](guide::metrics), and [troubleshooting](guide::troubleshooting), by the words that you see.
//! - Beside other things: [outside Axum](guide::outside_axum), [the official Rust SDK](guide::official_sdk).
//!
//! # The order of work
//!
//! 1. In dev mode the request passes on as it is, marked [`Caller::Dev`]. This comes before keys are looked at.
//! 2. Without a usable key nothing passes (500). No HMAC is ever made with an empty key.
//! 3. There must be exactly one `X-Inngest-Signature`. The one exception, where
//!    [`insecure_unsigned_sync`](InngestAuth::insecure_unsigned_sync) was chosen: an unsigned `PUT` whose query names no
//!    function, step or probe passes with an empty body, marked [`Caller::UnsignedSync`].
//! 4. The header must follow the grammar `t=…&s=…`: `t` ten digits, `s` 64 hex digits, each once ([`Signature::parse`]).
//! 5. `t` must lie within the [tolerance](InngestAuth::tolerance) of the clock, in the past and in the future. A
//!    clock that cannot tell the time is a refusal (500).
//! 6. A `Content-Length` over the [limit](InngestAuth::body_limit) is refused (413). A smaller one is not believed:
//!    nothing is allocated by it.
//! 7. The body is read, under a limit of bytes, a [deadline](InngestAuth::body_deadline) and a
//!    [budget](InngestAuth::body_budget) of memory that all unverified bodies share. The HMAC runs along. Trailers
//!    are dropped: nobody signed them.
//! 8. The MAC is compared in constant time: over the raw bytes, with the current key, then with the fallback.
//! 9. If neither matches and the body is JSON of at most 64 KiB, the same over its RFC 8785 form. If that matches,
//!    that form is what the handler gets. A body that has no such form is not verified.
//! 10. A [replay guard](replay), where one is set, refuses a signature that was accepted before.
//! 11. A verified trust probe (`POST ?probe=trust`) is answered: 200 and `{}`.
//! 12. Only now does the inner service exist for this request. Until here a stranger held nothing of it: no permit,
//!     no readiness. The request carries [`Caller::Verified`] in its extensions, a `Content-Length` that is right,
//!     and no `Transfer-Encoding`, `Trailer` or digest of what was sent.
//! 13. The answer is signed, with the key that verified the request and the request's own `t`
//!     ([`sign_responses`](InngestAuth::sign_responses) says which are not).
//!
//! A refusal tells the sender a status and no reason. The reason is in the log, and as [`Rejection`] in the
//! response's extensions, where any outer layer can count it.
//!
//! # What the signature does not cover
//!
//! Inngest signs the body and the time. It does not sign the method, the path, the query or any header: do not
//! decide by those who may do what. Within the tolerance a captured call can be sent again, unless a
//! [replay guard](replay) is set.
//!
//! # Recommended stack
//!
//! Outside of the layer what every request needs: tracing, a timeout. Inside of it what costs: admission control,
//! extractors. Then strangers cannot use up what is meant for Inngest. On the route and not on the router, so that
//! unknown paths stay 404.
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! # use std::time::Duration;
//! # use axum::{BoxError, Router, body::Body, error_handling::HandleErrorLayer};
//! # use axum::{http::{Request, StatusCode}, routing::{any, get}};
//! # use inngest_auth::{Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
//! # use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer};
//! # use tower_http::{timeout::TimeoutLayer, trace::TraceLayer};
//! # async fn inngest_handler(body: String) -> String { body }
//! fn app(auth: InngestAuth) -> Router {
//!     let busy = |_: BoxError| async { StatusCode::SERVICE_UNAVAILABLE };
//!     let stack = ServiceBuilder::new()
//!         .layer(TraceLayer::new_for_http())
//!         .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(30)))
//!         .layer(auth)
//!         // From here on every request is verified. Over 64 at once: 503, and Inngest sends again.
//!         .layer(HandleErrorLayer::new(busy))
//!         .layer(LoadShedLayer::new())
//!         .layer(ConcurrencyLimitLayer::new(64));
//!     Router::new()
//!         .route("/api/inngest", any(inngest_handler).layer(stack))
//!         .route("/healthz", get(|| async { "ok" }))
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key: SigningKey = "signkey-test-12345678".parse()?;
//! # let signature = key.sign(b"{}", SystemClock.now().ok_or("no time")?).to_string();
//! # let app = app(InngestAuth::new(key));
//! # for (path, signature, status) in [
//! #     ("/api/inngest", Some(signature), 200), ("/api/inngest", None, 401), ("/healthz", None, 200), ("/", None, 404),
//! # ] {
//! #     let mut request = Request::get(path);
//! #     if let Some(signature) = signature { request = request.header(SIGNATURE_HEADER, signature) }
//! #     assert_eq!(app.clone().oneshot(request.body(Body::from("{}"))?).await?.status(), status, "{path}");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Without HTTP
//!
//! With `default-features = false` there is no HTTP, no Tower and no async: [`verify`] takes bytes, a [`Signature`],
//! [`Keys`] and the time, and gives back the bytes that were authenticated.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `layer` | yes | [`InngestAuth`] and all that speaks HTTP. Without it: keys, signatures and [`verify`] alone |
//! | `redis` | no | `replay::RedisReplayStore`, a replay store that several machines share |
//! | `redis-tls` | no | the same over TLS (`rediss://`) |
//!
//! Features add; none changes what is accepted. The crate builds with Rust 1.88.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "layer")]
pub mod api;
mod canonical;
mod clock;
mod config;
#[cfg(all(any(doc, doctest), feature = "layer"))]
#[cfg_attr(docsrs, doc(auto_cfg = false))]
pub mod guide;
mod key;
mod keyring;
#[cfg(feature = "layer")]
mod layer;
mod rejection;
#[cfg(feature = "layer")]
pub mod replay;
#[cfg(feature = "layer")]
mod sdk;
mod signature;
pub mod testing;
mod verifier;
mod verify;

#[cfg(feature = "layer")]
pub use api::layer::InngestApiAuth;
#[cfg(feature = "layer")]
pub use api::origin::ApiBaseError;
#[cfg(feature = "layer")]
pub use api::service::{ApiAuthError, InngestApiAuthService};
pub use clock::{Clock, SystemClock};
pub use config::{Config, ConfigError, KeyDefect};
pub use key::{Fingerprint, KeyError, SigningKey};
pub use keyring::{KeyRing, KeyRole, KeyUsage, Keys};
#[cfg(feature = "layer")]
pub use layer::{Caller, CallerRejection, InngestAuth, InngestAuthService, ResponseFuture, SignResponses, Status};
pub use rejection::{Rejection, RejectionKind};
pub use signature::{SIGNATURE_HEADER, Signature, SignatureError};
pub use verifier::{BodyVerifier, ResponseSigner, Verifier};
pub use verify::{Authentic, Form, Tolerance, ToleranceError, Verified, VerifyError, verify};

/// The README's code compiles too.
#[cfg(all(doctest, feature = "layer"))]
#[doc = include_str!("../README.md")]
struct Readme;
