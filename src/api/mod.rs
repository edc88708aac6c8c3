//! Calls to Inngest's API, authenticated with the signing keys.
//!
//! [`InngestApiAuth`](crate::InngestApiAuth) is a layer for an HTTP client: hyper-util's, or any
//! other Tower service over `http` requests. It takes these steps for each call:
//!
//! 1. Require an absolute URI with the API's scheme, host and port. For any other URI, return an
//!    error and send nothing. So the token never reaches another host.
//! 2. Add `X-Inngest-Env`, `X-Inngest-Sdk` and `X-Inngest-Req-Version` unless the request has them.
//!    The first is the branch environment, if the [`Config`](crate::Config) names one. A key that
//!    all branch environments share (`signkey-branch-…`) is an error without that name.
//! 3. Send the request with `Authorization: Bearer …`, marked sensitive. The token is that of the
//!    key that the API accepted last. Initially this is the current key.
//! 4. On 401 or 403, send the request again with the other key's token, if there is a fallback key
//!    and its token differs. There is no third attempt.
//! 5. If the API does not reject the other key, begin later calls with it. After a change of the
//!    [`KeyRing`](crate::KeyRing), calls begin with the current key again.
//!
//! During a rotation the API knows only one of the two keys. So a call costs one more request when
//! the API switches, and none after that. If several calls are in flight when the first rejection
//! arrives, each of them may cost one more. A call that begins after another has found the right
//! key does not. Clones of the layer, and all services built from them, share what they learned.
//! Separate layers do not, even over one ring.
//!
//! In dev mode no `Authorization` header is sent, and no request is sent twice. Steps 1 and 2 are
//! the same.
//!
//! The response's extensions contain the [`KeyRole`](crate::KeyRole) whose token was sent last, so
//! that an outer layer can count how often the fallback key was needed.
//!
//! Step 4 needs a second copy of the body. For bodies that are not `Clone`, such as streams, use
//! [`InngestApiAuth::single_attempt`](crate::InngestApiAuth::single_attempt).
//!
//! **The HTTP client must not follow redirects.** The layer cannot see them, and a client that
//! follows one may send the token to another host. hyper-util's client does not follow redirects.
//! reqwest needs `redirect::Policy::none()`. For a client that is not a Tower service, see
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
//! // Stands in for an HTTP client and an API that accepts this key.
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
//! // A request to another host is not sent.
//! let elsewhere = "https://api.inngest.example/fn/register";
//! let request = Request::post(elsewhere).body("{}".to_owned())?;
//! assert!(matches!(api.oneshot(request).await, Err(ApiAuthError::WrongOrigin)));
//! # Ok(())
//! # }
//! ```

mod bearer;
pub(crate) mod layer;
pub(crate) mod origin;
pub(crate) mod service;

pub use service::{ResponseFuture, SingleAttempt, WithFallback};
