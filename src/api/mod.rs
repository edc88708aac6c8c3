//! Calls to Inngest's API, authenticated with the signing keys.
//!
//! [`InngestApiAuth`](crate::InngestApiAuth) is a layer for an HTTP client: hyper-util's, or any
//! other Tower service over `http` requests. Each call takes these steps:
//!
//! 1. The request's URI must be absolute, with the API's scheme, host and port. Any other is an
//!    error, and nothing is sent: the token never goes to another host.
//! 2. `X-Inngest-Env`, `X-Inngest-Sdk` and `X-Inngest-Req-Version` are added if the request does
//!    not have them. The first is the branch environment, if the [`Config`](crate::Config) names
//!    one. A key that all branch environments share (`signkey-branch-…`) without such a name is an
//!    error.
//! 3. The request is sent with `Authorization: Bearer …`, marked sensitive. It is the bearer of the
//!    key that the API accepted last: of the current key, until the API rejects that.
//! 4. On 401 or 403 the request is sent again with the other key's bearer, if there is a fallback
//!    key and its bearer differs. There is no third attempt.
//! 5. If the other key is not rejected, later calls begin with it. A change of the
//!    [`KeyRing`](crate::KeyRing) makes them begin with the current key again.
//!
//! During a rotation the API knows only one of the two keys. So a call costs one request more when
//! the API switches, and none after that. Of many calls at once, each that is in progress when the
//! first rejection comes back may cost one more; a call that begins after another has found the
//! right key does not. Clones of the layer, and all services built from them, share what they
//! learn; separate layers over one ring do not.
//!
//! In dev mode there is no `Authorization`, and nothing is sent twice. Steps 1 and 2 are the same.
//!
//! The response's extensions hold the [`KeyRole`](crate::KeyRole) whose bearer was sent last, so
//! that an outer layer can count how often the fallback key was needed.
//!
//! Step 4 needs a second copy of the body. For bodies that are not `Clone`, like streams, use
//! [`InngestApiAuth::single_attempt`](crate::InngestApiAuth::single_attempt).
//!
//! **The HTTP client must not follow redirects.** A layer cannot see them, and a client that
//! follows one may take the token along. hyper-util's client follows none; reqwest needs
//! `redirect::Policy::none()`. For a client that is not a Tower service, see
//! [`KeyRing::bearers`](crate::KeyRing::bearers).
//!
//! ```
//! use std::convert::Infallible;
//! use http::{Request, Response, StatusCode, header::AUTHORIZATION};
//! use inngest_auth::{ApiAuthError, InngestApiAuth, KeyRing, SigningKey};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Stands in for an HTTP client and the API, which knows this key.
//! let key: SigningKey = "signkey-prod-12345678".parse()?;
//! let known = KeyRing::from(key.clone()).bearers();
//! let client = service_fn(move |request: Request<String>| {
//!     let accepted = request.headers().get(AUTHORIZATION) == known.first();
//!     let status = if accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
//!     async move { Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap()) }
//! });
//! let api = InngestApiAuth::new(key, "https://api.inngest.com")?.layer(client);
//!
//! let request = Request::post("https://api.inngest.com/fn/register").body("{}".to_owned())?;
//! assert_eq!(api.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! // Another host gets no token, and no request.
//! let request = Request::post("https://api.inngest.example/fn/register").body("{}".to_owned())?;
//! assert!(matches!(api.oneshot(request).await, Err(ApiAuthError::WrongOrigin)));
//! # Ok(())
//! # }
//! ```

mod bearer;
pub(crate) mod layer;
pub(crate) mod origin;
pub(crate) mod service;

pub use service::{SingleAttempt, WithFallback};
