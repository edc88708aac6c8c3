//! Exports metrics with `prometheus-client`: requests verified by each key, rejections by reason,
//! and the fallback key's last use, which tells when the old key can be removed.
//!
//! ```text
//! # A tour: it calls itself and prints what Prometheus would scrape.
//! cargo run --example metrics
//! # As in production. LISTEN_ADDR sets the address.
//! INNGEST_SIGNING_KEY=signkey-… cargo run --example metrics
//! ```
//!
//! Copy `count.rs`, and `alerts.yml` for Prometheus. `promtool test rules alerts_test.yml` shows
//! what triggers each alert.

mod count;

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION};
use axum::routing::any;
use count::Metrics;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{
    Caller, Clock, Config, InngestApiAuth, InngestAuth, KeyRing, SIGNATURE_HEADER, SigningKey,
    SystemClock,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let tour = !std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("INNGEST_"));
    let config = if tour {
        in_a_rotation().await?
    } else {
        Config::from_env()?
    };
    let metrics = Metrics::new(config.keys().cloned());
    let app = app(InngestAuth::from_config(&config), &metrics);
    let address = std::env::var("LISTEN_ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(&address).await.map_err(|error| {
        format!("{address}: {error}; set LISTEN_ADDR=127.0.0.1:0 for any free port")
    })?;
    let address = listener.local_addr()?;
    if let (true, Some(keys)) = (tour, config.keys()) {
        println!(
            "What Prometheus sees after seven calls to this app, and one call from it to an API \
             that knows only the old key:\n"
        );
        call_in(&app, keys).await?;
        call_out(&config, &metrics).await?;
        println!("{}", scrape(&app).await?);
    }
    println!(
        "Serving http://{address}/metrics, and http://{address}/api/inngest for Inngest. Ctrl-C \
         stops."
    );
    Ok(axum::serve(listener, app).await?)
}

/// Builds the router, with the counting layer outside the layer.
fn app(auth: InngestAuth, metrics: &Metrics) -> Router {
    let functions = any(|_: Caller| async { "ran" });
    Router::new()
        .route("/api/inngest", metrics.watch(functions.layer(auth)))
        .merge(metrics.router())
}

/// Sends calls signed with the current key, the fallback key and a foreign key, a stale one, and
/// one without a signature.
async fn call_in(app: &Router, keys: &KeyRing) -> Result<(), Box<dyn Error>> {
    let keys = keys.snapshot();
    let (current, fallback) = (keys.current(), keys.fallback().ok_or("no fallback")?);
    let now = SystemClock.now().ok_or("no time")?;
    let foreign: SigningKey = "signkey-demo-33333333".parse()?;
    for signature in [
        Some(current.sign(b"{}", now)),
        Some(current.sign(b"{}", now)),
        Some(current.sign(b"{}", now.saturating_sub(20))),
        Some(fallback.sign(b"{}", now)),
        Some(current.sign(b"{}", now.saturating_sub(600))),
        Some(foreign.sign(b"{}", now)),
        None,
    ] {
        let mut request = Request::post("/api/inngest?fnId=demo&stepId=step");
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature.to_string());
        }
        app.clone().oneshot(request.body(Body::from("{}"))?).await?;
    }
    Ok(())
}

/// Calls Inngest's API once.
async fn call_out(config: &Config, metrics: &Metrics) -> Result<(), Box<dyn Error>> {
    let metrics = metrics.clone();
    let api = ServiceBuilder::new()
        .map_response(move |response| metrics.count_api_call(response))
        .layer(InngestApiAuth::from_config(config))
        .service(Client::builder(TokioExecutor::new()).build_http::<String>());
    api.oneshot(Request::get(format!("{}/v1/events", config.api_base()?)).body(String::new())?)
        .await?;
    Ok(())
}

async fn scrape(app: &Router) -> Result<String, Box<dyn Error>> {
    let response = app
        .clone()
        .oneshot(Request::get("/metrics").body(Body::empty())?)
        .await?;
    let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await?;
    Ok(String::from_utf8(body.into())?)
}

/// Starts an API that does not accept the new key yet, and returns a configuration for it. An
/// example may contain keys; the library never does.
async fn in_a_rotation() -> Result<Config, Box<dyn Error>> {
    let (new, old) = ("signkey-demo-22222222", "signkey-demo-11111111");
    let known = format!("Bearer {}", old.parse::<SigningKey>()?.bearer().as_str());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let api = Router::new().fallback(move |headers: HeaderMap| async move {
        if headers
            .get(AUTHORIZATION)
            .is_some_and(|token| *token == *known)
        {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    tokio::spawn(async { axum::serve(listener, api).await });
    Ok(Config::from_vars([
        ("INNGEST_SIGNING_KEY", new),
        ("INNGEST_SIGNING_KEY_FALLBACK", old),
        ("INNGEST_API_BASE_URL", &address),
    ])?)
}
