//! The functions that the conformance runner calls, with the names and events of its cases.
//!
//! Inngest calls a function again for each of its steps. The call has the results of earlier steps.
//! The first step without a result is run, and the response has its result.

use std::collections::HashMap;

use axum::Json;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use inngest_auth::Caller;
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use crate::register::App;

pub(crate) const APP: &str = "conformance";

type Function = fn(&Call) -> Result<Value, Halt>;

/// The functions: name, event, cancelling event, and code.
const FUNCTIONS: [(&str, &str, Option<[&str; 2]>, Function); 5] = [
    ("test-suite-simple-fn", "tests/function.test", None, simple),
    ("test-suite-step-test", "tests/step.test", None, steps),
    ("test-suite-retry-test", "tests/retry.test", None, retry),
    (
        "test-suite-cancel-test",
        "tests/cancel.test",
        Some([
            "cancel/please",
            "async.data.request_id == event.data.request_id",
        ]),
        cancel,
    ),
    (
        "test-suite-wait-for-event",
        "tests/wait.test",
        None,
        wait_for_event,
    ),
];

pub(crate) fn app() -> App {
    let describe = |&(name, event, cancel, _): &(&str, &str, Option<[&str; 2]>, Function)| {
        let mut function =
            json!({"id": name, "name": name, "triggers": [{ "event": event }], "retries": 3});
        if let Some([event, condition]) = cancel {
            function["cancel"] = json!([{ "event": event, "if": condition }]);
        }
        function
    };
    App {
        id: APP,
        functions: FUNCTIONS.iter().map(describe).collect(),
    }
}

/// Runs the function that the query names.
pub(crate) fn run(_: Caller, parts: &Parts, body: &[u8]) -> Response {
    let query: HashMap<_, _> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).collect();
    let id = query
        .get("fnId")
        .and_then(|id| id.strip_prefix(APP)?.strip_prefix('-'));
    let found = FUNCTIONS.iter().find(|(name, ..)| Some(*name) == id);
    let (Some((.., function)), Some(call)) = (found, Call::parse(body)) else {
        let message = json!({"message": "no such function, or the body is no call"});
        return (StatusCode::BAD_REQUEST, Json(message)).into_response();
    };
    match function(&call) {
        Ok(result) => Json(result).into_response(),
        Err(Halt::Step(op)) => (StatusCode::PARTIAL_CONTENT, Json(json!([op]))).into_response(),
        Err(Halt::Failed(message)) => {
            let error = json!({"name": "Error", "message": message});
            (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response()
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn simple(call: &Call) -> Result<Value, Halt> {
    Ok(call.done())
}

fn steps(call: &Call) -> Result<Value, Halt> {
    let first = call.run("first step", || Ok(json!("first step")))?;
    call.sleep("sleep", "2s")?;
    call.run("second step", || {
        Ok(json!({"first": first, "second": true}))
    })?;
    Ok(call.done())
}

fn retry(call: &Call) -> Result<Value, Halt> {
    call.run("first step", || match call.attempt {
        0 => Err("broken"),
        attempt => Ok(json!(format!("yes: {}", attempt + 1))),
    })?;
    match call.attempt {
        0 => Err(Halt::Failed("broken func")),
        _ => Ok(call.done()),
    }
}

fn cancel(call: &Call) -> Result<Value, Halt> {
    call.sleep("sleep", "10s")?;
    call.run("after the sleep", || {
        Ok(json!("a matching event should have cancelled this"))
    })?;
    Ok(call.done())
}

fn wait_for_event(call: &Call) -> Result<Value, Halt> {
    let condition = "async.data.resume == true && async.data.id == event.data.id";
    let event = call.wait_for_event("wait", "test/resume", condition, "10s")?;
    Ok(json!({"result": event["data"]}))
}

/// Why a function stops in this call.
enum Halt {
    /// A step was run, or must be waited for: Inngest calls again when it has a result.
    Step(Value),
    Failed(&'static str),
}

/// One call of a function.
struct Call {
    event: Value,
    /// Results of earlier steps, by their ids.
    steps: Map<String, Value>,
    attempt: u64,
}

impl Call {
    fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(Self {
            event: body["event"].as_object()?.clone().into(),
            steps: body["steps"].as_object()?.clone(),
            attempt: body["ctx"]["attempt"].as_u64()?,
        })
    }

    fn done(&self) -> Value {
        json!({"name": self.event["name"], "body": "ok"})
    }

    /// Returns the step's result, or stops at it. No function here has two steps of one name.
    fn step(&self, name: &str, op: impl FnOnce(String) -> Value) -> Result<Value, Halt> {
        let id = hex::encode(Sha1::digest(name));
        match self.steps.get(&id) {
            Some(result) => Ok(result.clone()),
            None => Err(Halt::Step(op(id))),
        }
    }

    fn run(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<Value, &'static str>,
    ) -> Result<Value, Halt> {
        let result = self.step(name, |id| match work() {
            Ok(data) => json!({"op": "StepRun", "id": id, "name": name, "data": data}),
            Err(message) => {
                let error = json!({"name": "Error", "message": message});
                json!({"op": "StepError", "id": id, "name": name, "error": error})
            }
        })?;
        Ok(result["data"].clone())
    }

    fn sleep(&self, name: &str, duration: &str) -> Result<(), Halt> {
        self.step(
            name,
            |id| json!({"op": "Sleep", "id": id, "name": duration, "displayName": name}),
        )?;
        Ok(())
    }

    fn wait_for_event(
        &self,
        name: &str,
        event: &str,
        condition: &str,
        timeout: &str,
    ) -> Result<Value, Halt> {
        let opts = json!({"event": event, "if": condition, "timeout": timeout});
        self.step(
            name,
            |id| json!({"op": "WaitForEvent", "id": id, "name": name, "opts": opts}),
        )
    }
}
