//! Calls to Inngest's API over sockets, to a server that stands in for the API and counts requests.
#![cfg(feature = "layer")]

mod common;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use common::key;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::api::SingleAttempt;
use inngest_auth::{
    ApiAuthError, ApiBaseError, Config, InngestApiAuth, InngestApiAuthService, InngestAuth,
    KeyRing, KeyRole, Keys,
};
use serde_json::Value;
use tokio::sync::{Barrier, Notify, Semaphore, mpsc};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, ServiceExt, service_fn};

const CURRENT: &str = "signkey-prod-11111111";
const FALLBACK: &str = "signkey-prod-22222222";
const NEXT: &str = "signkey-prod-33333333";
/// How many calls run concurrently in the tests of concurrent calls.
const MANY: usize = 64;

fn bearer(text: &str) -> String {
    format!("Bearer {}", key(text).bearer().as_str())
}

/// A stand-in for the API: its status for each token, and the headers of every request received.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    known: Arc<Mutex<HashMap<String, u16>>>,
    got: Arc<Mutex<Vec<HeaderMap>>>,
    /// Requests wait here before they get a response.
    gate: Arc<Mutex<Option<Arc<Barrier>>>>,
}

impl Server {
    /// Responds 401 to every request until other statuses are set.
    async fn start() -> Self {
        let mut server = Self {
            address: ([0; 4], 0).into(),
            known: Arc::default(),
            got: Arc::default(),
            gate: Arc::default(),
        };
        let handler = server.clone();
        let app =
            Router::new().fallback(move |headers| async move { handler.respond(headers).await });
        server.address = common::serve(app).await;
        server
    }

    async fn knowing(keys: &[&str]) -> Self {
        let server = Self::start().await;
        let keys: Vec<_> = keys.iter().map(|key| (*key, 200)).collect();
        server.respond_to(&keys);
        server
    }

    async fn respond(&self, headers: HeaderMap) -> (StatusCode, &'static str) {
        let token = headers
            .get("authorization")
            .map(|token| token.to_str().unwrap().to_owned());
        self.got.lock().unwrap().push(headers);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.wait().await;
        }
        let known = self.known.lock().unwrap();
        let status = token
            .and_then(|token| known.get(&token).copied())
            .unwrap_or(401);
        (StatusCode::from_u16(status).unwrap(), "{}")
    }

    /// Sets the statuses for the tokens of these keys. Any other token gets 401.
    fn respond_to(&self, keys: &[(&str, u16)]) {
        let known = keys.iter().map(|(text, status)| (bearer(text), *status));
        *self.known.lock().unwrap() = known.collect();
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a request to this server.
    fn request(&self) -> Request<Full<Bytes>> {
        to(format!("{}/fn/register", self.url()))
    }

    fn config(&self, vars: &[(&str, &str)]) -> Config {
        let url = self.url();
        let own = [("INNGEST_API_BASE_URL", &*url)];
        Config::from_vars(own.into_iter().chain(vars.iter().copied())).unwrap()
    }

    /// Returns the layer with a ring of its own.
    fn auth(&self, current: &str, fallback: Option<&str>) -> InngestApiAuth {
        let keys = Keys::new(key(current), fallback.map(key));
        InngestApiAuth::new(keys, &self.url()).unwrap()
    }

    /// Returns the headers of the requests since the last call.
    fn take(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    /// Returns the tokens of the requests since the last call.
    fn tokens(&self) -> Vec<Option<String>> {
        let token =
            |headers: HeaderMap| Some(headers.get("authorization")?.to_str().unwrap().into());
        self.take().into_iter().map(token).collect()
    }

    /// Returns how many requests had each key's token since the last call.
    fn counts<const N: usize>(&self, keys: [&str; N]) -> [usize; N] {
        let tokens = self.tokens();
        let counts = keys.map(|key| {
            let token = Some(bearer(key));
            tokens.iter().filter(|sent| **sent == token).count()
        });
        assert_eq!(
            counts.iter().sum::<usize>(),
            tokens.len(),
            "requests with other tokens"
        );
        counts
    }
}

fn to(uri: String) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from("{}")).unwrap()
}

