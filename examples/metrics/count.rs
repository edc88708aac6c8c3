//! Counts requests from the extensions of their responses, and reads the key ring. Copy this file.
//!
//! It uses `prometheus-client` and the public API of this crate.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{self, Extensions, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use inngest_auth::{Clock, KeyRing, KeyRole, Rejection, SystemClock, Verified};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A handle to the metrics. Clones count together.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    rejections: Family<Rejected, Counter>,
    age: Histogram,
    fallback_last_used: Gauge,
    api_calls: Family<Token, Counter>,
    /// `None` if requests are not verified.
    keys: Option<KeyRing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
    key: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    kind: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Token {
    key: &'static str,
    status: u16,
}

/// The histogram's limits in seconds. 300 is the default tolerance.
const AGES: [f64; 8] = [1.0, 2.0, 5.0, 15.0, 60.0, 150.0, 300.0, 3600.0];

impl Metrics {
    /// Creates the metrics. `keys` is the ring of the layer or the configuration.
    pub(crate) fn new(keys: Option<KeyRing>) -> Self {
        let mut registry = Registry::with_prefix("inngest");
        let requests = Family::default();
        registry.register(
            "requests",
            "Requests to the guarded route",
            requests.clone(),
        );
        let rejections = Family::default();
        registry.register(
            "rejections",
            "Rejected requests by RejectionKind",
            rejections.clone(),
        );
        let age = Histogram::new(AGES);
        let help = "Difference between the time of a verified request and this machine's clock";
        registry.register_with_unit("signature_age", help, Unit::Seconds, age.clone());
        let fallback_last_used = Gauge::default();
        let help = "When the fallback key last verified a request, or 0 if it did not since the \
                    keys last changed";
        registry.register_with_unit(
            "fallback_last_used_timestamp",
            help,
            Unit::Seconds,
            fallback_last_used.clone(),
        );
        let api_calls = Family::default();
        registry.register(
            "api_calls",
            "Calls to Inngest's API by the token sent last",
            api_calls.clone(),
        );
        Self(Arc::new(Inner {
            registry,
            requests,
            rejections,
            age,
            fallback_last_used,
            api_calls,
            keys,
        }))
    }

    /// Adds counting outside the guarded route, so that it sees the layer's own responses.
    pub(crate) fn watch(&self, guarded: MethodRouter) -> MethodRouter {
        guarded.layer(from_fn_with_state(self.clone(), watch))
    }

    /// Returns the route `GET /metrics` for Prometheus. It is not authenticated: keep it off the
    /// public network.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/metrics", get(scrape))
            .with_state(self.clone())
    }

    /// Counts a response from Inngest's API. Use it with `ServiceBuilder::map_response`, outside
    /// `InngestApiAuth`.
    pub(crate) fn count_api_call<B>(&self, response: http::Response<B>) -> http::Response<B> {
        let (key, status) = (
            name(response.extensions().get()),
            response.status().as_u16(),
        );
        self.0.api_calls.get_or_create(&Token { key, status }).inc();
        response
    }

    /// Counts a response. `arrived` is when the request arrived, in Unix seconds.
    fn count(&self, method: &'static str, found: &Extensions, arrived: Option<u64>) {
        let (verified, rejection) = (found.get::<Verified>(), found.get::<Rejection>());
        let outcome = match (verified, rejection) {
            (_, Some(_)) => "rejected",
            (Some(_), None) => "verified",
            // Dev mode, or an unsigned sync.
            (None, None) => "unverified",
        };
        let key = name(verified.map(Verified::key).as_ref());
        self.0
            .requests
            .get_or_create(&Outcome { outcome, key })
            .inc();
        if let Some(rejection) = rejection {
            let kind = rejection.kind().as_str();
            self.0
                .rejections
                .get_or_create(&Rejected { kind, method })
                .inc();
        }
        // Only for verified requests, because anyone can send an old time.
        let age = verified
            .zip(arrived)
            .map(|(verified, now)| now.abs_diff(verified.signed_at()));
        if let Some(age) = age.and_then(|age| u32::try_from(age).ok()) {
            self.0.age.observe(age.into());
        }
    }
}

async fn watch(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let (arrived, method) = (SystemClock.now(), known(request.method()));
    let response = next.run(request).await;
    metrics.count(method, response.extensions(), arrived);
    response
}

/// Returns a label from a closed set. Clients choose the method, and each new label creates a time
/// series.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "other",
    }
}

async fn scrape(State(Metrics(metrics)): State<Metrics>) -> Response {
    let last = metrics
        .keys
        .as_ref()
        .and_then(|keys| keys.usage().fallback_last_used);
    metrics
        .fallback_last_used
        .set(last.and_then(|at| at.try_into().ok()).unwrap_or(0));
    let mut text = String::new();
    match encode(&mut text, &metrics.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn name(role: Option<&KeyRole>) -> &'static str {
    role.map_or("none", |role| role.as_str())
}
