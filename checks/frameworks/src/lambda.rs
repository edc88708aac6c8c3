//! `lambda_http`: events instead of sockets, as API Gateway and function URLs send them.

use axum::Router;
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use inngest_auth::InngestAuth;
use lambda_http::{IntoResponse, request};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::layered::app;
use crate::{PATH, Reply, Setup};

#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// API Gateway's REST APIs: payload format 1.0.
    Gateway,
    /// Function URLs and API Gateway's HTTP APIs: payload format 2.0.
    FunctionUrl,
}

/// Runs the app in Lambda's runtime, which this check does not have: it sends events to the same
/// router.
#[expect(dead_code, reason = "compiled because the guide shows it")]
async fn serve(auth: InngestAuth) -> Result<(), lambda_http::Error> {
    lambda_http::run(app(auth)).await
}

/// Sends a request as an event. Its body is base64 if it is not text, or if `base64` is set.
pub(crate) async fn send(
    setup: &Setup,
    event: Event,
    base64: bool,
    method: Method,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let text = str::from_utf8(body).ok().filter(|_| !base64);
    let mut single = Map::new();
    let mut several: Map<String, Value> = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        // Format 2.0 joins them, as a proxy may.
        single.insert(name.to_string(), json!(values.join(",")));
        several.insert(name.to_string(), json!(values));
    }
    let body = text.map_or_else(|| BASE64_STANDARD.encode(body), ToOwned::to_owned);
    let event = match event {
        Event::FunctionUrl => json!({
            "version": "2.0", "routeKey": "$default", "rawPath": PATH, "rawQueryString": "",
            "headers": single, "body": body, "isBase64Encoded": text.is_none(),
            "requestContext": {
                "accountId": "1", "apiId": "api", "domainName": "app.example",
                "domainPrefix": "app",
                "http": {
                    "method": method.as_str(), "path": PATH, "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1", "userAgent": "Inngest",
                },
                "requestId": "1", "routeKey": "$default", "stage": "$default", "time": "",
                "timeEpoch": 0,
            },
        }),
        Event::Gateway => json!({
            "resource": PATH, "path": PATH, "httpMethod": method.as_str(),
            "headers": single, "multiValueHeaders": several,
            "queryStringParameters": {}, "multiValueQueryStringParameters": {},
            "pathParameters": {}, "stageVariables": {},
            "body": body, "isBase64Encoded": text.is_none(),
            "requestContext": {
                "accountId": "1", "apiId": "api", "resourceId": "1", "resourcePath": PATH,
                "stage": "prod", "requestId": "1", "httpMethod": method.as_str(),
                "protocol": "HTTP/1.1", "identity": {}, "authorizer": {},
            },
        }),
    };
    let request = request::from_str(&event.to_string()).expect("it is such an event");
    // In a REST API of API Gateway, the path begins with the stage.
    let app = Router::new()
        .nest("/prod", app(setup.auth()))
        .merge(app(setup.auth()));
    let response = app.oneshot(request).await.expect("a router does not fail");
    let (head, body) = response.into_response().await.into_parts();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.expect("it is in memory").to_bytes(),
    }
}