fn tokens(keys: &[&str]) -> Vec<Option<String>> {
    keys.iter().map(|key| Some(bearer(key))).collect()
}

type HttpClient<B = Full<Bytes>> = Client<HttpConnector, B>;

fn client<B: hyper::body::Body<Data: Send> + Send>() -> HttpClient<B> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn layered(auth: &InngestApiAuth) -> InngestApiAuthService<HttpClient> {
    auth.layer(client())
}

async fn call(
    api: &InngestApiAuthService<HttpClient>,
    server: &Server,
) -> Result<Response<Incoming>, ApiAuthError> {
    api.clone().oneshot(server.request()).await
}

/// Either kind of service, so that one table covers both.
enum Api {
    WithFallback(InngestApiAuthService<HttpClient>),
    Once(InngestApiAuthService<HttpClient, SingleAttempt>),
}

impl Api {
    async fn status(&self, server: &Server) -> u16 {
        let response = match self {
            Self::WithFallback(api) => api.clone().oneshot(server.request()).await,
            Self::Once(api) => api.clone().oneshot(server.request()).await,
        };
        response.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn the_fallback_is_tried_once_and_only_on_401_and_403() {
    let server = Server::start().await;
    for current in [200, 401, 403, 500, 404, 429] {
        for fallback in [200, 401, 403, 500] {
            for has_fallback in [true, false] {
                server.respond_to(&[(CURRENT, current), (FALLBACK, fallback)]);
                let auth = server.auth(CURRENT, has_fallback.then_some(FALLBACK));
                let response = call(&layered(&auth), &server).await.unwrap();
                let again = has_fallback && [401, 403].contains(&current);
                let (status, role, sent) = if again {
                    (fallback, KeyRole::Fallback, tokens(&[CURRENT, FALLBACK]))
                } else {
                    (current, KeyRole::Current, tokens(&[CURRENT]))
                };
                assert_eq!(response.status().as_u16(), status, "{current} {fallback}");
                assert_eq!(
                    response.extensions().get(),
                    Some(&role),
                    "{current} {fallback}"
                );
                assert_eq!(server.tokens(), sent, "{current} {fallback}");
            }
        }
    }
}

/// A change between two calls, or a call with the keys that it sent and its last status.
enum Step<'a> {
    ServerKnows(&'a [(&'a str, u16)]),
    SetKeys(&'a str, Option<&'a str>),
    Rotate(&'a str),
    RetireFallback,
    Call(&'a [&'a str], u16),
    CallOnce(&'a [&'a str], u16),
}
use Step::{Call, CallOnce, RetireFallback, Rotate, ServerKnows, SetKeys};

