//! What an attacker tries who has captured genuine requests, sees every response and holds no key.
//!
//! A test marked as ignored shows an attack that is still possible: it asserts what should happen.
#![cfg(feature = "layer")]

mod common;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use common::{CALL, NOW, Reply, Seen, ask, inngest, key, say, serve};
use http_body_util::{BodyExt, StreamBody};
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::testing::{TestClock, TestInngest};
use inngest_auth::{
    Caller, Clock, InngestAuth, Keys, Rejection, RejectionKind, SIGNATURE_HEADER, SignResponses,
    Signature, Tolerance, verify,
};
use tower::{Layer, ServiceExt, service_fn};

const IN_BAND: (&str, &str) = ("x-inngest-sync-kind", "in_band");
/// The response to an in-band sync.
const PAYLOAD: &str = r#"{"app_id":"app"}"#;
const SYNC_BODY: &str = r#"{"url":"https://app.example/api/inngest"}"#;

fn keys() -> Keys {
    Keys::new(
        key("signkey-test-12345678"),
        Some(key("signkey-test-87654321")),
    )
}

/// A request as seen on the wire: what was signed, and the header.
#[derive(Clone, Debug)]
struct Captured {
    kind: &'static str,
    signature: String,
    body: Bytes,
}

impl Captured {
    fn again(&self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(SIGNATURE_HEADER, &self.signature);
        for header in headers {
            request = request.header(header.0, header.1);
        }
        request.body(Body::from(self.body.clone())).unwrap()
    }
}

/// Returns one request of each kind that Inngest sends, some signed with the fallback key.
fn captured() -> Vec<Captured> {
    let (current, fallback) = (key("signkey-test-12345678"), key("signkey-test-87654321"));
    [
        ("call", &current, r#"{"ctx":{"run_id":"1"},"event":{}}"#, ""),
        (
            "call, in a rotation",
            &fallback,
            r#"{"ctx":{"run_id":"2"}}"#,
            "",
        ),
        ("sync", &current, SYNC_BODY, ""),
        (
            "sync, canonical",
            &fallback,
            r#"{"url":"https://a.example/?a&b"}"#,
            r#" {"url":"https://a.example/?a\u0026b"}"#,
        ),
        ("introspection or probe", &current, "", ""),
        ("probe with a body", &current, "{}", ""),
        ("re-entry, not JSON", &fallback, "a=1&b=2\n", ""),
        ("re-entry, a newline", &current, "\n", ""),
        ("re-entry, digits", &current, "1700000000", ""),
    ]
    .into_iter()
    .map(|(kind, key, signed, sent)| Captured {
        kind,
        signature: key.sign(signed.as_bytes(), NOW).to_string(),
        body: if sent.is_empty() { signed } else { sent }.into(),
    })
    .collect()
}

/// Returns the signed bytes if the response's signature is valid, over its whole body or without a
/// trailing newline.
fn signed_bytes(response: &Reply) -> Option<Bytes> {
    let header = response.headers.get(SIGNATURE_HEADER)?;
    let signature = Signature::parse(header.as_bytes()).ok()?;
    let trimmed = response.body.strip_suffix(b"\n").unwrap_or(&response.body);
    [&*response.body, trimmed]
        .into_iter()
        .find(|body| verify(body, &signature, &keys(), NOW, Tolerance::default()).is_ok())
        .map(Bytes::copy_from_slice)
}

/// Repeats everything that the client can choose. Only an in-band sync gets its header and a
/// constant.
async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let said = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
    let lines = said("x-lines").map_or(0, <[u8]>::len);
    let is_sync = parts.method == Method::PUT
        && said(IN_BAND.0) == Some(b"in_band")
        && body.starts_with(b"{\"url\":");
    let text = match said("x-say") {
        _ if is_sync => PAYLOAD.into(),
        Some(b"body") => body,
        Some(b"head") => format!("{} {}", parts.method, parts.uri).into(),
        Some(text) => Bytes::copy_from_slice(text),
        None => format!("{parts:?}{body:?}").into(),
    };
    let mut response = Response::new(Body::from([&*text, &b"\n".repeat(lines)].concat()));
    if is_sync {
        response
            .headers_mut()
            .insert(IN_BAND.0, HeaderValue::from_static(IN_BAND.1));
    }
    let status = said("x-status").and_then(|status| StatusCode::from_bytes(status).ok());
    *response.status_mut() = status.unwrap_or_default();
    let silent = said("x-silent").is_some();
    for (name, value) in parts.headers.iter().filter(|_| !silent) {
        if name != IN_BAND.0 {
            response.headers_mut().append(name, value.clone());
        }
    }
    Ok(response)
}

