//! Follows a secrets manager. Copy this file.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use inngest_auth::{Config, KeyRing, Keys};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Polls for ever. On any error the last good keys stay in use. An error is logged once, until it
/// ends or another follows.
pub(crate) async fn follow(ring: KeyRing, secret: Uri, every: Duration, patience: Duration) {
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let mut polls = interval(every);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A hash is enough to see a change, and keeps no copy of the secret.
    let (hasher, mut seen) = (RandomState::new(), None);
    let (mut unusable, mut logged) = (None, None);
    loop {
        polls.tick().await;
        let problem = match timeout(patience, read(&client, &secret)).await {
            Ok(Ok(text)) => {
                let now = hasher.hash_one(&text);
                if seen.replace(now) != Some(now) {
                    unusable = keys(&text).map(|keys| ring.replace(keys)).err();
                }
                unusable.as_ref().map(ToString::to_string)
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no response in time".into()),
        };
        if problem != logged {
            match &problem {
                Some(problem) => tracing::warn!("cannot follow the secrets manager: {problem}"),
                None => tracing::info!("the secrets manager can be followed again"),
            }
            logged = problem;
        }
    }
}

/// Reads the secret, which contains both keys, so that a person who changes it also states which
/// old key is still needed: `{"INNGEST_SIGNING_KEY": "signkey-…", "INNGEST_SIGNING_KEY_FALLBACK":
/// "signkey-…"}`.
async fn read(client: &Client<HttpConnector, Body>, secret: &Uri) -> Result<Bytes, BoxError> {
    let response = client.get(secret.clone()).await?;
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string().into());
    }
    let body = Limited::new(response.into_body(), 4096).collect().await?;
    Ok(body.to_bytes())
}

fn keys(secret: &[u8]) -> Result<Keys, BoxError> {
    // The parser's message could quote the secret.
    let vars = serde_json::from_slice::<HashMap<String, String>>(secret)
        .map_err(|_| "not the JSON that it should be")?;
    // Only the keys are used: whatever the secret contains, it must not turn verification off.
    let names = ["INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK"];
    let config = Config::from_vars(
        vars.into_iter()
            .filter(|(name, _)| names.contains(&&**name)),
    )?;
    Ok(config.keys().ok_or("no keys")?.snapshot().as_ref().clone())
}
