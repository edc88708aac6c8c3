//! Inngest's API called with reqwest, which is no Tower service: a short loop over the ring's tokens.

use inngest_auth::KeyRing;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Request, Response, StatusCode, redirect};

/// A client that follows no redirect: following one would take the token to wherever it points.
///
/// # Errors
///
/// Where reqwest cannot make one.
pub fn client() -> reqwest::Result<Client> {
    Client::builder().redirect(redirect::Policy::none()).build()
}

/// Sends `request` with the current key's token, and on 401 or 403 once more with the fallback's. `request` must go
/// to the API, and its body must be bytes and no stream.
///
/// # Errors
///
/// [`CallError`] if the body is a stream, or reqwest fails.
pub async fn call(
    client: &Client,
    keys: &KeyRing,
    request: &Request,
) -> Result<Response, CallError> {
    let mut answer = Err(CallError::Stream);
    for token in keys.bearers() {
        let mut attempt = request.try_clone().ok_or(CallError::Stream)?;
        attempt.headers_mut().insert(AUTHORIZATION, token);
        let response = client.execute(attempt).await.map_err(CallError::Client)?;
        let refused = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        answer = Ok(response);
        if !refused {
            break;
        }
    }
    answer
}

/// Why there is no answer.
#[derive(Debug)]
pub enum CallError {
    /// A body that can be sent once only.
    Stream,
    /// Reqwest's own.
    Client(reqwest::Error),
}
