//! A stand-in for Inngest's server: it syncs an app, takes events, and calls functions over
//! sockets, signed as the server signs. It never waits: it sets its clock to when the next thing is
//! due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inngest_auth::testing::TestClock;
use inngest_auth::{Clock, SIGNATURE_HEADER, SigningKey};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::condition;

/// The server waits so long before it calls again, in seconds.
const BACK_OFF: u64 = 15;

/// A result, or why the app failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The part of the server that apps call: it knows one key.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    registered: Arc<Mutex<Vec<Value>>>,
    bearer: Option<Arc<str>>,
}

impl Api {
    /// Without a key, as a dev server, it asks for no token.
    pub(crate) async fn start(key: Option<&SigningKey>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let api = Self {
            url: format!("http://{address}"),
            registered: Arc::default(),
            bearer: key.map(|key| format!("Bearer {}", key.bearer().as_str()).into()),
        };
        let app = Router::new()
            .route("/fn/register", post(register))
            .with_state(api.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        api
    }

    pub(crate) fn take_registered(&self) -> Vec<Value> {
        std::mem::take(
            &mut self
                .registered
                .lock()
                .expect("nothing panics while it is locked"),
        )
    }
}

async fn register(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let token = headers.get(AUTHORIZATION);
    let known = match &api.bearer {
        Some(bearer) => token.is_some_and(|token| token.as_bytes() == bearer.as_bytes()),
        None => true,
    };
    match serde_json::from_slice(&body) {
        _ if !known => (
            StatusCode::UNAUTHORIZED,
            json!({"ok": false, "error": "unknown key"}).to_string(),
        ),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            json!({"ok": false, "error": error.to_string()}).to_string(),
        ),
        Ok(registration) => {
            api.registered
                .lock()
                .expect("nothing panics while it is locked")
                .push(registration);
            (
                StatusCode::OK,
                json!({"ok": true, "modified": true}).to_string(),
            )
        }
    }
}

pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns `true` for what the server takes for a function's end: a 2xx of an Inngest app.
    pub(crate) fn completes(&self) -> bool {
        self.status.is_success()
            && self.status != StatusCode::PARTIAL_CONTENT
            && self.is_of_an_app()
    }

    fn is_of_an_app(&self) -> bool {
        !self.header("x-inngest-sdk").is_empty()
    }
}

/// Sends requests as the server does.
pub(crate) struct Sender {
    client: Client<HttpConnector, Body>,
    /// A server without a key sends an empty signature.
    key: Option<SigningKey>,
    clock: TestClock,
}