/// Each scenario begins with `CURRENT` and `FALLBACK`, and with nothing learned.
const SCENARIOS: &[(&str, &[Step<'_>])] = &[
    (
        "before and after it has learnt",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            Call(&[FALLBACK], 200),
            Call(&[FALLBACK], 200),
        ],
    ),
    (
        "the API switches to the current key",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            ServerKnows(&[(CURRENT, 200)]),
            Call(&[FALLBACK, CURRENT], 200),
            Call(&[CURRENT], 200),
        ],
    ),
    (
        "a rotation forgets, and the current key comes first",
        &[
            ServerKnows(&[(FALLBACK, 200), (NEXT, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            Rotate(NEXT),
            Call(&[NEXT], 200),
        ],
    ),
    (
        "after a rotation it learns again",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            SetKeys(NEXT, Some(FALLBACK)),
            Call(&[NEXT, FALLBACK], 200),
            Call(&[FALLBACK], 200),
        ],
    ),
    (
        "the same keys again are no rotation",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            SetKeys(CURRENT, Some(FALLBACK)),
            Call(&[FALLBACK], 200),
        ],
    ),
    (
        "the learnt key is retired",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            RetireFallback,
            Call(&[CURRENT], 401),
        ],
    ),
    (
        "both keys are rejected: at most two requests each time, and nothing is learnt",
        &[
            ServerKnows(&[(CURRENT, 403)]),
            Call(&[CURRENT, FALLBACK], 401),
            Call(&[CURRENT, FALLBACK], 401),
        ],
    ),
    (
        "both are rejected for a while: what was learnt stays",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            ServerKnows(&[(FALLBACK, 403)]),
            Call(&[FALLBACK, CURRENT], 401),
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[FALLBACK], 200),
        ],
    ),
    (
        "a failure that is not about the key changes nothing",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            ServerKnows(&[(FALLBACK, 500)]),
            Call(&[FALLBACK], 500),
            ServerKnows(&[(FALLBACK, 429)]),
            Call(&[FALLBACK], 429),
        ],
    ),
    (
        "one attempt: the other key at the next call",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            CallOnce(&[CURRENT], 401),
            CallOnce(&[FALLBACK], 200),
            CallOnce(&[FALLBACK], 200),
            ServerKnows(&[(CURRENT, 200)]),
            CallOnce(&[FALLBACK], 401),
            CallOnce(&[CURRENT], 200),
            Rotate(NEXT),
            CallOnce(&[NEXT], 401),
            CallOnce(&[CURRENT], 200),
        ],
    ),
    (
        "one attempt: 403 counts, 500 does not",
        &[
            ServerKnows(&[(CURRENT, 403), (FALLBACK, 500)]),
            CallOnce(&[CURRENT], 403),
            CallOnce(&[FALLBACK], 500),
            CallOnce(&[FALLBACK], 500),
        ],
    ),
    (
        "one attempt, one key",
        &[
            RetireFallback,
            ServerKnows(&[]),
            CallOnce(&[CURRENT], 401),
            CallOnce(&[CURRENT], 401),
        ],
    ),
    (
        "the two kinds teach each other",
        &[
            ServerKnows(&[(FALLBACK, 200)]),
            Call(&[CURRENT, FALLBACK], 200),
            CallOnce(&[FALLBACK], 200),
            ServerKnows(&[(CURRENT, 200)]),
            CallOnce(&[FALLBACK], 401),
            Call(&[CURRENT], 200),
        ],
    ),
    (
        "keys that have one token are one key",
        &[
            SetKeys("signkey-prod-aabbccdd", Some("signkey-prod-AABBCCDD")),
            ServerKnows(&[]),
            Call(&["signkey-prod-aabbccdd"], 401),
            CallOnce(&["signkey-prod-aabbccdd"], 401),
            CallOnce(&["signkey-prod-aabbccdd"], 401),
        ],
    ),
];

#[tokio::test]
async fn a_call_begins_with_the_key_that_the_api_accepted_last() {
    let server = Server::start().await;
    for (scenario, steps) in SCENARIOS {
        let auth = server.auth(CURRENT, Some(FALLBACK));
        let ring = auth.keys().unwrap().clone();
        let once = Api::Once(auth.clone().single_attempt().layer(client()));
        let with_fallback = Api::WithFallback(layered(&auth));
        for (at, step) in steps.iter().enumerate() {
            let (api, sent, status) = match step {
                ServerKnows(keys) => {
                    server.respond_to(keys);
                    continue;
                }
                SetKeys(current, fallback) => {
                    ring.replace((key(current), fallback.map(key)));
                    continue;
                }
                Rotate(new) => {
                    ring.rotate(key(new));
                    continue;
                }
                RetireFallback => {
                    ring.retire_fallback();
                    continue;
                }
                Call(sent, status) => (&with_fallback, sent, status),
                CallOnce(sent, status) => (&once, sent, status),
            };
            assert_eq!(api.status(&server).await, *status, "{scenario}, step {at}");
            assert_eq!(server.tokens(), tokens(sent), "{scenario}, step {at}");
        }
    }
}