/// Wraps a service that is not an Axum route, so that only the layer looks at the method.
async fn ask_echo(auth: InngestAuth, request: Request<Body>) -> Reply {
    let (parts, body) = auth
        .layer(service_fn(echo))
        .oneshot(request)
        .await
        .unwrap()
        .into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        extensions: parts.extensions,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

const METHODS: [&str; 12] = [
    "POST", "PUT", "GET", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "put", "get",
    "PROBE",
];
const TARGETS: [&str; 17] = [
    "/",
    "/api/inngest",
    "/api/inngest?",
    "/api/inngest?probe=trust",
    "/api/inngest?probe=trust&probe=trust",
    "/api/inngest?probe=trust&fnId=a",
    "/api/inngest?fnId=a&probe=trust",
    "/api/inngest?%70robe=tru%73t",
    "/api/inngest?probe=trust&step%49d=",
    "/api/inngest?probe=trus",
    "/api/inngest?probe",
    "/api/inngest?fnId=evil&stepId=step",
    "/api/inngest?%66nId=evil",
    "/api/inngest?deployId=evil",
    "/api/inngest?x;fnId=evil",
    "http://elsewhere.example/api/inngest?probe=trust",
    "*",
];
const HEADERS: [&[(&str, &str)]; 11] = [
    &[],
    &[IN_BAND],
    &[IN_BAND, ("x-say", "{\"evil\":1}"), ("x-silent", "")],
    &[
        ("x-say", "{\"evil\":1}"),
        ("x-lines", "1"),
        ("x-silent", ""),
        ("x-status", "201"),
    ],
    &[("x-say", "body"), ("x-silent", "")],
    &[
        ("x-say", "head"),
        ("x-silent", ""),
        ("x-http-method-override", "PUT"),
    ],
    &[
        ("x-run-id", "r"),
        ("x-say", ""),
        ("x-lines", "22"),
        ("x-silent", ""),
    ],
    &[IN_BAND, ("x-status", "202"), ("x-silent", "")],
    &[
        ("x-status", "204"),
        ("x-say", "x"),
        ("content-encoding", "identity"),
    ],
    &[
        ("x-status", "206"),
        ("range", "bytes=0-1"),
        ("x-inngest-server-kind", "cloud"),
    ],
    &[
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("x-silent", ""),
    ],
];

/// Sends everything captured with each method, to each target, with each set of headers. Looks for
/// a signature of anything but `{}` and what was captured.
#[tokio::test]
async fn a_replayed_request_gets_nothing_signed_but_the_constant() {
    let it = inngest();
    let (mut probes, mut syncs) = (0, 0);
    for guarded in [false, true] {
        let store = || Arc::new(started(&it, 100_000));
        let mut auth = it.auth();
        if guarded {
            auth = auth.replay_guard(store());
        }
        for sent in captured() {
            for (method, uri, headers) in METHODS
                .into_iter()
                .flat_map(|method| TARGETS.map(|uri| (method, uri)))
                .flat_map(|(method, uri)| HEADERS.map(|headers| (method, uri, headers)))
            {
                let mut request = sent.again(method, uri, headers);
                if headers.len() == 2 {
                    *request.version_mut() = Version::HTTP_10;
                }
                let response = ask_echo(auth.clone(), request).await;
                if let Some(signed) = signed_bytes(&response) {
                    let known = response.header(SIGNATURE_HEADER) == Some(&sent.signature);
                    let is_sync = method == "PUT"
                        && !["fnId", "49d", "66n", "probe", "70robe"]
                            .iter()
                            .any(|name| uri.contains(name));
                    let is_sync = is_sync || method == "PUT" && uri.contains(";fnId");
                    let is_payload =
                        signed == PAYLOAD && is_sync && response.status == StatusCode::OK;
                    assert!(
                        signed == "{}" || known || is_payload,
                        "{sent:?} {method} {uri} {headers:?}"
                    );
                    probes += usize::from(signed == "{}");
                    syncs += usize::from(is_payload);
                }
            }
        }
    }
    assert!(
        probes > 100 && syncs > 10,
        "{probes} probes and {syncs} syncs got a signed response"
    );
}

/// Does the same over a socket, with requests that no client library sends: other forms of the
/// target, old versions, chunks without bytes, and trailers that carry headers.
#[tokio::test]
async fn odd_requests_over_a_socket_get_nothing_signed() {
    let it = inngest();
    let app = Router::new()
        .fallback_service(service_fn(echo))
        .layer(it.auth());
    let server = serve(app).await;
    let empty = it.call(CALL, "").headers()[SIGNATURE_HEADER]
        .to_str()
        .unwrap()
        .to_owned();
    let sync = it.call(CALL, SYNC_BODY).headers()[SIGNATURE_HEADER]
        .to_str()
        .unwrap()
        .to_owned();
    let chunked_sync = format!("{:x}\r\n{SYNC_BODY}\r\n0\r\n", SYNC_BODY.len());
    for (line, signature, rest) in [
        (
            "PUT * HTTP/1.1",
            &empty,
            "content-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "PUT http://a/?x HTTP/1.1",
            &empty,
            "content-length: 0\r\n\r\n".into(),
        ),
        (
            "PUT /?x#fnId=1 HTTP/1.1",
            &empty,
            "content-length: 0\r\n\r\n".into(),
        ),
        ("PUT / HTTP/1.0", &empty, "content-length: 0\r\n\r\n".into()),
        (
            "PUT / HTTP/1.1",
            &empty,
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "PUT / HTTP/1.1",
            &sync,
            format!(
                "transfer-encoding: chunked\r\ntrailer: x-inngest-sync-kind\r\n\r\n{chunked_sync}x-inngest-sync-kind: in_band\r\n\r\n"
            ),
        ),
        (
            "POST / HTTP/1.1",
            &sync,
            format!(
                "x-http-method-override: PUT\r\ncontent-length: {}\r\n\r\n{SYNC_BODY}",
                SYNC_BODY.len()
            ),
        ),
        ("put / HTTP/1.1", &empty, "content-length: 0\r\n\r\n".into()),
        (
            "CONNECT a:1 HTTP/1.1",
            &empty,
            "content-length: 0\r\n\r\n".into(),
        ),
        (
            "TRACE / HTTP/1.1",
            &empty,
            "content-length: 0\r\n\r\n".into(),
        ),
    ] {
        let bytes = format!(
            "{line}\r\nhost: a\r\nconnection: close\r\nx-inngest-sync-kind: in_band\r\nx-silent: 1\r\nx-say: evil\r\n\
             {SIGNATURE_HEADER}: {signature}\r\n{rest}"
        );
        let heard = tokio::time::timeout(Duration::from_secs(10), say(server, bytes.as_bytes()))
            .await
            .unwrap();
        assert!(heard.starts_with("HTTP/1."), "{line}: {heard}");
        // The only one that is an in-band sync, in whatever form it was sent.
        let signed = heard.to_lowercase().contains(SIGNATURE_HEADER);
        assert_eq!(signed, heard.ends_with(PAYLOAD), "{line}: {heard}");
    }
}

/// Returns a store that has run long enough to accept what is signed now.
fn started(it: &TestInngest, capacity: usize) -> MemoryReplayStore {
    it.clock().set(Some(NOW - 60));
    let store = MemoryReplayStore::new(capacity, it.clock());
    it.clock().set(Some(NOW));
    store
}

/// Sends each signature in every spelling, by every method, to two layers with one store,
/// concurrently. A handler runs once.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_in_any_spelling_runs_once() {
    let it = inngest();
    let signed = r#"{"a":1,"b":2}"#;
    let signature = key("signkey-test-12345678")
        .sign(signed.as_bytes(), NOW)
        .to_string();
    let (time, mac) = signature.split_once('&').unwrap();
    let upper = format!("s={}", mac[2..].to_uppercase());
    let spellings = [
        signature.clone(),
        format!("{mac}&{time}"),
        format!("{time}&{upper}"),
        format!("v=1&{time}&{mac}&x="),
    ];
    let bodies = [
        signed,
        r#"{"b":2,"a":1}"#,
        r#" {"a":1.0,"b":2e0}"#,
        r#"{"a":0,"a":1,"b":2}"#,
    ];
    let store = Arc::new(started(&it, 100));
    let ran = Arc::new(AtomicUsize::new(0));
    let service = |tolerance| {
        let ran = ran.clone();
        let handler = move |_: Request<Body>| {
            ran.fetch_add(1, Ordering::SeqCst);
            ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        };
        let auth = it.auth().tolerance(Tolerance::from_secs(tolerance));
        auth.replay_guard(store.clone()).layer(service_fn(handler))
    };
    let (long, short) = (service(3600), service(1));
    let mut tasks = Vec::new();
    for spelling in &spellings {
        for body in bodies {
            for method in METHODS {
                for service in [&long, &short] {
                    let request = Request::builder()
                        .method(method)
                        .uri("/a?fnId=b")
                        .header(SIGNATURE_HEADER, spelling)
                        .body(Body::from(body))
                        .unwrap();
                    let service = service.clone();
                    tasks.push(tokio::spawn(async move {
                        service.oneshot(request).await.unwrap().status()
                    }));
                }
            }
        }
    }
    let mut accepted = 0;
    for task in tasks {
        accepted += usize::from(task.await.unwrap() == StatusCode::OK);
    }
    assert_eq!(
        (accepted, ran.load(Ordering::SeqCst), store.len()),
        (1, 1, 1)
    );
}