impl Sender {
    pub(crate) fn new(key: Option<SigningKey>, clock: TestClock) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, key, clock }
    }

    /// Sends a signed request.
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Outcome<Response> {
        let now = self.clock.now().expect("a test clock tells the time");
        let signature = self.key.as_ref().map(|key| key.sign(body, now).to_string());
        self.send_as_is(
            method,
            url,
            headers,
            Some(&signature.unwrap_or_default()),
            body,
        )
        .await
    }

    /// Sends a request with this signature, or with none.
    pub(crate) async fn send_as_is(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        signature: Option<&str>,
        body: &[u8],
    ) -> Outcome<Response> {
        let signature = signature.map(|it| (SIGNATURE_HEADER, it));
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers.iter().copied().chain(signature) {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::from(body.to_vec()))
            .map_err(|error| format!("{url}: {error}"))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{url}: {error}"))?;
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// A call of a function, and its response.
pub(crate) struct Exchange {
    pub(crate) call: Value,
    pub(crate) response: Response,
}

pub(crate) struct Server {
    pub(crate) sender: Sender,
    functions: Vec<Value>,
    runs: Vec<Run>,
    /// What is due when. The second number keeps what is due at one time in order.
    due: BTreeMap<(u64, u64), Due>,
    next: u64,
    exchanges: Vec<Exchange>,
}

struct Run {
    function: usize,
    event: Value,
    stack: Vec<String>,
    steps: Map<String, Value>,
    /// What it waits for: the step, and the event's name and condition.
    waits: Option<(String, [String; 2])>,
    ended: bool,
}

enum Due {
    Event(Value),
    Call {
        run: usize,
        attempt: u64,
    },
    /// The step's time is over, unless it has a result.
    Over {
        run: usize,
        step: String,
    },
}

impl Server {
    /// A server that knows these functions, as an app told them.
    pub(crate) fn new(sender: Sender, functions: Vec<Value>) -> Self {
        Self {
            sender,
            functions,
            runs: Vec::new(),
            due: BTreeMap::new(),
            next: 0,
            exchanges: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.sender
            .clock
            .now()
            .expect("a test clock tells the time")
    }

    fn after(&mut self, seconds: u64, what: Due) {
        self.next += 1;
        self.due.insert((self.now() + seconds, self.next), what);
    }

    /// Sends each event so many seconds from now, and goes on until nothing is left to do.
    ///
    /// Returns what was called meanwhile.
    pub(crate) async fn run(&mut self, events: &[(u64, Value)]) -> Outcome<Vec<Exchange>> {
        for (seconds, event) in events {
            self.after(*seconds, Due::Event(event.clone()));
        }
        while let Some(((at, _), what)) = self.due.pop_first() {
            self.sender.clock.set(Some(at));
            match what {
                Due::Event(event) => self.receive(&event),
                Due::Call { run, .. } if self.runs[run].ended => {}
                Due::Call { run, attempt } => self.call(run, attempt).await?,
                Due::Over { run, step } => self.give(run, &step, Value::Null),
            }
        }
        Ok(std::mem::take(&mut self.exchanges))
    }

    /// Ends, continues and begins runs.
    fn receive(&mut self, event: &Value) {
        for at in 0..self.runs.len() {
            let run = &self.runs[at];
            let matches = |name: &Value, condition: &Value| {
                let condition = condition.as_str().unwrap_or_default();
                *name == event["name"] && condition::holds(condition, &run.event, event)
            };
            let function = &self.functions[run.function];
            let cancelled = function["cancel"].as_array().into_iter().flatten();
            if cancelled
                .into_iter()
                .any(|it| matches(&it["event"], &it["if"]))
            {
                self.runs[at].ended = true;
            } else if let Some((step, [name, condition])) = run.waits.clone()
                && matches(&json!(name), &json!(condition))
            {
                self.give(at, &step, event.clone());
            }
        }
        for function in 0..self.functions.len() {
            let mut triggers = self.functions[function]["triggers"]
                .as_array()
                .into_iter()
                .flatten();
            if triggers.any(|it| it["event"] == event["name"]) {
                self.runs.push(Run {
                    function,
                    event: event.clone(),
                    stack: Vec::new(),
                    steps: Map::new(),
                    waits: None,
                    ended: false,
                });
                let run = self.runs.len() - 1;
                self.after(0, Due::Call { run, attempt: 0 });
            }
        }
    }

    /// Gives a step its result, if it has none, and lets the function go on.
    fn give(&mut self, run: usize, step: &str, result: Value) {
        let it = &mut self.runs[run];
        if it.ended || it.steps.contains_key(step) {
            return;
        }
        it.waits = None;
        it.stack.push(step.to_owned());
        it.steps.insert(step.to_owned(), result);
        self.after(0, Due::Call { run, attempt: 0 });
    }

    async fn call(&mut self, run: usize, attempt: u64) -> Outcome {
        let it = &self.runs[run];
        let step = &self.functions[it.function]["steps"]["step"];
        let url = step["runtime"]["url"]
            .as_str()
            .ok_or("a function has no URL")?;
        // `serde_json` sorts names and writes no spaces: the canonical form of these bodies.
        let call = json!({
            "ctx": {
                "attempt": attempt,
                "disable_immediate_execution": false,
                "env": "",
                "fn_id": "65b21c0e-f524-562f-98b9-383dbc802009",
                "run_id": format!("run-{run}"),
                "stack": {"current": it.stack.len(), "stack": it.stack},
                "step_id": "step",
                "use_api": false,
            },
            "event": it.event,
            "events": [it.event],
            "steps": it.steps,
            "use_api": false,
            "version": -1,
        });
        let headers = [
            ("content-type", "application/json"),
            ("x-run-id", "01M84YN8VMWVQKPA0NDAVH9T9J"),
        ];
        let response = self
            .sender
            .send("POST", url, &headers, call.to_string().as_bytes())
            .await?;
        let retries = step["retries"]["attempts"].as_u64().unwrap_or_default();
        self.take(run, attempt, retries, &response);
        self.exchanges.push(Exchange { call, response });
        Ok(())
    }

    /// Does what a response asks for.
    fn take(&mut self, run: usize, attempt: u64, retries: u64, response: &Response) {
        let op = &response.json()[0];
        let id = op["id"].as_str().unwrap_or_default().to_owned();
        let is_op = response.status == StatusCode::PARTIAL_CONTENT && response.is_of_an_app();
        match op["op"].as_str().filter(|_| is_op) {
            Some("StepRun") => self.give(run, &id, json!({"data": op["data"]})),
            Some("Sleep") => self.after(seconds(&op["name"]), Due::Over { run, step: id }),
            Some("WaitForEvent") => {
                let option = |name: &str| op["opts"][name].as_str().unwrap_or_default().to_owned();
                self.runs[run].waits = Some((id.clone(), [option("event"), option("if")]));
                self.after(seconds(&op["opts"]["timeout"]), Due::Over { run, step: id });
            }
            _ if response.completes() => self.runs[run].ended = true,
            _ if attempt < retries => {
                let attempt = attempt + 1;
                self.after(BACK_OFF, Due::Call { run, attempt });
            }
            _ => self.runs[run].ended = true,
        }
    }
}

/// Reads a duration like `10s`.
fn seconds(duration: &Value) -> u64 {
    let text = duration.as_str().and_then(|text| text.strip_suffix('s'));
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