/// A call that is in flight when the first rejection arrives may cost one more request (or, with a
/// single attempt, fail). A call that begins later must not.
#[tokio::test]
async fn of_many_concurrent_calls_each_needs_at_most_one_more_request() {
    let server = Server::knowing(&[FALLBACK]).await;
    *server.gate.lock().unwrap() = Some(Arc::new(Barrier::new(MANY)));
    let auth = server.auth(CURRENT, Some(FALLBACK));
    let with_fallback = Arc::new(Api::WithFallback(layered(&auth)));
    let rotated = [(CURRENT, 200)];
    for (server_changes, accepted, counts) in [
        // All calls are in flight before the first response.
        (None, MANY, [MANY, MANY]),
        (None, MANY, [0, MANY]),
        // The API switches keys, and again all calls are in flight.
        (Some(rotated), MANY, [MANY, MANY]),
        (None, MANY, [MANY, 0]),
    ] {
        at_once(&server, &with_fallback, server_changes, accepted, counts).await;
    }
    server.respond_to(&[(FALLBACK, 200)]);
    let auth = server.auth(CURRENT, Some(FALLBACK));
    let once = Arc::new(Api::Once(auth.single_attempt().layer(client())));
    for (server_changes, accepted, counts) in [
        (None, 0, [MANY, 0]),
        (None, MANY, [0, MANY]),
        (Some(rotated), 0, [0, MANY]),
        (None, MANY, [MANY, 0]),
    ] {
        at_once(&server, &once, server_changes, accepted, counts).await;
    }
}

async fn at_once(
    server: &Server,
    api: &Arc<Api>,
    server_changes: Option<[(&str, u16); 1]>,
    accepted: usize,
    counts: [usize; 2],
) {
    if let Some(keys) = server_changes {
        server.respond_to(&keys);
    }
    let calls: Vec<_> = (0..MANY)
        .map(|_| {
            let (api, server) = (Arc::clone(api), server.clone());
            tokio::spawn(async move { api.status(&server).await })
        })
        .collect();
    let mut successes = 0;
    for call in calls {
        successes += usize::from(call.await.unwrap() == 200);
    }
    assert_eq!(
        (successes, server.counts([CURRENT, FALLBACK])),
        (accepted, counts)
    );
}

#[tokio::test]
async fn what_one_call_learns_is_used_by_all_later_calls() {
    let server = Server::knowing(&[FALLBACK]).await;
    let auth = server.auth(CURRENT, Some(FALLBACK));
    // Another client, and another clone of the layer.
    call(&layered(&auth), &server).await.unwrap();
    assert_eq!(server.counts([CURRENT, FALLBACK]), [1, 1]);
    *server.gate.lock().unwrap() = Some(Arc::new(Barrier::new(MANY)));
    let api = Arc::new(Api::WithFallback(layered(&auth.clone())));
    at_once(&server, &api, None, MANY, [0, MANY]).await;
}

/// A call that began with the old keys reveals nothing about the new ones.
#[tokio::test]
async fn a_late_response_from_before_a_rotation_is_ignored() {
    let server = Server::knowing(&[FALLBACK, NEXT]).await;
    let auth = server.auth(CURRENT, Some(FALLBACK));
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gate = (Arc::clone(&arrived), Arc::clone(&release));
    // Holds the first request.
    let held_client = service_fn(move |request: Request<Full<Bytes>>| {
        let (arrived, release) = gate.clone();
        async move {
            if request.headers()["authorization"] == bearer(CURRENT) {
                arrived.notify_one();
                release.notified().await;
            }
            client().request(request).await
        }
    });
    let late = tokio::spawn(auth.layer(held_client).oneshot(server.request()));
    arrived.notified().await;
    auth.keys().unwrap().rotate(key(NEXT));
    let api = layered(&auth);
    call(&api, &server).await.unwrap();
    release.notify_one();
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.tokens(), tokens(&[NEXT, CURRENT, FALLBACK]));
    call(&api, &server).await.unwrap();
    assert_eq!(
        server.tokens(),
        tokens(&[NEXT]),
        "the late call changed what comes first"
    );
}

