//! Calls to Inngest's API with hyper-util's client, which follows no redirect, so that no token leaves the API.
//!
//! ```text
//! cargo run --example api_hyper       # against a server of its own that knows the old key only
//! INNGEST_SIGNING_KEY=signkey-… INNGEST_API_BASE_URL=http://localhost:8288 cargo run --example api_hyper
//! ```
//!
//! This client speaks plain http, as self-hosted servers do. For Inngest Cloud give its builder a connector that
//! speaks TLS: nothing else changes.

use std::error::Error;

use axum::Router;
use axum::http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{ApiAuthError, Config, InngestApiAuth, KeyRole, SigningKey};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::var_os("INNGEST_SIGNING_KEY") {
        Some(_) => Config::from_env()?,
        None => stand_in().await?,
    };
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let api = ServiceBuilder::new()
        .layer(InngestApiAuth::from_config(&config))
        .service(client);

    let request = Request::get(format!("{}/v1/events", config.api_base()?)).body(Full::default())?;
    let response = api.clone().oneshot(request).await?;
    let key = match response.extensions().get() {
        Some(KeyRole::Current) => "the current key's",
        Some(KeyRole::Fallback) => "the fallback's",
        None => "no",
    };
    println!(
        "{} answered {}, with {key} token",
        config.api_base()?,
        response.status()
    );

    // Any other host gets no token, and no request.
    let request = Request::get("http://api.inngest.example/v1/events").body(Full::default())?;
    match api.oneshot(request).await {
        Err(ApiAuthError::WrongOrigin) => println!("api.inngest.example was not asked"),
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(())
}

/// An API in the middle of a rotation: it does not know the new key yet.
async fn stand_in() -> Result<Config, Box<dyn Error>> {
    let (new, old) = ("signkey-demo-22222222", "signkey-demo-11111111");
    let known = format!("Bearer {}", *old.parse::<SigningKey>()?.bearer());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let app = Router::new().fallback(move |headers: HeaderMap| async move {
        let accepted = headers.get(AUTHORIZATION).is_some_and(|token| *token == *known);
        if accepted {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(Config::from_vars([
        ("INNGEST_SIGNING_KEY", new),
        ("INNGEST_SIGNING_KEY_FALLBACK", old),
        ("INNGEST_API_BASE_URL", &address),
    ])?)
}