/// A repeated request that runs nothing gets a response. The response is not signed again, and the
/// store is not filled.
#[tokio::test]
async fn what_runs_nothing_gets_a_response_each_time_and_fills_nothing() {
    let it = inngest();
    let store = Arc::new(started(&it, 2));
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .replay_guard(store.clone());
    let empty = captured().remove(4);
    for round in 0..20 {
        let said = format!("evil {round}");
        let headers = [("x-say", &*said), ("x-silent", "")];
        for (method, uri) in [
            ("POST", "/?probe=trust"),
            ("GET", "/?probe=trust"),
            ("HEAD", "/"),
            ("GET", "/"),
        ] {
            let response = ask_echo(auth.clone(), empty.again(method, uri, &headers)).await;
            assert_eq!(response.status, StatusCode::OK, "{method} {uri}");
            assert!(
                signed_bytes(&response).is_none_or(|signed| signed == "{}"),
                "{method} {uri}"
            );
        }
        for (method, headers) in [
            ("POST", &headers[..]),
            ("GET", &[("x-run-id", "")]),
            ("PUT", &[IN_BAND]),
        ] {
            let response = ask_echo(auth.clone(), empty.again(method, "/", headers)).await;
            assert_eq!(
                response.status,
                StatusCode::UNAUTHORIZED,
                "{method} {headers:?}"
            );
        }
    }
    assert_eq!(store.len(), 2, "the empty text and `{{}}`");
}

