//! Calls to Inngest's API, against a real server that stands in for it and knows one of the keys.
#![cfg(feature = "layer")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use common::key;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::{
    ApiAuthError, ApiBaseError, Config, InngestApiAuth, InngestApiAuthService, InngestAuth, KeyRing, KeyRole, Keys,
};
use serde_json::Value;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, ServiceExt};

const CURRENT: &str = "signkey-prod-11111111";
const FALLBACK: &str = "signkey-prod-22222222";

type Api = InngestApiAuthService<Client<HttpConnector, Full<Bytes>>>;

/// The headers of every request that the server got.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<HeaderMap>>>);

impl Got {
    fn take(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn tokens(&self) -> Vec<Option<String>> {
        let token = |headers: HeaderMap| Some(headers.get("authorization")?.to_str().unwrap().to_owned());
        self.take().into_iter().map(token).collect()
    }
}

fn bearer(text: &str) -> String {
    format!("Bearer {}", *key(text).bearer())
}

/// A server that answers each token with a status of its own.
async fn server(answers: impl Fn(Option<&str>) -> u16 + Clone + Send + Sync + 'static) -> (SocketAddr, Got) {
    let got = Got::default();
    let seen = got.clone();
    let handler = move |headers: HeaderMap| {
        let status = answers(headers.get("authorization").map(|token| token.to_str().unwrap()));
        seen.0.lock().unwrap().push(headers);
        async move { (StatusCode::from_u16(status).unwrap(), "{}") }
    };
    (common::serve(Router::new().fallback(handler)).await, got)
}

fn config(api: SocketAddr, vars: &[(&str, &str)]) -> Config {
    let base = format!("http://{api}");
    let own = [("INNGEST_API_BASE_URL", &*base)];
    Config::from_vars(own.into_iter().chain(vars.iter().copied())).unwrap()
}

fn layered(auth: &InngestApiAuth) -> Api {
    auth.layer(Client::builder(TokioExecutor::new()).build_http())
}

fn to(uri: String) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("{}")).unwrap()
}

type Outcome = Result<Response<Incoming>, ApiAuthError<hyper_util::client::legacy::Error>>;

async fn call(api: &Api, server: SocketAddr) -> Outcome {
    api.clone().oneshot(to(format!("http://{server}/fn/register"))).await
}

#[tokio::test]
async fn the_fallback_is_tried_once_and_only_on_401_and_403() {
    for current in [200, 401, 403, 500, 404, 429] {
        for fallback in [200, 401, 403, 500] {
            for has_fallback in [true, false] {
                let (known, other) = (bearer(CURRENT), bearer(FALLBACK));
                let (address, got) = server(move |token| match token {
                    Some(token) if token == known => current,
                    Some(token) if token == other => fallback,
                    _ => 418,
                })
                .await;
                let old = if has_fallback { FALLBACK } else { "" };
                let vars = [("INNGEST_SIGNING_KEY", CURRENT), ("INNGEST_SIGNING_KEY_FALLBACK", old)];
                let api = layered(&InngestApiAuth::from_config(&config(address, &vars)));
                let response = call(&api, address).await.unwrap();
                let again = has_fallback && [401, 403].contains(&current);
                let (status, role, tokens) = if again {
                    (
                        fallback,
                        KeyRole::Fallback,
                        vec![Some(bearer(CURRENT)), Some(bearer(FALLBACK))],
                    )
                } else {
                    (current, KeyRole::Current, vec![Some(bearer(CURRENT))])
                };
                assert_eq!(response.status().as_u16(), status, "{current} {fallback}");
                assert_eq!(response.extensions().get(), Some(&role), "{current} {fallback}");
                assert_eq!(got.tokens(), tokens, "{current} {fallback}");
            }
        }
    }
}

#[tokio::test]
async fn a_rotation_is_followed_at_the_next_call() {
    let (address, got) = server(|_| 200).await;
    let config = config(address, &[("INNGEST_SIGNING_KEY", CURRENT)]);
    let (inbound, outbound) = (InngestAuth::from_config(&config), InngestApiAuth::from_config(&config));
    let api = layered(&outbound);
    call(&api, address).await.unwrap();
    inbound.keys().unwrap().rotate(key(FALLBACK));
    call(&api, address).await.unwrap();
    assert_eq!(got.tokens(), [Some(bearer(CURRENT)), Some(bearer(FALLBACK))]);
    assert_eq!(outbound.keys().unwrap().snapshot(), config.keys().unwrap().snapshot());
}

