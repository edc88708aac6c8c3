//! Calls Inngest's API with reqwest, which is no Tower service: a short loop over the ring's
//! tokens.

use inngest_auth::KeyRing;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Request, Response, StatusCode, redirect};

/// Creates a client that follows no redirect: a redirect could lead the token to another host.
///
/// # Errors
///
/// Returns an error if reqwest cannot create one.
pub fn client() -> reqwest::Result<Client> {
    Client::builder().redirect(redirect::Policy::none()).build()
}

/// Sends `request` with the current key's token, and on 401 or 403 retries it with the fallback
/// key's. `request` must be for the API, and its body must be bytes and not a stream.
///
/// # Errors
///
/// Returns a [`CallError`] if the body is a stream, or if reqwest fails.
pub async fn call(
    client: &Client,
    keys: &KeyRing,
    request: &Request,
) -> Result<Response, CallError> {
    let mut outcome = Err(CallError::Stream);
    for token in keys.bearers() {
        let mut attempt = request.try_clone().ok_or(CallError::Stream)?;
        attempt.headers_mut().insert(AUTHORIZATION, token);
        let response = client.execute(attempt).await.map_err(CallError::Client)?;
        let rejected = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        outcome = Ok(response);
        if !rejected {
            break;
        }
    }
    outcome
}

/// An error returned when there is no response.
#[derive(Debug)]
pub enum CallError {
    /// The body is a stream, which can be sent only once.
    Stream,
    /// Reqwest failed.
    Client(reqwest::Error),
}