/// A call that was accepted and is sent again as a probe gets a signed `{}`, which is recorded: one
/// entry for each second and key, however often it is sent.
#[tokio::test]
async fn calls_replayed_as_probes_add_at_most_one_entry_a_second() {
    let it = inngest();
    let store = Arc::new(started(&it, 1000));
    let auth = it.auth().replay_guard(store.clone());
    let key = key("signkey-test-12345678");
    let call = |at: u64| {
        let body = Bytes::from(format!(r#"{{"call":{at}}}"#));
        let signature = key.sign(&body, at).to_string();
        let kind = "call";
        Captured {
            kind,
            signature,
            body,
        }
    };
    for at in NOW - 50..NOW {
        assert_eq!(
            ask_echo(auth.clone(), call(at).again("POST", "/", &[]))
                .await
                .status,
            StatusCode::OK
        );
    }
    let before = store.len();
    for _ in 0..3 {
        for at in NOW - 50..NOW {
            ask_echo(auth.clone(), call(at).again("POST", "/?probe=trust", &[])).await;
        }
    }
    assert_eq!(store.len(), before + 50);
}

/// Sends signed responses back in several spellings, to the same layer and to another one with the
/// same store.
#[tokio::test]
async fn a_signed_response_never_comes_back_as_a_call() {
    let it = inngest();
    let store = Arc::new(started(&it, 1000));
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .replay_guard(store.clone());
    let other = it
        .auth()
        .tolerance(Tolerance::from_secs(3600))
        .replay_guard(store);
    for (sent, said) in
        captured()
            .iter()
            .zip(["{\"a\":1}", "1\n", "x", "{}", "[1]", "\n\n", "2", "3", "4"])
    {
        let lines = if said.ends_with('\n') { "1" } else { "" };
        let headers = [("x-say", said.trim()), ("x-lines", lines), ("x-silent", "")];
        let response = ask_echo(auth.clone(), sent.again("PATCH", "/", &headers)).await;
        let Some(signed) = signed_bytes(&response) else {
            continue;
        };
        let signature = response.header(SIGNATURE_HEADER).unwrap();
        for method in METHODS {
            for body in [signed.clone(), Bytes::from([b" ", &*signed].concat())] {
                for auth in [&auth, &other] {
                    let request = Request::builder()
                        .method(method)
                        .uri("/?fnId=pay")
                        .header(SIGNATURE_HEADER, signature)
                        .body(Body::from(body.clone()))
                        .unwrap();
                    let response = ask_echo(auth.clone(), request).await;
                    assert_eq!(
                        response.status,
                        StatusCode::UNAUTHORIZED,
                        "{method} {}",
                        sent.kind
                    );
                }
            }
        }
    }
}

/// Real time, shown by an instance with an offset of some seconds.
#[derive(Clone)]
struct Shifted {
    millis: Arc<Mutex<u64>>,
    shift: Arc<Mutex<i64>>,
}

impl Clock for Shifted {
    fn now(&self) -> Option<u64> {
        let real = *self.millis.lock().unwrap();
        Some((real.cast_signed() + *self.shift.lock().unwrap()).cast_unsigned() / 1000)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(*self.millis.lock().unwrap())
    }
}

/// A shared store with expiring keys (`SET … NX EX`), by its own time.
#[derive(Clone)]
struct Expiring {
    millis: Arc<Mutex<u64>>,
    entries: Arc<Mutex<HashMap<[u8; 32], u64>>>,
}

impl ReplayStore for Expiring {
    fn record(
        &self,
        sighting: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        let now = *self.millis.lock().unwrap();
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|_, until| *until > now);
        ready(Ok(match sighting.seconds_left() {
            Some(seconds) if !entries.contains_key(&sighting.mac) => {
                entries.insert(sighting.mac, now + seconds * 1000);
                Recorded::Fresh
            }
            _ => Recorded::Seen,
        }))
    }
}

/// Pseudo-random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Which store the instances share.
#[derive(Clone, Copy)]
enum Shared {
    Memory,
    /// The store of one process on one machine, which restarts now and then.
    Restarting,
    Expiring,
}

#[derive(Clone)]
struct Restarting(Arc<Mutex<Arc<MemoryReplayStore>>>);

impl ReplayStore for Restarting {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        let store = self.0.lock().unwrap().clone();
        store.record(sighting).await
    }
}

