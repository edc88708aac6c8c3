//! Outbound: calls to Inngest's API, authenticated with the same keys.
//!
//! 1. The request's URI must be absolute, with the API's scheme, host and port. Any other is an error: a token
//!    never leaves for another host.
//! 2. It gets `Authorization: Bearer …` of the current key, marked sensitive, and `X-Inngest-Env` where a branch
//!    environment is named and the request names none.
//! 3. Is the answer 401 or 403, and there is a fallback with another token: once more, with that one. During a
//!    rotation the API knows only one of the two.
//!
//! In dev mode nothing is added. The response's extensions hold the [`KeyRole`](crate::KeyRole) whose token was
//! sent last, so that any outer layer can count how often the fallback was needed.
//!
//! **The inner client must not follow redirects**: a layer cannot see them, and a client that follows one takes the
//! token along. hyper-util's client follows none; reqwest needs `redirect::Policy::none()`.
//!
//! ```
//! use std::convert::Infallible;
//! use http::{Request, Response, StatusCode, header::AUTHORIZATION};
//! use inngest_auth::{ApiAuthError, Config, InngestApiAuth};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In the place of an HTTP client.
//! let client = service_fn(async |request: Request<String>| {
//!     let known = request.headers().get(AUTHORIZATION).is_some_and(|token| token.is_sensitive());
//!     let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
//!     Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
//! });
//! let config = Config::from_vars([("INNGEST_SIGNING_KEY", "signkey-prod-12345678")])?;
//! let api = InngestApiAuth::from_config(&config).layer(client);
//!
//! let request = Request::post(format!("{}/fn/register", config.api_base()?)).body("{}".to_owned())?;
//! assert_eq!(api.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! // Another host gets no token, and no request.
//! let request = Request::post("https://api.inngest.example/fn/register").body(String::new())?;
//! assert!(matches!(api.oneshot(request).await, Err(ApiAuthError::WrongOrigin)));
//! # Ok(())
//! # }
//! ```

mod bearer;
pub(crate) mod layer;
pub(crate) mod origin;
pub(crate) mod service;