#[tokio::test]
async fn an_error_of_the_client_is_returned_and_changes_no_key() {
    for (breaks_at, sent) in [(CURRENT, &[CURRENT][..]), (FALLBACK, &[CURRENT, FALLBACK])] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let client = service_fn(move |request: Request<&'static str>| {
            let token = request.headers()["authorization"]
                .to_str()
                .unwrap()
                .to_owned();
            let breaks = token == bearer(breaks_at);
            log.lock().unwrap().push(Some(token));
            async move {
                let response = Response::builder().status(401).body(()).unwrap();
                if breaks {
                    Err(io::Error::other("broken"))
                } else {
                    Ok(response)
                }
            }
        });
        let keys = Keys::new(key(CURRENT), Some(key(FALLBACK)));
        let api = InngestApiAuth::new(keys, "https://api.inngest.com")
            .unwrap()
            .layer(client);
        for _ in 0..2 {
            let request = Request::post("https://api.inngest.com/v1/signals")
                .body("{}")
                .unwrap();
            let outcome = api.clone().oneshot(request).await;
            let Err(ApiAuthError::Client(error)) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(error.to_string(), "broken");
            assert_eq!(
                std::mem::take(&mut *seen.lock().unwrap()),
                tokens(sent),
                "{breaks_at}"
            );
        }
    }
}

#[tokio::test]
async fn a_rotation_is_followed_at_the_next_call() {
    let server = Server::knowing(&[CURRENT, FALLBACK]).await;
    let config = server.config(&[("INNGEST_SIGNING_KEY", CURRENT)]);
    let (inbound, outbound) = (
        InngestAuth::from_config(&config),
        InngestApiAuth::from_config(&config),
    );
    let api = layered(&outbound);
    call(&api, &server).await.unwrap();
    inbound.keys().unwrap().rotate(key(FALLBACK));
    call(&api, &server).await.unwrap();
    assert_eq!(server.tokens(), tokens(&[CURRENT, FALLBACK]));
    assert_eq!(
        outbound.keys().unwrap().snapshot(),
        config.keys().unwrap().snapshot()
    );
}

#[tokio::test]
async fn a_shared_ring_can_be_given_with_the_url_of_the_api() {
    let server = Server::knowing(&[CURRENT, FALLBACK]).await;
    let ring = KeyRing::from(key(CURRENT));
    let api = layered(&InngestApiAuth::new(ring.clone(), &server.url()).unwrap());
    call(&api, &server).await.unwrap();
    ring.rotate(key(FALLBACK));
    call(&api, &server).await.unwrap();
    assert_eq!(server.tokens(), tokens(&[CURRENT, FALLBACK]));

    let error = InngestApiAuth::new(ring, "https://user:hunter2@api.inngest.com").unwrap_err();
    assert_eq!(error, ApiBaseError::UserInfo);
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// `from_config` panics if it cannot parse what `Config` accepted.
#[test]
fn every_base_url_that_a_configuration_accepts_has_an_origin() {
    let mut accepted = 0;
    let mut check = |variable: &str, url: &str| {
        let config = Config::from_vars([("INNGEST_SIGNING_KEY", CURRENT), (variable, url)]);
        if let Ok(config) = config
            && config.api_base().is_ok()
        {
            let _ = InngestApiAuth::from_config(&config);
            accepted += 1;
        }
    };
    let long = "a".repeat(70_000);
    check("INNGEST_API_BASE_URL", &format!("http://{long}/{long}"));
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
                check(variable, &url);
            }
        }
    }
    assert!(accepted > 500, "{accepted}");
}

#[test]
fn the_client_can_be_reached_through_the_service() {
    let auth = InngestApiAuth::new(key(CURRENT), "https://api.inngest.com").unwrap();
    let mut api = auth.layer(String::from("client"));
    api.get_mut().push('!');
    assert_eq!(api.get_ref(), "client!");
    let shown = format!("{api:?}");
    assert!(
        shown.contains("signkey-prod-…") && !shown.contains("11111111"),
        "{shown}"
    );
    assert_eq!(api.clone().into_inner(), "client!");
}