/// Runs instances with these tolerances and one store. Their clocks are set within about the skew
/// while time passes, and captured calls are sent repeatedly. Returns how often any call ran at
/// most.
async fn most_runs(shared: Shared, tolerances: [u64; 2], seed: u64) -> usize {
    let key = key("signkey-test-12345678");
    let millis = Arc::new(Mutex::new((NOW - 5000) * 1000));
    let clock = || Shifted {
        millis: millis.clone(),
        shift: Arc::default(),
    };
    let clocks = [clock(), clock()];
    let memory = Restarting(Arc::new(Mutex::new(Arc::new(MemoryReplayStore::new(
        100_000,
        &clock(),
    )))));
    let expiring = Expiring {
        millis: millis.clone(),
        entries: Arc::default(),
    };
    *millis.lock().unwrap() = NOW * 1000;
    let runs = Arc::new(Mutex::new(HashMap::<Bytes, usize>::new()));
    let instances = [0, 1].map(|at: usize| {
        let runs = runs.clone();
        let handler = move |request: Request<Body>| {
            let runs = runs.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                *runs.lock().unwrap().entry(body).or_default() += 1;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        };
        let auth = InngestAuth::new(key.clone())
            .clock(clocks[at].clone())
            .tolerance(Tolerance::from_secs(tolerances[at]))
            .replay_skew(Duration::from_secs(60));
        let auth = match shared {
            Shared::Memory | Shared::Restarting => auth.replay_guard(memory.clone()),
            Shared::Expiring => auth.replay_guard(expiring.clone()),
        };
        auth.layer(service_fn(handler))
    });
    let mut dice = Dice(seed);
    let mut calls = Vec::new();
    for step in 0..3000 {
        *millis.lock().unwrap() += dice.below(2500);
        let at = usize::try_from(dice.below(2)).unwrap();
        *clocks[at].shift.lock().unwrap() = dice.below(60_001).cast_signed() - 30_000;
        if matches!(shared, Shared::Restarting) {
            let starts = dice.below(100) == 0;
            // Not further behind than the clock error at a start, and than the skew later.
            let behind = if starts { 5_000 } else { 60_000 };
            let shift = dice.below(90_000).cast_signed() - behind;
            for clock in &clocks {
                *clock.shift.lock().unwrap() = shift;
            }
            if starts {
                *memory.0.lock().unwrap() = Arc::new(MemoryReplayStore::new(100_000, &clocks[0]));
            }
        }
        let real = *millis.lock().unwrap() / 1000;
        if dice.below(4) == 0 {
            let body = Bytes::from(format!("call {step}"));
            calls.push((key.sign(&body, real).to_string(), body));
        }
        // Mostly recent calls, so that their windows close meanwhile.
        let back = usize::try_from(dice.below(150)).unwrap();
        let Some((signature, body)) = calls.get(calls.len().saturating_sub(1 + back)) else {
            continue;
        };
        let request = Request::post("/")
            .header(SIGNATURE_HEADER, signature)
            .body(Body::from(body.clone()))
            .unwrap();
        instances[at].clone().oneshot(request).await.unwrap();
    }
    let runs = runs.lock().unwrap();
    assert!(runs.len() > 100, "only {} calls ran", runs.len());
    runs.values().copied().max().unwrap_or(0)
}

#[tokio::test]
async fn clocks_within_the_skew_let_no_call_run_twice() {
    for seed in 1..=8 {
        for (shared, tolerances) in [
            (Shared::Memory, [300, 300]),
            (Shared::Memory, [60, 60]),
            (Shared::Memory, [60, 3600]),
            (Shared::Restarting, [60, 60]),
            (Shared::Restarting, [300, 300]),
            (Shared::Restarting, [60, 3600]),
            (Shared::Expiring, [60, 60]),
            (Shared::Expiring, [300, 300]),
        ] {
            assert_eq!(
                most_runs(shared, tolerances, seed).await,
                1,
                "{tolerances:?}"
            );
        }
    }
}

/// Two routes share a store that forgets by `until`, as Redis does. What the short tolerance
/// recorded would be forgotten while the long one still accepts it.
#[tokio::test]
async fn layers_of_different_tolerance_with_one_expiring_store_run_a_call_once() {
    for seed in 1..=8 {
        assert_eq!(most_runs(Shared::Expiring, [60, 3600], seed).await, 1);
    }
}

/// A store with a list of results. `None` stands for the real store's result, `BeforeStart` for a
/// store that is down.
#[derive(Clone)]
struct Turns {
    asked: Arc<AtomicUsize>,
    responses: &'static [Option<Recorded>],
    real: Arc<MemoryReplayStore>,
}

impl Turns {
    fn new(real: MemoryReplayStore, responses: &'static [Option<Recorded>]) -> Self {
        Self {
            asked: Arc::default(),
            responses,
            real: Arc::new(real),
        }
    }
}

impl ReplayStore for Turns {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst) % self.responses.len();
        match self.responses[turn] {
            Some(Recorded::BeforeStart) => Err(ReplayStoreError::Unavailable("down".into())),
            Some(recorded) => Ok(recorded),
            None => self.real.record(sighting).await,
        }
    }
}

