//! Follows a secrets manager. Copy this file.

use std::collections::HashMap;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use inngest_auth::{Config, KeyRing};

/// Polls for ever. On any error the last good keys stay in use.
pub(crate) async fn follow(ring: KeyRing, secret: Uri, every: Duration, patience: Duration) {
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut polls = tokio::time::interval(every);
    loop {
        polls.tick().await;
        match tokio::time::timeout(patience, poll(&ring, &client, &secret)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot follow the secrets manager: {error}"),
            Err(_) => tracing::warn!("cannot follow the secrets manager: no response in time"),
        }
    }
}

/// Reads the secret, which contains both keys, so that a person who changes it also states which
/// old key is still needed: `{"INNGEST_SIGNING_KEY": "signkey-…", "INNGEST_SIGNING_KEY_FALLBACK":
/// "signkey-…"}`.
async fn poll(
    ring: &KeyRing,
    client: &Client<HttpConnector, Body>,
    secret: &Uri,
) -> Result<(), BoxError> {
    let response = client.get(secret.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string().into());
    }
    let body = Limited::new(response.into_body(), 4096)
        .collect()
        .await?
        .to_bytes();
    // The parser's message could quote the secret.
    let vars = serde_json::from_slice::<HashMap<String, String>>(&body)
        .map_err(|_| "not the JSON that it should be")?;
    // Only the keys are used: whatever the secret contains, it must not turn verification off.
    let names = ["INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK"];
    let config = Config::from_vars(
        vars.into_iter()
            .filter(|(name, _)| names.contains(&&**name)),
    )?;
    let keys = config.keys().ok_or("no keys")?.snapshot();
    ring.replace(keys.as_ref().clone());
    Ok(())
}
