//! Syncs: how Inngest learns which functions the app has. The app sends them to Inngest's API, with
//! a token made from the signing key (out of band), or in its response to a signed request (in
//! band).

use axum::Json;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{Caller, Config, InngestApiAuth, InngestApiAuthService, KeyRing, Keys};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use crate::app::mode;
use crate::url::AppUrl;

/// The value of `X-Inngest-Sdk`. Inngest ignores responses without this header.
pub(crate) const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));
pub(crate) const FRAMEWORK: &str = "axum";

const SYNC_KIND: &str = "x-inngest-sync-kind";
const IN_BAND: &str = "in_band";
/// The capabilities that the app declares to Inngest.
const CAPABILITIES: [(&str, &str); 2] = [("in_band_sync", "v1"), ("trust_probe", "v1")];
/// The maximum size of a response from the API, in bytes.
const RESPONSE_LIMIT: usize = 64 * 1024;

/// An app's description for Inngest.
pub(crate) struct App {
    pub(crate) id: &'static str,
    /// The functions' configurations as Inngest expects them, without `steps`.
    pub(crate) functions: Vec<Value>,
}

/// The URLs at which Inngest may reach the app. None comes from `Host` or a similar header, because
/// headers are not signed.
pub(crate) struct Serve {
    /// The value of `INNGEST_SERVE_ORIGIN`. Its parts replace those of the other URLs.
    pub(crate) configured: Option<AppUrl>,
    /// The address that this server listens on: used if the request has no `url`.
    pub(crate) listening: AppUrl,
}

/// Registers the app with Inngest, and describes it.
pub(crate) struct Registry {
    /// Does not follow redirects, so that the token is sent to the API only.
    api: InngestApiAuthService<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    config: Config,
    app: App,
    serve: Serve,
}