/// The trait says that anything but `Fresh` is always safe. So a store that cannot tell may return
/// `Seen`. The response must then not be signed, because its signature may not be recorded.
#[tokio::test]
async fn a_response_that_the_store_may_not_have_recorded_is_not_signed() {
    let it = inngest();
    let store = Turns::new(
        started(&it, 100),
        &[None, Some(Recorded::Seen), None, None, None, None],
    );
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .replay_guard(store);
    let headers = [("x-say", r#"{"evil":1}"#), ("x-silent", "")];
    let response = ask_echo(auth.clone(), captured()[0].again("POST", "/", &headers)).await;
    let Some(signature) = response.header(SIGNATURE_HEADER) else {
        return;
    };
    let request = Request::post("/?fnId=pay")
        .header(SIGNATURE_HEADER, signature)
        .body(Body::from(r#"{"evil":1}"#))
        .unwrap();
    assert_eq!(
        ask_echo(auth, request).await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// Failing open admits replays, but must not sign their responses. If the store comes and goes, one
/// captured call would otherwise buy any number of signed texts, and fill the store with them.
#[tokio::test]
async fn failing_open_signs_nothing_for_what_may_be_a_replay() {
    let it = inngest();
    // Down for the request, up for the response.
    let store = Turns::new(started(&it, 1000), &[Some(Recorded::BeforeStart), None]);
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .insecure_replay_fail_open(true)
        .replay_guard(store.clone());
    let mut signed = 0;
    for round in 0..100 {
        let said = format!(r#"{{"evil":{round}}}"#);
        let request = captured()[0].again("POST", "/", &[("x-say", &said), ("x-silent", "")]);
        signed += usize::from(
            ask_echo(auth.clone(), request)
                .await
                .header(SIGNATURE_HEADER)
                .is_some(),
        );
    }
    // The only time that the store was up for both the request and its response.
    assert!(
        signed <= 1 && store.real.len() <= 2,
        "{signed} signed, {} held",
        store.real.len()
    );
}

/// A store that takes longer than the window to record the response.
struct Slow(TestClock, Arc<AtomicUsize>);

impl ReplayStore for Slow {
    fn record(
        &self,
        _: Sighting,
    ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
        if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
            self.0.set(Some(NOW + 301));
        }
        ready(Ok(Recorded::Fresh))
    }
}

/// Responses later than the tolerance stay unsigned, and no slow store outlives the window.
#[tokio::test]
async fn a_store_that_is_slow_with_the_response_gets_nothing_signed() {
    let it = inngest();
    let store = Slow(it.clock().clone(), Arc::default());
    let auth = it
        .auth()
        .sign_responses(SignResponses::All)
        .replay_guard(store);
    let response = ask_echo(
        auth,
        captured()[0].again("POST", "/", &[("x-say", "a"), ("x-silent", "")]),
    )
    .await;
    assert_eq!(response.header(SIGNATURE_HEADER), None);
}

/// A re-entry has the id of a run beside its signature, and an unsigned request must bring neither.
/// So an unsigned `PUT` with a run's id is not a sync.
#[tokio::test]
async fn an_unsigned_sync_names_no_run() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().insecure_unsigned_sync(true));
    let request = Request::put("/checkout")
        .header("x-run-id", "somebody's")
        .header(SIGNATURE_HEADER, "")
        .body(Body::empty())
        .unwrap();
    ask(&app, request).await;
    if seen.count() > 0 {
        let (parts, _) = seen.one();
        assert!(!parts.headers.contains_key("x-run-id"));
        assert!(!parts.headers.contains_key(SIGNATURE_HEADER));
    }
}

/// A query that names a function asks for it, whatever the method. So a `GET` with `fnId` is not an
/// introspection.
#[tokio::test]
async fn a_get_that_names_a_function_runs_once() {
    let it = inngest();
    for uri in [CALL, "/?stepId=step", "/?%66nId=pay"] {
        let seen = Seen::default();
        let app = seen.app(it.auth().replay_guard(started(&it, 100)));
        for _ in 0..3 {
            ask(&app, captured()[4].again("GET", uri, &[])).await;
        }
        assert_eq!(seen.count(), 1, "{uri}");
    }
}

/// Holds whatever a custom rejection adds, and whatever wraps the layer.
#[tokio::test]
async fn no_rejection_says_when_to_retry_or_where_to_go() {
    const FORBIDDEN: [&str; 4] = [
        "retry-after",
        "x-inngest-no-retry",
        "location",
        SIGNATURE_HEADER,
    ];
    let it = inngest();
    for status in [
        100, 200, 204, 206, 301, 304, 307, 399, 400, 401, 429, 503, 599, 600, 999,
    ] {
        let custom = move |_: &Rejection, mut response: Response<Body>| {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            for name in FORBIDDEN {
                response.headers_mut().append(name, "1".parse().unwrap());
                response.headers_mut().append(name, "true".parse().unwrap());
            }
            response
        };
        let down = Turns::new(started(&it, 1), &[Some(Recorded::BeforeStart)]);
        for auth in [
            it.auth().on_rejection(custom),
            it.auth()
                .on_rejection(custom)
                .sign_responses(SignResponses::All),
            it.auth().on_rejection(custom).body_limit(1),
            it.auth().on_rejection(custom).body_budget(1),
            it.auth().on_rejection(custom).replay_guard(down),
        ] {
            // A second layer around it would sign a success.
            let inner = auth.layer(service_fn(echo));
            let nested = it
                .auth()
                .sign_responses(SignResponses::All)
                .layer(inner.clone());
            for request in [
                it.tampered(CALL, "{}"),
                it.unsigned(CALL, "{}"),
                it.stale(CALL, "{}"),
                it.call(CALL, "{}"),
            ] {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let request = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
                for response in [
                    inner.clone().oneshot(request()).await,
                    nested.clone().oneshot(request()).await,
                ] {
                    let response = response.unwrap();
                    if response.extensions().get::<Rejection>().is_none() {
                        continue;
                    }
                    assert!(response.status().as_u16() >= 400, "{status}");
                    for name in FORBIDDEN {
                        assert!(!response.headers().contains_key(name), "{status} {name}");
                    }
                    assert_eq!(response.extensions().get::<inngest_auth::Verified>(), None);
                }
            }
        }
    }
}

/// Headers could also be sent as the trailers of a custom rejection.
#[tokio::test]
async fn no_rejection_has_them_as_trailers() {
    let it = inngest();
    let custom = |_: &Rejection, response: Response<Body>| {
        let trailers = HeaderMap::from_iter([(
            "x-inngest-no-retry".parse().unwrap(),
            HeaderValue::from_static("true"),
        )]);
        let frames = vec![
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"{}"))),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let body = Body::new(StreamBody::new(Frames(frames.into_iter())));
        let mut response = response.map(|_| body);
        response
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("x-inngest-no-retry"));
        response
    };
    let app = Seen::default().app(it.auth().on_rejection(custom));
    let server = serve(app).await;
    let bytes =
        format!("GET {CALL} HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n");
    let heard = say(server, bytes.as_bytes()).await.to_lowercase();
    assert!(!heard.contains("x-inngest-no-retry"), "{heard}");
}

struct Frames<F>(std::vec::IntoIter<F>);

impl<F: Unpin> futures_core::Stream for Frames<F> {
    type Item = F;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<F>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// A `GET` that asks for an upgrade has no body and runs nothing by the rule. What follows it on
/// the connection is not signed, so a handler must not get the connection.
#[tokio::test]
async fn no_connection_upgrade_is_forwarded() {
    let it = inngest();
    let got = Arc::new(AtomicUsize::new(0));
    let handler = {
        let got = got.clone();
        move |request: Request<Body>| {
            if request.headers().contains_key("upgrade")
                && request
                    .extensions()
                    .get::<hyper::upgrade::OnUpgrade>()
                    .is_some()
            {
                got.fetch_add(1, Ordering::SeqCst);
            }
            ready(())
        }
    };
    let auth = it.auth().replay_guard(started(&it, 100));
    let server = serve(Router::new().fallback(handler).layer(auth)).await;
    let empty = &captured()[4].signature;
    for _ in 0..3 {
        let bytes = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n{SIGNATURE_HEADER}: {empty}\r\n\r\n"
        );
        say(server, bytes.as_bytes()).await;
    }
    assert_eq!(got.load(Ordering::SeqCst), 0);
}

/// All rejections of a signature are the same bytes on a socket, except for the date.
#[tokio::test]
async fn a_replay_is_rejected_exactly_like_a_wrong_signature() {
    let it = inngest();
    let store = started(&it, 100);
    let server = serve(Seen::default().app(it.auth().replay_guard(store))).await;
    let good = key("signkey-test-12345678").sign(b"{}", NOW).to_string();
    let mut heard = Vec::new();
    for signature in [
        &*good,
        &good,
        &good.replace("s=", "s=x"),
        "",
        "t=1&s=2",
        &good.replace("17", "16"),
    ] {
        let bytes = format!(
            "POST {CALL} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n{SIGNATURE_HEADER}: {signature}\r\n\r\n{{}}"
        );
        let said = say(server, bytes.as_bytes()).await;
        let lines = said.lines().filter(|line| !line.starts_with("date:"));
        heard.push(lines.collect::<Vec<_>>().join("\n"));
    }
    assert!(heard[0].starts_with("HTTP/1.1 200"));
    assert!(heard[1].starts_with("HTTP/1.1 401"));
    assert!(
        heard[1..].iter().all(|said| *said == heard[1]),
        "{heard:#?}"
    );
}

/// The clock is set while the store is being asked: forward beyond the window, back, or stopped.
/// What was recorded but did not run does not run later either.
#[tokio::test]
async fn a_clock_that_is_set_meanwhile_runs_nothing_twice() {
    struct Sets(TestClock, Mutex<Vec<Option<u64>>>, MemoryReplayStore);
    impl ReplayStore for Sets {
        fn record(
            &self,
            sighting: Sighting,
        ) -> impl Future<Output = Result<Recorded, ReplayStoreError>> + Send {
            if let Some(now) = self.1.lock().unwrap().pop() {
                self.0.set(now);
            }
            self.2.record(sighting)
        }
    }
    for (now, kind) in [
        (Some(NOW + 301), Some(RejectionKind::Stale)),
        (Some(NOW - 301), Some(RejectionKind::Future)),
        (None, Some(RejectionKind::NoTime)),
        (Some(NOW - 40), None),
        (Some(NOW + 300), None),
    ] {
        let it = inngest();
        let seen = Seen::default();
        let store = Sets(it.clock().clone(), Mutex::new(vec![now]), started(&it, 100));
        let app = seen.app(it.auth().replay_guard(store));
        let call = &captured()[0];
        let response = ask(&app, call.again("POST", "/", &[])).await;
        assert_eq!(
            response.extensions.get::<Rejection>().map(Rejection::kind),
            kind,
            "{now:?}"
        );
        for later in [NOW - 200, NOW, NOW + 100, NOW + 300, NOW - 10] {
            it.clock().set(Some(later));
            ask(&app, call.again("POST", "/", &[])).await;
        }
        assert_eq!(seen.count(), usize::from(kind.is_none()), "{now:?}");
    }
}

/// A mark that an outer layer, or anything in its place, has left must not count.
#[tokio::test]
async fn a_forged_mark_gets_nothing_signed() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth());
    ask(&app, it.call(CALL, "{}")).await;
    let (genuine, _) = seen.one();
    let (caller, verified) = (
        *genuine.extensions.get::<Caller>().unwrap(),
        *genuine.extensions.get::<inngest_auth::Verified>().unwrap(),
    );
    let app = seen.app(
        it.auth()
            .insecure_unsigned_sync(true)
            .sign_responses(SignResponses::All),
    );
    let mut request = Request::put("/")
        .header(IN_BAND.0, IN_BAND.1)
        .body(Body::from("x"))
        .unwrap();
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(verified);
    let response = ask(&app, request).await;
    assert_eq!(response.header(SIGNATURE_HEADER), None);
    let (parts, body) = seen.one();
    assert_eq!(
        parts.extensions.get::<Caller>(),
        Some(&Caller::UnsignedSync)
    );
    assert_eq!(parts.extensions.get::<inngest_auth::Verified>(), None);
    assert!(body.is_empty());
}

