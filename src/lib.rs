//! A Tower layer that admits requests from [Inngest] only. It verifies Inngest's request signatures
//! in front of an Axum handler, or any other service that uses `http` 1.
//!
//! The handler runs only for verified requests, and reads exactly the bytes that were
//! authenticated. There are two exceptions, both off by default: in dev mode the layer verifies
//! nothing, and logs a warning that says so; and unsigned syncs can be
//! [allowed](InngestAuth::insecure_unsigned_sync). Keys rotate without downtime.
//!
//! [Inngest]: https://www.inngest.com
//!
//! # Quick start
//!
//! Set `INNGEST_SIGNING_KEY` and add the layer to the route. Install a
//! [`tracing`](https://docs.rs/tracing) subscriber that shows warnings, because the response that
//! the client gets does not say why a request was rejected, and the log does.
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! use axum::{Router, body::Bytes, routing::{any, get}};
//! use inngest_auth::{Caller, InngestAuth};
//!
//! /// Runs for Inngest only. `body` contains the bytes that were signed.
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
//! #   return Ok(()); // `serve` never returns.
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     axum::serve(listener, app).await
//! }
//! ```
//!
//! Inngest completes a run only if the response has the header `X-Inngest-Sdk`. A real app sets it
//! too, as the example in the README does.
//!
//! In a test, [`TestInngest`](testing::TestInngest) plays Inngest:
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! use axum::{Router, http::StatusCode, routing::any};
//! use inngest_auth::{InngestAuth, testing::TestInngest};
//! use tower::ServiceExt;
//!
//! /// Takes the layer as an argument, so that a test can pass its own.
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
//!     // A signed request is admitted.
//!     let response = app.clone().oneshot(inngest.call(url, "{}")).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//!
//!     // A request whose body was changed is rejected.
//!     let response = app.oneshot(inngest.tampered(url, "{}")).await?;
//!     assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//!     Ok(())
//! }
//! ```
//!
//! # Where to go from here
//!
//! - **Reference.** [`InngestAuth`]: the steps of a request, and the settings. [`Config`]: the
//!   environment variables. [`RejectionKind`]: every kind of rejection and its status.
//! - **Setting it up.** [In front of an existing app](guide::adoption),
//!   [what a handler can rely on](guide::handlers),
//!   [where the layer must not be placed](guide::placement),
//!   [testing your own handlers](guide::tests).
//! - **Running it.** [Dev mode and self-hosted servers](guide::dev_mode),
//!   [key rotation](guide::rotation), [metrics and alerts](guide::metrics),
//!   [troubleshooting](guide::troubleshooting) by message.
//! - **More.** [`api`]: authenticated calls to Inngest's API. [`replay`]: accepting each signature
//!   once. [Outside Axum](guide::outside_axum), [the official Rust SDK](guide::official_sdk).
//! - In a clone of the repository, `cargo run --example serve` starts a server and shows which of
//!   five requests it admits.
//!
//! # What the signature does not cover
//!
//! Inngest signs the body and the time. It does not sign the method, the path, the query or any
//! header: do not base authorization on them. Within the tolerance, a captured request can be sent
//! again unless a [replay guard](replay) is set.
//!
//! # Recommended stack
//!
//! Put what every request needs, such as tracing, outside the layer. Put concurrency limits, and
//! anything expensive such as extractors, inside the layer. Unverified requests then cannot use up
//! the capacity meant for Inngest. Add the layer to the route and not to the router, so that
//! unknown paths stay 404.
//!
//! Do not put a timeout around the handler. A step may run for two hours, and Inngest waits that
//! long. A step that takes longer than the timeout is cut off with 408, and Inngest runs it again.
//! The body has its own [deadline](InngestAuth::body_deadline).
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! # use axum::{BoxError, Router, body::Body, error_handling::HandleErrorLayer};
//! # use axum::{http::{Request, StatusCode}, routing::{any, get}};
//! # use inngest_auth::{Clock, InngestAuth, SIGNATURE_HEADER, SigningKey, SystemClock};
//! # use tower::{ServiceBuilder, ServiceExt};
//! # use tower::{limit::ConcurrencyLimitLayer, load_shed::LoadShedLayer};
//! # use tower_http::trace::TraceLayer;
//! # async fn inngest_handler(body: String) -> String { body }
//! fn app(auth: InngestAuth) -> Router {
//!     let busy = |_: BoxError| async { StatusCode::SERVICE_UNAVAILABLE };
//!     let stack = ServiceBuilder::new()
//!         .layer(TraceLayer::new_for_http())
//!         .layer(auth)
//!         // Inside the layer, every request is verified. More than 64 at once get 503, and
//!         // Inngest retries them.
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
//! #     ("/api/inngest", Some(signature), 200), ("/api/inngest", None, 401),
//! #     ("/healthz", None, 200), ("/", None, 404),
//! # ] {
//! #     let mut request = Request::get(path);
//! #     if let Some(signature) = signature {
//! #         request = request.header(SIGNATURE_HEADER, signature)
//! #     }
//! #     let response = app.clone().oneshot(request.body(Body::from("{}"))?).await?;
//! #     assert_eq!(response.status(), status, "{path}");
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # Without HTTP
//!
//! With `default-features = false` the crate uses no HTTP types, no Tower and no async.
//! [`Verifier`] takes the values of the signature header and the body, and returns the bytes that
//! were authenticated, or a [`Rejection`]. It is built on the pure function [`verify`]. Both also
//! run on WebAssembly. On `wasm32-unknown-unknown` give the verifier a [`Clock`] that asks the
//! host, because [`SystemClock`] cannot tell the time there.
//!
//! # Features
//!
//! - `layer` (default): [`InngestAuth`] and everything else that uses HTTP. Without it, the crate
//!   offers keys, signatures, [`Verifier`] and [`verify`].
//! - `redis`: `replay::RedisReplayStore`, a replay store that several machines share.
//! - `redis-tls`: the same over TLS (`rediss://`).
//!
//! Features only add; none changes which requests are accepted. The crate requires Rust 1.88.
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
mod hex;
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
pub use key::{BearerToken, Fingerprint, KeyError, SigningKey};
pub use keyring::{KeyRing, KeyRole, KeyUsage, Keys};
#[cfg(feature = "layer")]
pub use layer::{
    Caller, CallerRejection, InngestAuth, InngestAuthService, ResponseFuture, SignResponses, Status,
};
pub use rejection::{Rejection, RejectionKind};
pub use signature::{SIGNATURE_HEADER, Signature, SignatureError};
pub use verifier::{BodyVerifier, ResponseSigner, Verifier};
pub use verify::{Authentic, Form, Tolerance, ToleranceError, Verified, VerifyError, verify};

/// Compiles the code in the README.
#[cfg(all(doctest, feature = "layer"))]
#[doc = include_str!("../README.md")]
struct Readme;
