//! Calls to Inngest's API with hyper-util's client, which does not follow redirects.
//!
//! ```text
//! cargo run --example api_hyper       # a rotation, with the example's own API
//! INNGEST_SIGNING_KEY=signkey-… INNGEST_API_BASE_URL=http://localhost:8288 \
//!     cargo run --example api_hyper   # one call to your server
//! ```
//!
//! This client uses plain http, as self-hosted servers do. For Inngest Cloud, build it with a TLS
//! connector. Nothing else changes.

use std::error::Error;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{
    ApiAuthError, Config, InngestApiAuth, InngestApiAuthService, KeyRing, KeyRole, Keys, SigningKey,
};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

type Api = InngestApiAuthService<Client<HttpConnector, Full<Bytes>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    if std::env::var_os("INNGEST_SIGNING_KEY").is_some() {
        ask_your_server().await
    } else {
        show_a_rotation().await
    }
}

fn http_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Makes one call to the server of the environment's configuration.
async fn ask_your_server() -> Result<(), Box<dyn Error>> {
    let config = Config::from_env()?;
    let api = InngestApiAuth::from_config(&config).layer(http_client());
    let uri = format!("{}/v1/events", config.api_base()?);
    let response = match api.oneshot(Request::get(&uri).body(Full::default())?).await {
        Err(ApiAuthError::Client(error)) => {
            return Err(format!("{uri}: {}", with_causes(&*error)).into());
        }
        outcome => outcome?,
    };
    let status = response.status();
    let sent = match response.extensions().get() {
        Some(KeyRole::Current) => "with the token of INNGEST_SIGNING_KEY",
        Some(KeyRole::Fallback) => "with the token of INNGEST_SIGNING_KEY_FALLBACK",
        None => "without a token, because INNGEST_DEV is set",
    };
    println!("GET {uri} {sent}: {status}");
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        println!("The server was reached, but rejected every key. Either INNGEST_API_BASE_URL is");
        println!("not the server that the key belongs to, or the key has been rotated.");
        println!("Keys tried (fingerprints are not secret):");
        if let Some(keys) = config.keys().map(KeyRing::snapshot) {
            println!("  current key: {:?}", keys.current());
            println!("  fallback key: {:?}", keys.fallback());
        }
        return Err("the API rejected every key".into());
    }
    Ok(())
}

/// Returns an error's message, followed by those of its causes.
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Makes calls during a rotation. Fails if a call does not end as printed.
async fn show_a_rotation() -> Result<(), Box<dyn Error>> {
    let old: SigningKey = "signkey-demo-11111111".parse()?;
    let new: SigningKey = "signkey-demo-22222222".parse()?;
    let server = StandIn::start(&old, &new).await?;
    let ring = KeyRing::from(Keys::new(new, Some(old)));
    let api = InngestApiAuth::new(ring.clone(), &server.url)?.layer(http_client());

    println!("INNGEST_SIGNING_KEY is not set, so this calls the example's own API during a");
    println!("rotation. The app has the new key, and the old key as its fallback.");
    println!("Each 401 below is expected: it tells the layer that the API does not know that");
    println!("key, so the layer retries with the other key. The app sees only the 200.");

    println!("\nThe API knows only the old key:");
    server
        .expect(&api, "the first call", &["new key: 401", "old key: 200"])
        .await?;
    server.expect(&api, "the second", &["old key: 200"]).await?;

    println!("\nAfter Rotate is clicked, the API knows only the new key:");
    server.accept("new key");
    server
        .expect(&api, "the next call", &["old key: 401", "new key: 200"])
        .await?;
    server
        .expect(&api, "the one after it", &["new key: 200"])
        .await?;

    println!("\nThe app removes the fallback key:");
    ring.retire_fallback();
    server.expect(&api, "a call", &["new key: 200"]).await?;

    println!("\nA request to another host is an error, and nothing is sent:");
    let request = Request::get("http://api.inngest.example/v1/events").body(Full::default())?;
    match api.oneshot(request).await {
        Err(error @ ApiAuthError::WrongOrigin) => println!("  {error}"),
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(())
}

/// An API that accepts one of two keys, and records its status for each.
struct StandIn {
    url: String,
    accepted: Arc<Mutex<&'static str>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Starts an API that accepts the old key.
    async fn start(old: &SigningKey, new: &SigningKey) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self {
            url: format!("http://{}", listener.local_addr()?),
            accepted: Arc::new(Mutex::new("old key")),
            requests: Arc::default(),
        };
        let bearer = |key: &SigningKey| KeyRing::from(key.clone()).bearers().remove(0);
        let names = [(bearer(old), "old key"), (bearer(new), "new key")];
        let (accepted, requests) = (Arc::clone(&server.accepted), Arc::clone(&server.requests));
        let app = Router::new().fallback(move |headers: HeaderMap| async move {
            let sent: Option<&HeaderValue> = headers.get(AUTHORIZATION);
            let key = names.iter().find(|(bearer, _)| sent == Some(bearer));
            let key = key.map_or("no key", |(_, name)| name);
            let status = if key == *accepted.lock().unwrap() {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            };
            requests
                .lock()
                .unwrap()
                .push(format!("{key}: {}", status.as_u16()));
            status
        });
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(server)
    }

    fn accept(&self, key: &'static str) {
        *self.accepted.lock().unwrap() = key;
    }

    /// Makes one call, which must succeed after exactly these requests.
    async fn expect(&self, api: &Api, what: &str, requests: &[&str]) -> Result<(), Box<dyn Error>> {
        let request = Request::get(format!("{}/v1/events", self.url)).body(Full::default())?;
        let status = api.clone().oneshot(request).await?.status();
        let sent = std::mem::take(&mut *self.requests.lock().unwrap());
        println!("  {what}: {} ({})", status.as_u16(), sent.join(", then "));
        if status != StatusCode::OK || sent != requests {
            return Err(format!("expected 200 ({})", requests.join(", then ")).into());
        }
        Ok(())
    }
}
