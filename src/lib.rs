//! Lets in Inngest and nobody else: a Tower layer that verifies [Inngest]'s signed requests in front
//! of an Axum (or any `http` 1) service.
//!
//! A handler behind the layer runs only for a verified request, and reads exactly the bytes that were
//! authenticated. Keys rotate without downtime. In dev mode the layer steps aside.
//!
//! [Inngest]: https://www.inngest.com
//!
//! # Quick start
//!
//! Set `INNGEST_SIGNING_KEY`, add the layer to the route, and give the program a subscriber of
//! [`tracing`](https://docs.rs/tracing) that shows warnings: what is rejected, and why, is in the log.
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! use axum::{Router, body::Bytes, routing::{any, get}};
//! use inngest_auth::{Caller, InngestAuth};
//!
//! /// Runs for Inngest only. `body` is what was signed.
//! async fn inngest_handler(caller: Caller, body: Bytes) -> String {
//!     format!("{} bytes from {caller:?}", body.len())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), std::io::Error> {
//!     tracing_subscriber::fmt().init();
//!     let app = Router::new()
//!         .route("/api/inngest", any(inngest_handler).layer(InngestAuth::from_env()))
//!         .route("/healthz", get(|| async { "ok" }));
//! #   return Ok(()); // A server never ends.
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     axum::serve(listener, app).await
//! }
//! ```
//!
//! A test of the same app can be Inngest itself:
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! use axum::{Router, http::StatusCode, routing::any};
//! use inngest_auth::{InngestAuth, testing::TestInngest};
//! use tower::ServiceExt;
//!
//! /// A function of the layer, so that a test can give it another.
//! fn app(auth: InngestAuth) -> Router {
//!     Router::new().route("/api/inngest", any(|body: String| async { body }).layer(auth))
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let inngest = TestInngest::new("signkey-test-12345678".parse()?);
//!     let app = app(inngest.auth());
//!     let url = "/api/inngest?fnId=hello&stepId=step";
//!
//!     // What was signed gets in.
//!     let response = app.clone().oneshot(inngest.call(url, "{}")).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//!
//!     // A changed byte does not.
//!     let response = app.oneshot(inngest.tampered(url, "{}")).await?;
//!     assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//!     Ok(())
//! }
//! ```
//!
//! # Where to go from here
//!
//! - [`InngestAuth`]: the steps that a request takes, and the settings. [`Config`]: the environment's
//!   variables. [`RejectionKind`]: every rejection with its status.
//! - [In front of an existing app](guide::adoption), [what a handler can rely on](guide::handlers),
//!   [where the layer must not be](guide::placement), [testing your own handlers](guide::tests).
//! - [Dev mode and self-hosting](guide::dev_mode), [rotation](guide::rotation),
//!   [metrics and alerts](guide::metrics), [troubleshooting](guide::troubleshooting) by the words
//!   that you see.
//! - [`api`]: authenticated calls to Inngest's API. [`replay`]: each signature once.
//!   [Outside Axum](guide::outside_axum), [the official Rust SDK](guide::official_sdk).
//! - In a clone, `cargo run --example serve` shows all of it at work.
//!
//! # What the signature does not cover
//!
//! Inngest signs the body and the time. It does not sign the method, the path, the query or any
//! header: do not base authorization on them. Within the tolerance a captured request can be sent
//! again, unless a [replay guard](replay) is set.
//!
//! # Recommended stack
//!
//! Put outside the layer what every request needs, such as tracing. Put inside it what costs: admission
//! control, extractors. Then strangers cannot use up what is meant for Inngest. Add the layer to the
//! route and not to the router, so that unknown paths stay 404.
//!
//! Put no timeout around it: a step may run for two hours, and Inngest waits that long. A timeout cuts
//! longer steps off (408), and they run again. The layer has a [deadline](InngestAuth::body_deadline)
//! for the body.
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! # use axum::{BoxError, Router, body::Body, error_handling::HandleErrorLayer};
//! # use axum::{http::{Request, StatusCode}, routing::{any, get}};
//! # use inngest_auth::{Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
//! # use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer};
//! # use tower_http::trace::TraceLayer;
//! # async fn inngest_handler(body: String) -> String { body }
//! fn app(auth: InngestAuth) -> Router {
//!     let busy = |_: BoxError| async { StatusCode::SERVICE_UNAVAILABLE };
//!     let stack = ServiceBuilder::new()
//!         .layer(TraceLayer::new_for_http())
//!         .layer(auth)
//!         // From here on every request is verified. Beyond 64 at once: 503, and Inngest retries.
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
//! With `default-features = false` there is no HTTP, no Tower and no async: [`Verifier`] takes the
//! values of the signature header and the body, and returns the bytes that were authenticated or a
//! [`Rejection`]. [`verify`] is the pure check below it. This runs on WebAssembly too: on
//! `wasm32-unknown-unknown` give the verifier a [`Clock`] that asks the host, because [`SystemClock`]
//! cannot tell the time there.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `layer` | yes | [`InngestAuth`] and everything that speaks HTTP. Without it: keys, signatures, [`Verifier`] and [`verify`] |
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
mod diagnose;
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
pub use config::{Config, ConfigError, FileDefect, KeyDefect};
pub use diagnose::{Cause, diagnose};
pub use key::{Fingerprint, KeyError, SigningKey};
pub use keyring::{KeyRing, KeyRole, KeyUsage, Keys};
#[cfg(feature = "layer")]
pub use layer::{
    Caller, CallerRejection, InngestAuth, InngestAuthService, ResponseFuture, SignResponses, Status,
};
pub use rejection::{Rejection, RejectionKind};
pub use signature::{SIGNATURE_HEADER, Signature, SignatureError};
pub use verifier::{BodyVerifier, ResponseSigner, Verifier};
pub use verify::{Authentic, Form, Tolerance, ToleranceError, Verified, VerifyError, verify};

/// The README's code compiles too.
#[cfg(all(doctest, feature = "layer"))]
#[doc = include_str!("../README.md")]
struct Readme;