#[tokio::test]
async fn a_shared_ring_can_be_given_with_the_url_of_the_api() {
    let (address, got) = server(|_| 200).await;
    let ring = KeyRing::from(key(CURRENT));
    let outbound = InngestApiAuth::new(ring.clone(), &format!("http://{address}")).unwrap();
    let api = layered(&outbound);
    call(&api, address).await.unwrap();
    ring.rotate(key(FALLBACK));
    call(&api, address).await.unwrap();
    assert_eq!(got.tokens(), [Some(bearer(CURRENT)), Some(bearer(FALLBACK))]);

    let error = InngestApiAuth::new(ring, "https://user:hunter2@api.inngest.com").unwrap_err();
    assert_eq!(error, ApiBaseError::UserInfo);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// What `Config` accepts, `from_config` must be able to read: it panics otherwise.
#[test]
fn every_base_url_that_a_configuration_accepts_has_an_origin() {
    let mut accepted = 0;
    for byte in 0..=127_u8 {
        let odd = char::from(byte);
        for url in [
            format!("http://{odd}"),
            format!("http://{odd}host"),
            format!("http://ho{odd}st:80"),
            format!("http://host{odd}"),
            format!("http://host:{odd}"),
            format!("http://host:{odd}1"),
            format!("http://host:6553{odd}/"),
            format!("http://[::{odd}]"),
            format!("http://[::1]{odd}"),
            format!("http://host/{odd}"),
            format!("http{odd}://host"),
            format!("{odd}host:80"),
        ] {
            for variable in ["INNGEST_API_BASE_URL", "INNGEST_BASE_URL", "INNGEST_DEV"] {
                let vars = [("INNGEST_SIGNING_KEY", CURRENT), (variable, &url)];
                if let Ok(config) = Config::from_vars(vars) {
                    let _ = InngestApiAuth::from_config(&config);
                    accepted += 1;
                }
            }
        }
    }
    let long = format!("http://{}/{}", "a".repeat(70_000), "a".repeat(70_000));
    let vars = [("INNGEST_SIGNING_KEY", CURRENT), ("INNGEST_API_BASE_URL", &long)];
    if let Ok(config) = Config::from_vars(vars) {
        let _ = InngestApiAuth::from_config(&config);
    }
    assert!(accepted > 500, "{accepted}");
}

#[test]
fn the_client_can_be_reached_through_the_service() {
    let auth = InngestApiAuth::new(key(CURRENT), "https://api.inngest.com").unwrap();
    let mut api = auth.layer(String::from("client"));
    api.get_mut().push('!');
    assert_eq!(api.get_ref(), "client!");
    assert!(format!("{api:?}").contains("signkey-prod-…"), "{api:?}");
    assert_eq!(api.clone().into_inner(), "client!");
}

#[tokio::test]
async fn the_branch_environment_is_named() {
    let (address, got) = server(|_| 200).await;
    let named = |vars: &[(&str, &str)]| layered(&InngestApiAuth::from_config(&config(address, vars)));
    let key_is = ("INNGEST_SIGNING_KEY", CURRENT);
    for (vars, expected) in [
        (&[key_is][..], None),
        (
            &[key_is, ("INNGEST_ENV", "feature/x"), ("BRANCH", "other")],
            Some("feature/x"),
        ),
        (&[key_is, ("RAILWAY_GIT_BRANCH", "über")], Some("über")),
    ] {
        call(&named(vars), address).await.unwrap();
        let headers = got.take().pop().unwrap();
        assert_eq!(
            headers.get("x-inngest-env").map(HeaderValue::as_bytes),
            expected.map(str::as_bytes)
        );
    }
    // What the request names itself stays.
    let mut request = to(format!("http://{address}/"));
    request.headers_mut().insert("x-inngest-env", "own".parse().unwrap());
    named(&[key_is, ("INNGEST_ENV", "x")]).oneshot(request).await.unwrap();
    assert_eq!(got.take()[0]["x-inngest-env"], "own");

    let branch_key = ("INNGEST_SIGNING_KEY", "signkey-branch-11111111");
    let error = call(&named(&[branch_key]), address).await.unwrap_err();
    assert!(
        matches!(error, ApiAuthError::MissingEnvironment) && error.to_string().contains("INNGEST_ENV"),
        "{error}"
    );
    assert_eq!(got.take().len(), 0);
    // Or in the request.
    let mut request = to(format!("http://{address}/"));
    request.headers_mut().insert("x-inngest-env", "own".parse().unwrap());
    named(&[branch_key]).oneshot(request).await.unwrap();
    assert_eq!(got.take()[0]["x-inngest-env"], "own");
    call(&named(&[branch_key, ("INNGEST_ENV", "x")]), address)
        .await
        .unwrap();
    assert_eq!(got.take()[0]["x-inngest-env"], "x");
}

#[tokio::test]
async fn the_token_goes_to_the_api_and_nowhere_else() {
    let (address, got) = server(|_| 200).await;
    let (elsewhere, strangers) = server(|_| 200).await;
    let api = layered(&InngestApiAuth::from_config(&config(
        address,
        &[("INNGEST_SIGNING_KEY", CURRENT)],
    )));
    for uri in [
        format!("http://{elsewhere}/fn/register"),
        format!("https://{address}/fn/register"),
        format!("http://localhost:{}/fn/register", address.port()),
        format!("http://{address}@{elsewhere}/fn/register"),
        format!("http://user@{address}/fn/register"),
        "/fn/register".to_owned(),
    ] {
        let outcome = api.clone().oneshot(to(uri.clone())).await;
        assert!(matches!(outcome, Err(ApiAuthError::WrongOrigin)), "{uri}");
    }
    assert_eq!((got.take().len(), strangers.take().len()), (0, 0));
}

#[tokio::test]
async fn a_redirect_takes_no_token_along() {
    let (elsewhere, strangers) = server(|_| 200).await;
    let location = format!("http://{elsewhere}/fn/register");
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let redirects = Router::new()
            .fallback(move || async move { (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, location)]) });
        let address = common::serve(redirects).await;
        let api = layered(&InngestApiAuth::from_config(&config(
            address,
            &[("INNGEST_SIGNING_KEY", CURRENT)],
        )));
        assert_eq!(call(&api, address).await.unwrap().status().as_u16(), status);
    }
    assert_eq!(strangers.take().len(), 0, "requests at the second host");
}

