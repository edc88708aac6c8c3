//! Outbound: calls to Inngest's API, authenticated with the same keys.
//!
//! 1. The request's URI must be absolute, with the API's scheme, host and port. Any other is an error: a token
//!    never leaves for another host.
//! 2. It gets `Authorization: Bearer …` of the current key, marked sensitive, and `X-Inngest-Env` where a branch
//!    environment is named and the request names none.
//! 3. Is the answer 401 or 403, and there is a fallback with another token: once more, with that one. During a
//!    rotation the API knows only one of the two.
//!
//! In dev mode nothing is added. The response's extensions hold the [`KeyRole`] whose token was
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
//! assert!(matches!(api.oneshot(request).await, Err(ApiAuthError::NotTheApi)));
//! # Ok(())
//! # }
//! ```

mod layer;
mod service;

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

pub use layer::InngestApiAuth;
pub use service::{ApiAuthError, InngestApiAuthService};

use crate::key::SigningKey;
use crate::keyring::{KeyRing, KeyRole, Keys};

impl KeyRing {
    /// The values of `Authorization` to call Inngest's API with, in the order to try them: the current key's,
    /// then, where it differs, the fallback's. Marked sensitive, so that they are not logged; at least one.
    ///
    /// For a client that is not a Tower service: send with the first, and on 401 or 403 once more with the next.
    #[must_use]
    pub fn bearers(&self) -> Vec<HeaderValue> {
        let tokens = bearers(&self.snapshot());
        tokens.into_iter().map(|(_, token)| token).collect()
    }
}

fn bearers(keys: &Keys) -> Vec<(KeyRole, HeaderValue)> {
    let current = Some((KeyRole::Current, keys.current()));
    let fallback = keys.fallback().map(|key| (KeyRole::Fallback, key));
    let keys = current.into_iter().chain(fallback);
    let mut tokens: Vec<_> = keys.map(|(role, key)| (role, bearer(key))).collect();
    // Keys that differ in their letters' case have one token: asking twice with it would be asking in vain.
    tokens.dedup_by(|(_, later), (_, earlier)| later == earlier);
    tokens
}

fn bearer(key: &SigningKey) -> HeaderValue {
    let token = key.bearer();
    let mut value = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
    value.push_str("Bearer ");
    value.push_str(&token);
    // Shared, not copied, so that the last header that carries it wipes it.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).expect("a token is visible ASCII");
    value.set_sensitive(true);
    value
}