/// The headers are added if the request lacks them, in dev mode too and at both attempts.
#[tokio::test]
async fn the_environment_and_the_versions_are_added_where_absent() {
    const SDK: &str = concat!("inngest-auth:v", env!("CARGO_PKG_VERSION"));
    let server = Server::knowing(&[]).await;
    let keys = [
        ("INNGEST_SIGNING_KEY", CURRENT),
        ("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK),
    ];
    for (vars, own, requests, expected) in [
        (&[][..], &[][..], 2, [None, Some(SDK), Some("2")]),
        (
            &[("INNGEST_DEV", "1")],
            &[],
            1,
            [None, Some(SDK), Some("2")],
        ),
        (
            &[("INNGEST_ENV", "feature/x"), ("BRANCH", "other")],
            &[],
            2,
            [Some("feature/x"), Some(SDK), Some("2")],
        ),
        (
            &[("INNGEST_DEV", "1"), ("RAILWAY_GIT_BRANCH", "über")],
            &[],
            1,
            [Some("über"), Some(SDK), Some("2")],
        ),
        (
            &[("INNGEST_ENV", "x")],
            &[
                ("x-inngest-env", "own"),
                ("x-inngest-sdk", "rust:v9"),
                ("x-inngest-req-version", "1"),
            ],
            2,
            [Some("own"), Some("rust:v9"), Some("1")],
        ),
    ] {
        let vars: Vec<_> = keys.iter().chain(vars).copied().collect();
        let auth = InngestApiAuth::from_config(&server.config(&vars));
        let mut request = server.request();
        for (name, value) in own {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_static(value));
        }
        layered(&auth).oneshot(request).await.unwrap();
        let got = server.take();
        assert_eq!(got.len(), requests, "{vars:?}");
        for headers in got {
            let names = ["x-inngest-env", "x-inngest-sdk", "x-inngest-req-version"];
            let values = names.map(|name| headers.get_all(name).into_iter().collect::<Vec<_>>());
            let expected = expected.map(|value| {
                let value = value.map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
                value.into_iter().collect::<Vec<_>>()
            });
            assert_eq!(
                values,
                expected.each_ref().map(|v| v.iter().collect::<Vec<_>>()),
                "{vars:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_branch_key_needs_an_environment_and_is_otherwise_like_any_key() {
    const NEW: &str = "signkey-branch-11111111";
    const OLD: &str = "signkey-branch-22222222";
    let server = Server::knowing(&[OLD]).await;
    let keys = [
        ("INNGEST_SIGNING_KEY", NEW),
        ("INNGEST_SIGNING_KEY_FALLBACK", OLD),
    ];
    let unnamed = layered(&InngestApiAuth::from_config(&server.config(&keys)));
    let error = call(&unnamed, &server).await.unwrap_err();
    assert!(matches!(error, ApiAuthError::MissingEnvironment), "{error}");
    assert!(error.to_string().contains("INNGEST_ENV"), "{error}");
    assert_eq!(server.counts([NEW, OLD]), [0, 0]);

    // The request may name its own environment.
    let mut request = server.request();
    request
        .headers_mut()
        .insert("x-inngest-env", HeaderValue::from_static("own"));
    assert_eq!(unnamed.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(server.tokens(), tokens(&[NEW, OLD]));

    let vars = [keys[0], keys[1], ("INNGEST_ENV", "feature/x")];
    let api = layered(&InngestApiAuth::from_config(&server.config(&vars)));
    for sent in [&[NEW, OLD][..], &[OLD], &[OLD]] {
        assert_eq!(call(&api, &server).await.unwrap().status(), 200);
        let got = server.take();
        let environments: Vec<_> = got
            .iter()
            .map(|headers| &headers["x-inngest-env"])
            .collect();
        assert_eq!(environments, vec!["feature/x"; sent.len()]);
    }
}

#[tokio::test]
async fn dev_mode_sends_no_token() {
    let server = Server::start().await;
    let vars = [
        ("INNGEST_SIGNING_KEY", CURRENT),
        ("INNGEST_SIGNING_KEY_FALLBACK", FALLBACK),
        ("INNGEST_DEV", "1"),
    ];
    let auth = InngestApiAuth::from_config(&server.config(&vars));
    assert!(auth.keys().is_none());
    let once = Api::Once(auth.clone().single_attempt().layer(client()));
    for api in [Api::WithFallback(layered(&auth)), once] {
        for _ in 0..2 {
            assert_eq!(api.status(&server).await, 401);
            assert_eq!(server.tokens(), [None]);
        }
    }
}

#[tokio::test]
async fn the_token_goes_to_the_api_and_nowhere_else() {
    let (server, elsewhere) = (Server::start().await, Server::start().await);
    let (api_at, other) = (server.address, elsewhere.address);
    for vars in [
        &[("INNGEST_SIGNING_KEY", CURRENT)][..],
        &[("INNGEST_DEV", "1")],
    ] {
        let auth = InngestApiAuth::from_config(&server.config(vars));
        let once = auth.clone().single_attempt().layer(client());
        for uri in [
            format!("http://{other}/fn/register"),
            format!("https://{api_at}/fn/register"),
            format!("http://localhost:{}/fn/register", api_at.port()),
            format!("http://{api_at}@{other}/fn/register"),
            format!("http://user@{api_at}/fn/register"),
            "/fn/register".to_owned(),
        ] {
            let outcome = layered(&auth).oneshot(to(uri.clone())).await;
            assert!(matches!(outcome, Err(ApiAuthError::WrongOrigin)), "{uri}");
            let outcome = once.clone().oneshot(to(uri.clone())).await;
            assert!(matches!(outcome, Err(ApiAuthError::WrongOrigin)), "{uri}");
        }
        let api = to(format!("http://{api_at}/fn/register"));
        layered(&auth).oneshot(api).await.unwrap();
    }
    assert_eq!(server.tokens(), [Some(bearer(CURRENT)), None]);
    assert_eq!(elsewhere.take().len(), 0);
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_token() {
    let elsewhere = Server::start().await;
    let location = format!("{}/fn/register", elsewhere.url());
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let redirects = Router::new().fallback(move || async move {
            (
                StatusCode::from_u16(status).unwrap(),
                [(header::LOCATION, location)],
            )
        });
        let url = format!("http://{}", common::serve(redirects).await);
        let auth = InngestApiAuth::new(key(CURRENT), &url).unwrap();
        let response = layered(&auth).oneshot(to(format!("{url}/"))).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        // What follows redirects outside the layer comes back to it.
        let location = response.headers()[header::LOCATION].to_str().unwrap();
        let followed = layered(&auth).oneshot(to(location.to_owned())).await;
        assert!(
            matches!(followed, Err(ApiAuthError::WrongOrigin)),
            "{status}"
        );
    }
    assert_eq!(elsewhere.take().len(), 0, "requests at the second host");
}

#[tokio::test]
async fn the_client_is_called_only_when_it_is_ready() {
    let server = Server::knowing(&[FALLBACK]).await;
    let auth = server.auth(CURRENT, Some(FALLBACK));
    // Panics if it is called before it was ready.
    let api = auth.layer(ConcurrencyLimit::new(client(), 1));
    assert_eq!(
        api.oneshot(server.request()).await.unwrap().status(),
        StatusCode::OK
    );
    let api = auth
        .single_attempt()
        .layer(ConcurrencyLimit::new(client(), 1));
    assert_eq!(
        api.oneshot(server.request()).await.unwrap().status(),
        StatusCode::OK
    );
    assert_eq!(server.counts([CURRENT, FALLBACK]), [1, 2]);
}

/// A client may lend a connection or a permit to a response until that is read or dropped.
#[tokio::test(start_paused = true)]
async fn a_rejected_response_is_dropped_before_the_second_attempt() {
    let one_at_a_time = Arc::new(Semaphore::new(1));
    let client = service_fn(move |_: Request<()>| {
        let permit = Arc::clone(&one_at_a_time).acquire_owned();
        async { Response::builder().status(401).body(permit.await.unwrap()) }
    });
    let keys = Keys::new(key(CURRENT), Some(key(FALLBACK)));
    let api = InngestApiAuth::new(keys, "https://api.inngest.com")
        .unwrap()
        .layer(client);
    let call = api.oneshot(Request::post("https://api.inngest.com/").body(()).unwrap());
    let response = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert_eq!(
        response
            .expect("the first response is held")
            .unwrap()
            .status(),
        401
    );
}

/// A body whose length is not known yet. It is not `Clone`.
struct Stream(mpsc::Receiver<&'static str>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |piece: &'static str| Ok(Frame::data(Bytes::from(piece)));
        self.0.poll_recv(cx).map(|piece| piece.map(frame))
    }
}

#[tokio::test]
async fn a_stream_can_be_published_with_a_single_attempt() {
    // What the server read, piece by piece, after the request's head.
    let (read, mut pieces) = mpsc::channel(8);
    let app = Router::new().fallback(move |request: Request<Body>| async move {
        let (parts, mut body) = request.into_parts();
        let accepted = parts.headers["authorization"] == bearer(FALLBACK);
        let framing = parts.headers["transfer-encoding"].to_str().unwrap();
        read.send(format!("{} {framing}", parts.uri)).await.unwrap();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            read.send(String::from_utf8(piece.to_vec()).unwrap())
                .await
                .unwrap();
        }
        if accepted {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        }
    });
    let url = format!("http://{}", common::serve(app).await);
    let keys = Keys::new(key(CURRENT), Some(key(FALLBACK)));
    let auth = InngestApiAuth::new(keys, &url).unwrap();
    let api = auth.single_attempt().layer(client::<Stream>());
    for status in [401, 200, 200] {
        let (write, stream) = mpsc::channel(1);
        let uri = format!("{url}/v1/realtime/publish?channel=c&topic=t");
        let publish = api
            .clone()
            .oneshot(Request::post(uri).body(Stream(stream)).unwrap());
        let publish = tokio::spawn(publish);
        let mut next = async || {
            let piece = tokio::time::timeout(Duration::from_secs(30), pieces.recv()).await;
            piece.expect("the body waits for its end").unwrap()
        };
        assert_eq!(
            next().await,
            "/v1/realtime/publish?channel=c&topic=t chunked"
        );
        // Each piece arrives before the next is written, so nothing buffers the body.
        for piece in ["one", "two", "three"] {
            write.send(piece).await.unwrap();
            assert_eq!(next().await, piece);
        }
        drop(write);
        assert_eq!(publish.await.unwrap().unwrap().status().as_u16(), status);
    }
}

#[test]
fn bearers_are_the_known_answers_current_first_and_sensitive() {
    let all: Value = serde_json::from_str(include_str!("vectors/known_answers.json")).unwrap();
    for case in all["bearer_hash"].as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let ring = KeyRing::from(Keys::new(key(text("key")), Some(key(FALLBACK))));
        let [current, fallback] = ring.bearers().try_into().unwrap();
        assert_eq!(
            current,
            format!("Bearer {}{}", text("prefix"), text("sha256"))
        );
        assert_eq!(fallback, bearer(FALLBACK));
        assert!(current.is_sensitive() && fallback.is_sensitive());
        assert_eq!(format!("{current:?}"), "Sensitive");
    }
}

#[tokio::test]
async fn an_invalid_setting_of_the_api_fails_every_call() {
    let server = Server::knowing(&[CURRENT]).await;
    for (variable, value) in [
        ("INNGEST_API_BASE_URL", "api.inngest.com"),
        ("INNGEST_BASE_URL", "ftp://api.inngest.com"),
        ("INNGEST_ENV", "two\nlines"),
        ("BRANCH", "a\u{7}b"),
    ] {
        let config = Config::from_vars([("INNGEST_SIGNING_KEY", CURRENT), (variable, value)]);
        let auth = InngestApiAuth::from_config(&config.unwrap());
        assert!(auth.keys().is_none(), "{variable}");
        let error = call(&layered(&auth), &server).await.unwrap_err();
        let ApiAuthError::Unconfigured(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.variable(), variable);
    }
    assert_eq!(server.take().len(), 0);
}

#[tokio::test]
async fn an_unusable_environment_fails_every_call_and_says_what_to_set() {
    if std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("INNGEST_")) {
        return; // The environment of this process is someone else's, and may be valid or not.
    }
    let server = Server::start().await;
    let error = call(&layered(&InngestApiAuth::from_env()), &server)
        .await
        .unwrap_err();
    assert!(matches!(error, ApiAuthError::Unconfigured(_)), "{error}");
    assert!(error.to_string().contains("INNGEST_SIGNING_KEY"), "{error}");
    assert_eq!(server.take().len(), 0);
    assert!(InngestApiAuth::try_from_env().is_err());
}