#[tokio::test]
async fn dev_mode_sends_no_token() {
    let (address, got) = server(|_| 401).await;
    let vars = [("INNGEST_SIGNING_KEY", CURRENT), ("INNGEST_DEV", "1")];
    let auth = InngestApiAuth::from_config(&config(address, &vars));
    assert!(auth.keys().is_none());
    assert_eq!(
        call(&layered(&auth), address).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(got.tokens(), [None]);
}

#[tokio::test]
async fn two_keys_with_one_token_send_it_once() {
    let (address, got) = server(|_| 401).await;
    let (lower, upper) = ("signkey-prod-aabbccdd", "signkey-prod-AABBCCDD");
    for (current, fallback, expected) in [
        (CURRENT, FALLBACK, vec![CURRENT, FALLBACK]),
        (CURRENT, "", vec![CURRENT]),
        // Two HMAC keys, one token.
        (lower, upper, vec![lower]),
    ] {
        let vars = [
            ("INNGEST_SIGNING_KEY", current),
            ("INNGEST_SIGNING_KEY_FALLBACK", fallback),
        ];
        let api = layered(&InngestApiAuth::from_config(&config(address, &vars)));
        assert_eq!(call(&api, address).await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let expected: Vec<_> = expected.into_iter().map(|key| Some(bearer(key))).collect();
        assert_eq!(got.tokens(), expected, "{current} {fallback}");
    }
}

#[tokio::test]
async fn a_setting_of_the_api_that_is_invalid_fails_every_call() {
    for (variable, value) in [
        ("INNGEST_API_BASE_URL", "api.inngest.com"),
        ("INNGEST_BASE_URL", "ftp://api.inngest.com"),
        ("INNGEST_ENV", "two\nlines"),
        ("BRANCH", "a\u{7}b"),
    ] {
        let config = Config::from_vars([("INNGEST_SIGNING_KEY", CURRENT), (variable, value)]).unwrap();
        let (address, got) = server(|_| 200).await;
        let error = call(&layered(&InngestApiAuth::from_config(&config)), address)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ApiAuthError::Unconfigured(error) if error.variable() == variable),
            "{variable}: {error}"
        );
        assert_eq!(got.take().len(), 0, "{variable}");
    }
}

#[tokio::test]
async fn the_client_is_called_only_when_it_is_ready() {
    let (address, got) = server(|token| if token == Some(&bearer(CURRENT)) { 401 } else { 200 }).await;
    let vars = [
        ("INNGEST_SIGNING_KEY", CURRENT),
        ("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK),
    ];
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    // Panics where it is called before it said that it is ready.
    let one_at_a_time = ConcurrencyLimit::new(client, 1);
    let api = InngestApiAuth::from_config(&config(address, &vars)).layer(one_at_a_time);
    let uri = format!("http://{address}/fn/register");
    assert_eq!(api.oneshot(to(uri)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(got.tokens(), [Some(bearer(CURRENT)), Some(bearer(FALLBACK))]);
}

#[test]
fn bearers_are_the_known_answers_current_first_and_sensitive() {
    let all: Value = serde_json::from_str(include_str!("vectors/known_answers.json")).unwrap();
    for case in all["bearer_hash"].as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let ring = KeyRing::from(Keys::new(key(text("key")), Some(key(FALLBACK))));
        let [current, fallback] = ring.bearers().try_into().unwrap();
        assert_eq!(current, format!("Bearer {}{}", text("prefix"), text("sha256")));
        assert_eq!(fallback, bearer(FALLBACK));
        assert!(current.is_sensitive() && fallback.is_sensitive());
        assert_eq!(format!("{current:?}"), "Sensitive");
    }
}

#[tokio::test]
async fn an_unusable_environment_fails_every_call_and_says_what_to_set() {
    if std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("INNGEST_")) {
        return; // Somebody's own environment, which is usable or not as they made it.
    }
    let (address, got) = server(|_| 200).await;
    let error = call(&layered(&InngestApiAuth::from_env()), address).await.unwrap_err();
    assert!(matches!(error, ApiAuthError::Unconfigured(_)) && error.to_string().contains("INNGEST_SIGNING_KEY"));
    assert_eq!(got.take().len(), 0);
    assert!(InngestApiAuth::try_from_env().is_err());
}
