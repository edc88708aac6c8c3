//! How the app tells Inngest what functions it has, with a token made of the same signing key.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{Config, ConfigError, InngestApiAuth, InngestApiAuthService};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

/// What answers Inngest says so here; an answer without it counts as one that came from something else.
pub(crate) const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));

const APP: &str = "inngest-auth-demo";
/// Longest answer of the API that is read, in bytes.
const ANSWER: usize = 64 * 1024;

pub(crate) struct Registry {
    /// Speaks plain http, as self-hosted servers and the dev server do. For Inngest Cloud give `Client::builder`
    /// a connector that speaks TLS: nothing else changes. It follows no redirects, so no token leaves the API.
    api: InngestApiAuthService<Client<HttpConnector, Full<Bytes>>>,
    endpoint: String,
    /// Where Inngest reaches the app. Configured: `Host` and its like are the sender's words, which nobody signs.
    app_url: String,
}

impl Registry {
    /// `origin`: the app's own, like `https://app.example`.
    pub(crate) fn new(config: &Config, origin: &str) -> Result<Self, ConfigError> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self {
            api: InngestApiAuth::from_config(config).layer(client),
            endpoint: format!("{}/fn/register", config.api_base()?),
            app_url: format!("{}/api/inngest", origin.trim_end_matches('/')),
        })
    }

    /// What is registered. An in-band sync is answered with it.
    pub(crate) fn payload(&self) -> Value {
        let id = format!("{APP}-inspect");
        let step = json!({
            "id": "step",
            "name": "step",
            "runtime": {"type": "http", "url": format!("{}?fnId={id}&stepId=step", self.app_url)},
            "retries": {"attempts": 1},
        });
        json!({
            "url": self.app_url,
            "deployType": "ping",
            "appName": APP,
            "sdk": SDK,
            "v": "0.1",
            "framework": "axum",
            "functions": [
                {"id": id, "name": "inspect", "triggers": [{"event": "demo/inspect"}], "steps": {"step": step}}
            ],
        })
    }

    /// Whether the API changed anything, or why it did not register the app.
    pub(crate) async fn register(&self, deploy_id: Option<&str>) -> Result<bool, String> {
        let uri = match deploy_id {
            // One encoded value, whatever it holds.
            Some(id) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                format!("{}?{}", self.endpoint, query.append_pair("deployId", id).finish())
            }
            None => self.endpoint.clone(),
        };
        let request = Request::post(uri)
            .header("content-type", "application/json")
            .header("x-inngest-sdk", SDK)
            .header("x-inngest-req-version", "2")
            .body(Full::from(self.payload().to_string()))
            .map_err(|error| error.to_string())?;
        let answer = self.api.clone().oneshot(request).await.map_err(|error| told(&error))?;
        let (status, body) = (answer.status(), Body::new(Limited::new(answer.into_body(), ANSWER)));
        let body = body.collect().await.map_err(|error| told(&error))?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status, &answer["ok"]) {
            (StatusCode::OK, Value::Bool(true)) => Ok(answer["modified"] == true),
            _ => Err(format!(
                "Inngest's API answered {status}: {}",
                String::from_utf8_lossy(&body)
            )),
        }
    }
}

/// The error and what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