/// What an earlier process accepted is sent to the next one. The layer rejects it with the kind
/// that says why.
#[tokio::test]
async fn a_call_from_before_the_start_runs_nothing() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(
        it.auth()
            .replay_guard(MemoryReplayStore::new(10, it.clock())),
    );
    for at in [NOW, NOW + 100, NOW + 300] {
        it.clock().set(Some(at));
        let response = ask(&app, captured()[0].again("POST", CALL, &[])).await;
        let kind = response.extensions.get::<Rejection>().map(Rejection::kind);
        assert_eq!(
            (kind, seen.count()),
            (Some(RejectionKind::BeforeStart), 0),
            "{at}"
        );
    }
    // What runs nothing gets a response, which is not signed.
    let empty = &captured()[4];
    for (method, uri) in [("GET", "/"), ("POST", "/?probe=trust")] {
        let response = ask(&app, empty.again(method, uri, &[])).await;
        assert_eq!(
            (response.status, response.header(SIGNATURE_HEADER)),
            (StatusCode::OK, None),
            "{method}"
        );
    }
}

/// An unsigned sync whose body is longer than what is drained, with a content coding and a second
/// signature.
#[tokio::test]
async fn an_unsigned_sync_forwards_nothing_of_a_long_body() {
    let it = inngest();
    let seen = Seen::default();
    let app = seen.app(it.auth().body_limit(4).insecure_unsigned_sync(true));
    let frames = ["1234", "5678", "{}"]
        .map(|text| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(text))));
    let body = Body::new(StreamBody::new(Frames(Vec::from(frames).into_iter())));
    let request = Request::put("/")
        .header("content-encoding", "gzip")
        .body(body)
        .unwrap();
    assert_eq!(ask(&app, request).await.status, StatusCode::OK);
    let (parts, body) = seen.one();
    assert!(body.is_empty() && !parts.headers.contains_key("content-encoding"));
    // An empty signature and a second one: that is not an unsigned request.
    let two = Request::put("/")
        .header(SIGNATURE_HEADER, "")
        .header(SIGNATURE_HEADER, "t=1");
    let response = ask(&app, two.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (response.status, seen.count()),
        (StatusCode::UNAUTHORIZED, 0)
    );
}

/// Each window on its own, with nothing forgotten before.
#[tokio::test]
async fn a_closed_window_is_never_fresh_in_a_new_store() {
    for (until, now) in [(NOW, NOW + 1), (NOW - 1, NOW), (0, u64::MAX)] {
        let it = inngest();
        let store = started(&it, 10);
        let sighting = Sighting::new([7; 32], NOW, until, now);
        assert_eq!(
            store.record(sighting).await.unwrap(),
            Recorded::Seen,
            "until {until}, at {now}"
        );
        assert!(store.is_empty());
    }
}