impl Registry {
    pub(crate) fn new(config: &Config, app: App, serve: Serve) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            api: InngestApiAuth::from_config(config).layer(client),
            config: config.clone(),
            app,
            serve,
        }
    }

    /// Responds to a `PUT`. Only a signed one can ask for an in-band response: the layer removes
    /// that header from unsigned syncs.
    pub(crate) async fn sync(&self, parts: &Parts, caller: Caller, body: &[u8]) -> Response {
        let signed = match signed_url(body) {
            Ok(signed) => signed,
            Err(problem) => return failed(StatusCode::BAD_REQUEST, problem),
        };
        let in_band = parts
            .headers
            .get(SYNC_KIND)
            .is_some_and(|kind| kind == IN_BAND);
        match signed {
            None if in_band => failed(
                StatusCode::BAD_REQUEST,
                "the body of this in-band sync has no `url`",
            ),
            signed if in_band => {
                let payload = self.in_band(caller, &self.app_url(signed));
                ([(SYNC_KIND, IN_BAND)], Json(payload)).into_response()
            }
            signed => match self.register(&self.app_url(signed), parts).await {
                Ok(modified) => {
                    let message =
                        json!({"message": "Successfully registered", "modified": modified});
                    ([(SYNC_KIND, "out_of_band")], Json(message)).into_response()
                }
                Err(problem) => {
                    tracing::error!("failed to register the app: {problem}");
                    failed(StatusCode::INTERNAL_SERVER_ERROR, &problem)
                }
            },
        }
    }

    fn app_url(&self, signed: Option<AppUrl>) -> AppUrl {
        let url = signed.unwrap_or_else(|| self.serve.listening.clone());
        match &self.serve.configured {
            Some(configured) => url.overridden_by(configured),
            None => url,
        }
    }

    /// Returns the functions, each with the URL that calls it.
    fn functions(&self, url: &AppUrl) -> Vec<Value> {
        let with_step = |function: &Value| {
            let id = format!(
                "{}-{}",
                self.app.id,
                function["id"].as_str().unwrap_or_default()
            );
            let mut step = json!({
                "id": "step",
                "name": "step",
                "runtime": {"type": "http", "url": url.of_function(&id).to_string()},
            });
            let mut function = function.clone();
            if let Some(attempts) = function.as_object_mut().and_then(|it| it.remove("retries")) {
                step["retries"] = json!({ "attempts": attempts });
            }
            function["id"] = json!(id);
            function["steps"] = json!({ "step": step });
            function
        };
        self.app.functions.iter().map(with_step).collect()
    }

    /// Returns the response to an in-band sync.
    pub(crate) fn in_band(&self, caller: Caller, url: &AppUrl) -> Value {
        without_nulls(json!({
            "app_id": self.app.id,
            "env": self.config.environment().ok().flatten(),
            "framework": FRAMEWORK,
            "functions": self.functions(url),
            "inspection": self.inspection(caller),
            "sdk_author": "inngest-auth",
            "sdk_language": "rust",
            "sdk_version": env!("CARGO_PKG_VERSION"),
            "url": url.to_string(),
        }))
    }

    /// Returns the response to a `GET` (introspection). It has more members if the request was
    /// verified.
    pub(crate) fn inspection(&self, caller: Caller) -> Value {
        let keys = self.config.keys().map(KeyRing::snapshot);
        let fallback = keys.as_deref().and_then(Keys::fallback);
        let mut inspection = json!({
            "schema_version": "2024-05-24",
            "function_count": self.app.functions.len(),
            // This app sends no events.
            "has_event_key": false,
            "has_signing_key": keys.is_some(),
            "has_signing_key_fallback": fallback.is_some(),
            "mode": mode(caller),
        });
        if caller.verified().is_some() {
            let api = self.config.api_base().ok();
            // A self-hosted server accepts events at its API's origin.
            let events = api.map(|it| {
                if it == "https://api.inngest.com" {
                    "https://inn.gs"
                } else {
                    it
                }
            });
            // The full hash of a key is the API's token, so only the fingerprint is shown.
            let current = keys
                .as_deref()
                .map(|keys| keys.current().fingerprint().to_string());
            let configured = self.serve.configured.as_ref();
            for (name, value) in [
                ("authentication_succeeded", json!(true)),
                ("api_origin", json!(api)),
                ("app_id", json!(self.app.id)),
                ("capabilities", capabilities()),
                ("env", json!(self.config.environment().ok().flatten())),
                ("event_api_origin", json!(events)),
                ("framework", json!(FRAMEWORK)),
                ("sdk_language", json!("rust")),
                ("sdk_version", json!(env!("CARGO_PKG_VERSION"))),
                ("serve_origin", json!(configured.map(|it| &it.origin))),
                (
                    "serve_path",
                    json!(
                        configured
                            .map(|it| &it.path)
                            .filter(|path| !path.is_empty())
                    ),
                ),
                ("signing_key_hash", json!(current)),
                (
                    "signing_key_fallback_hash",
                    json!(fallback.map(|key| key.fingerprint().to_string())),
                ),
            ] {
                inspection[name] = value;
            }
        }
        without_nulls(inspection)
    }

    /// Sends the functions to Inngest's API. Returns whether that changed anything, or the API's
    /// error.
    async fn register(&self, url: &AppUrl, parts: &Parts) -> Result<bool, String> {
        let payload = json!({
            "url": url.to_string(),
            "deployType": "ping",
            "appName": self.app.id,
            "sdk": SDK,
            "v": "0.1",
            "framework": FRAMEWORK,
            "capabilities": capabilities(),
            "functions": self.functions(url),
        });
        let endpoint = format!(
            "{}/fn/register",
            self.config.api_base().map_err(|it| it.to_string())?
        );
        let uri = match deploy_id(parts) {
            // Encoded, because anyone who can send a sync chooses it.
            Some(id) => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                format!("{endpoint}?{}", query.append_pair("deployId", &id).finish())
            }
            None => endpoint,
        };
        let mut request = Request::post(uri)
            .header("content-type", "application/json")
            .header("user-agent", SDK)
            .header("x-inngest-sdk", SDK)
            .header("x-inngest-framework", FRAMEWORK)
            .header("x-inngest-req-version", "2");
        if let Some(kind) = server_kind(&parts.headers) {
            request = request.header("x-inngest-expected-server-kind", kind);
        }
        let request = request
            .body(Full::from(payload.to_string()))
            .map_err(|error| with_causes(&error))?;
        let response = self
            .api
            .clone()
            .oneshot(request)
            .await
            .map_err(|error| with_causes(&error))?;
        let status = response.status();
        let body = Body::new(Limited::new(response.into_body(), RESPONSE_LIMIT));
        let body = body
            .collect()
            .await
            .map_err(|error| with_causes(&error))?
            .to_bytes();
        let response: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status, &response["ok"], response["error"].as_str()) {
            (StatusCode::OK, Value::Bool(true), _) => Ok(response["modified"] == true),
            // Inngest shows this message to users unchanged.
            (_, _, Some(error)) => Err(error.to_owned()),
            _ => Err(format!(
                "Inngest's API responded {status}: {}",
                String::from_utf8_lossy(&body)
            )),
        }
    }
}

/// Returns the `url` in the body of a sync, if there is one.
fn signed_url(body: &[u8]) -> Result<Option<AppUrl>, &'static str> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match &body["url"] {
        Value::Null => Ok(None),
        url => match url.as_str().and_then(AppUrl::parse) {
            Some(url) => Ok(Some(url)),
            None => Err("the `url` in the body of this sync is not an http(s) URL"),
        },
    }
}

fn deploy_id(parts: &Parts) -> Option<String> {
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(name, id)| (name == "deployId").then(|| id.into_owned()))
}

/// Returns the kind of server that the client claims to be, so that the API can check it. The
/// header is not signed, so nothing else may depend on it.
fn server_kind(headers: &HeaderMap) -> Option<&'static str> {
    let claimed = headers.get("x-inngest-server-kind")?;
    ["cloud", "dev"].into_iter().find(|kind| claimed == kind)
}

fn capabilities() -> Value {
    CAPABILITIES.into_iter().collect()
}

/// Removes the members that are null. Inngest expects them to be absent.
fn without_nulls(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    object
}

fn failed(status: StatusCode, problem: &str) -> Response {
    (status, Json(json!({"message": problem, "modified": false}))).into_response()
}

/// Returns an error's message, followed by those of its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
