//! The cases, by the runner's names for them: what the server calls, and what the app must respond.

use inngest_auth::{Keys, SIGNATURE_HEADER, Signature, Tolerance, verify};
use serde_json::{Map, Value, json};

use crate::bench::{self, Bench, Mode, NOW};
use crate::functions::APP;
use crate::server::{Exchange, Outcome, Response};

pub(crate) const CASES: [&str; 10] = [
    "serve-introspection",
    "basic-invoke",
    "steps-serial",
    "retry-basic",
    "cancel-basic",
    "wait-for-event-basic",
    "malformed-payload",
    "invalid-auth",
    "secret-redaction",
    "registration",
];

/// Returns `false` for a case about what is verified, where nothing is.
pub(crate) fn applies(case: &str, mode: Mode) -> bool {
    case != "invalid-auth" || mode != Mode::Dev
}

pub(crate) async fn run(case: &str, bench: &Bench) -> Outcome {
    match case {
        "serve-introspection" => introspection(bench).await,
        "basic-invoke" => basic_invoke(bench).await,
        "steps-serial" => steps_serial(bench).await,
        "retry-basic" => retry_basic(bench).await,
        "cancel-basic" => cancel_basic(bench).await,
        "wait-for-event-basic" => wait_for_event_basic(bench).await,
        "malformed-payload" => malformed_payload(bench).await,
        "invalid-auth" => invalid_auth(bench).await,
        "secret-redaction" => secret_redaction(bench).await,
        "registration" => registration(bench).await,
        _ => unreachable!("{case} is in the list"),
    }
}

/// SHA-1 of the names of the functions' steps, in hex, as the runner has them.
const FIRST_STEP: &str = "98bf98df193bcce7c33e6bc50927cf2ac21206cb";
const SECOND_STEP: &str = "764e20ec975d4ef820d0f42e6a5833384bd7ee36";
const SLEEP: &str = "c3ca5f787365eae0dea86250e27d476406956478";
const WAIT: &str = "daaad336276d15594d0e765f96c17cd746bf4971";

async fn introspection(bench: &Bench) -> Outcome {
    let response = bench.sender().send("GET", &bench.url, &[], b"").await?;
    let told = response.json();
    same("status", &json!(response.status.as_u16()), &json!(200))?;
    same("function_count", &told["function_count"], &json!(5))?;
    same("mode", &told["mode"], &json!(bench.mode.name()))?;
    let authenticated = if bench.mode == Mode::Dev {
        Value::Null
    } else {
        json!(true)
    };
    same(
        "authentication_succeeded",
        &told["authentication_succeeded"],
        &authenticated,
    )
}

async fn basic_invoke(bench: &Bench) -> Outcome {
    let event = event("tests/function.test", json!({"test": true}));
    let exchanges = bench.synced().await?.run(&[(0, event.clone())]).await?;
    let done = json!({"name": "tests/function.test", "body": "ok"});
    check(&exchanges, &event, &[(0, &[], 200, done)])
}

async fn steps_serial(bench: &Bench) -> Outcome {
    let event = event("tests/step.test", json!({"steps": {"ok": "yes"}}));
    let exchanges = bench.synced().await?.run(&[(0, event.clone())]).await?;
    let first = (FIRST_STEP, json!({"data": "first step"}));
    let slept = (SLEEP, Value::Null);
    let both = json!({"first": "first step", "second": true});
    let second = (SECOND_STEP, json!({ "data": both }));
    let [one, two, three] = [
        vec![first.clone()],
        vec![first.clone(), slept.clone()],
        vec![first, slept, second],
    ];
    check(
        &exchanges,
        &event,
        &[
            (
                0,
                &[],
                206,
                op(
                    "StepRun",
                    FIRST_STEP,
                    "first step",
                    json!({"data": "first step"}),
                ),
            ),
            (0, &one, 206, op("Sleep", SLEEP, "2s", json!({}))),
            (
                0,
                &two,
                206,
                op(
                    "StepRun",
                    SECOND_STEP,
                    "second step",
                    json!({ "data": both }),
                ),
            ),
            (
                0,
                &three,
                200,
                json!({"name": "tests/step.test", "body": "ok"}),
            ),
        ],
    )
}

async fn retry_basic(bench: &Bench) -> Outcome {
    let event = event("tests/retry.test", json!({"steps": {"ok": "yes"}}));
    let exchanges = bench.synced().await?.run(&[(0, event.clone())]).await?;
    let after = [(FIRST_STEP, json!({"data": "yes: 2"}))];
    let broken = json!({"error": {"message": "broken"}});
    check(
        &exchanges,
        &event,
        &[
            (
                0,
                &[],
                206,
                op("StepError", FIRST_STEP, "first step", broken),
            ),
            (
                1,
                &[],
                206,
                op(
                    "StepRun",
                    FIRST_STEP,
                    "first step",
                    json!({"data": "yes: 2"}),
                ),
            ),
            (
                0,
                &after,
                500,
                json!({"name": "Error", "message": "broken func"}),
            ),
            (
                1,
                &after,
                200,
                json!({"name": "tests/retry.test", "body": "ok"}),
            ),
        ],
    )
}

async fn cancel_basic(bench: &Bench) -> Outcome {
    let event = event(
        "tests/cancel.test",
        json!({"request_id": "123", "whatever": "it is"}),
    );
    let asleep = (0, &[][..], 206, op("Sleep", SLEEP, "10s", json!({})));
    let cancel = |id| {
        (
            1,
            json!({"name": "cancel/please", "data": {"request_id": id}, "user": {}}),
        )
    };
    let exchanges = bench
        .synced()
        .await?
        .run(&[(0, event.clone()), cancel("123")])
        .await?;
    check(&exchanges, &event, &[asleep])?;
    // The same with another run's id: had it not been cancelled, it would have gone on.
    let exchanges = bench
        .synced()
        .await?
        .run(&[(0, event), cancel("124")])
        .await?;
    same(
        "calls of a run that was not cancelled",
        &json!(exchanges.len()),
        &json!(3),
    )
}

async fn wait_for_event_basic(bench: &Bench) -> Outcome {
    let event = event("tests/wait.test", json!({"id": "123"}));
    let other = json!({"name": "test/resume", "data": {"id": "ignored"}, "user": {}});
    let resume = json!({"name": "test/resume", "data": {"id": "123", "resume": true}, "user": {}});
    let opts = json!({
        "event": "test/resume",
        "if": "async.data.resume == true && async.data.id == event.data.id",
        "timeout": "10s",
    });
    let waiting = (
        0,
        &[][..],
        206,
        op("WaitForEvent", WAIT, "wait", json!({ "opts": opts })),
    );
    let events = [(0, event.clone()), (1, other.clone()), (2, resume.clone())];
    let exchanges = bench.synced().await?.run(&events).await?;
    let after = [(WAIT, resume)];
    let result = json!({"result": {"id": "123", "resume": true}});
    check(
        &exchanges,
        &event,
        &[waiting.clone(), (0, &after, 200, result)],
    )?;
    // The same without the event: after ten seconds the wait times out.
    let exchanges = bench
        .synced()
        .await?
        .run(&[(0, event.clone()), (1, other)])
        .await?;
    check(
        &exchanges,
        &event,
        &[
            waiting,
            (0, &[(WAIT, Value::Null)], 200, json!({"result": null})),
        ],
    )
}

/// Signed, and yet no call: an error, and never a completed run.
async fn malformed_payload(bench: &Bench) -> Outcome {
    let url = format!("{}&fnId={APP}-test-suite-simple-fn&stepId=step", bench.url);
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        br#"{"event":1,"steps":[],"ctx":{}}"#,
    ] {
        let response = bench.sender().send("POST", &url, &[], body).await?;
        same("status", &json!(response.status.as_u16()), &json!(400))?;
    }
    Ok(())
}

async fn invalid_auth(bench: &Bench) -> Outcome {
    let url = format!("{}&fnId={APP}-test-suite-simple-fn&stepId=step", bench.url);
    let event = event("tests/function.test", json!({}));
    let call = json!({"event": event, "steps": {}, "ctx": {"attempt": 0}}).to_string();
    let key = bench.signing_key();
    let signed = |at| key.sign(call.as_bytes(), at).to_string();
    let wrong = key.sign(b"{}", NOW).to_string();
    let (stale, future) = (signed(NOW - 301), signed(NOW + 301));
    let signatures = [
        None,
        Some(""),
        Some("t=1&s=1"),
        Some(&*wrong),
        Some(&*stale),
        Some(&*future),
    ];
    let sender = bench.sender();
    for method in ["POST", "PUT", "GET"] {
        for signature in signatures {
            let headers = [
                ("x-inngest-server-kind", "dev"),
                ("x-inngest-sync-kind", "in_band"),
            ];
            let response = sender
                .send_as_is(method, &url, &headers, signature, call.as_bytes())
                .await?;
            same("status", &json!(response.status.as_u16()), &json!(401))?;
            same(
                "body",
                &response.json(),
                &json!({"message": "Unauthorized"}),
            )?;
            if response.completes() || !response.header("x-inngest-no-retry").is_empty() {
                return Err("a rejection would end the run".into());
            }
        }
    }
    Ok(())
}

/// No response contains a key, or the hash of one that the API takes as a token.
async fn secret_redaction(bench: &Bench) -> Outcome {
    let mut said = Vec::new();
    for body in ["", "{"] {
        said.push(
            bench
                .sender()
                .send("GET", &bench.url, &[], body.as_bytes())
                .await?,
        );
        said.push(
            bench
                .sender()
                .send("POST", &bench.url, &[], body.as_bytes())
                .await?,
        );
        said.push(
            bench
                .sender()
                .send_as_is("POST", &bench.url, &[], None, body.as_bytes())
                .await?,
        );
    }
    said.push(bench.sync_in_band().await?);
    for response in said {
        let text = format!(
            "{:?} {}",
            response.headers,
            String::from_utf8_lossy(&response.body)
        );
        if bench::secrets().iter().any(|secret| text.contains(secret)) {
            return Err(format!("a response tells a secret: {text}"));
        }
    }
    Ok(())
}

/// A sync that is not in band: the app calls the server.
async fn registration(bench: &Bench) -> Outcome {
    let body = json!({"url": bench.url}).to_string();
    let response = bench
        .sender()
        .send("PUT", &bench.url, &[], body.as_bytes())
        .await?;
    let message = json!({"message": "Successfully registered", "modified": true});
    same("response", &response.json(), &message)?;
    let [registered] = &bench.api.take_registered()[..] else {
        return Err("not registered once".into());
    };
    let synced = bench.sync_in_band().await?.json();
    for (name, value) in [
        ("url", "url"),
        ("appName", "app_id"),
        ("functions", "functions"),
    ] {
        same(name, &registered[name], &synced[value])?;
    }
    Ok(())
}

/// Checks the response to an in-band sync, and returns the functions in it.
pub(crate) fn functions(bench: &Bench, response: &Response) -> Outcome<Vec<Value>> {
    same("status", &json!(response.status.as_u16()), &json!(200))?;
    same(
        "sync kind",
        &json!(response.header("x-inngest-sync-kind")),
        &json!("in_band"),
    )?;
    let told = response.json();
    same("app_id", &told["app_id"], &json!(APP))?;
    same("url", &told["url"], &json!(bench.url))?;
    same("sdk_language", &told["sdk_language"], &json!("rust"))?;
    if bench.mode != Mode::Dev {
        let signature = Signature::parse(response.header(SIGNATURE_HEADER).as_bytes());
        let signature = signature.map_err(|error| format!("the response's signature: {error}"))?;
        let keys = Keys::from(bench.signing_key().clone());
        verify(&response.body, &signature, &keys, NOW, Tolerance::default())
            .map(drop)
            .map_err(|error| format!("the response's signature: {error}"))?;
    }
    let functions = told["functions"].as_array().cloned().unwrap_or_default();
    for function in &functions {
        let id = function["id"].as_str().unwrap_or_default();
        let url = &function["steps"]["step"]["runtime"]["url"];
        same(
            "a function's URL",
            url,
            &json!(format!("{}&fnId={id}&stepId=step", bench.url)),
        )?;
    }
    same("functions", &json!(functions.len()), &json!(5))?;
    Ok(functions)
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
fn event(name: &str, data: Value) -> Value {
    json!({"name": name, "data": data, "user": {}, "id": format!("{name}-1"), "ts": NOW * 1000})
}

/// A response with one operation. What the runner does not look at is not looked at here.
#[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
fn op(op: &str, id: &str, name: &str, more: Value) -> Value {
    let mut made = json!({"op": op, "id": id, "name": name});
    for (member, value) in more.as_object().into_iter().flatten() {
        made[member] = value.clone();
    }
    json!([made])
}

/// Attempt, results of earlier steps in their order, status and body of the response.
type Expected<'a> = (u64, &'a [(&'a str, Value)], u16, Value);

fn check(exchanges: &[Exchange], event: &Value, expected: &[Expected<'_>]) -> Outcome {
    same("calls", &json!(exchanges.len()), &json!(expected.len()))?;
    for (at, (exchange, (attempt, steps, status, response))) in
        exchanges.iter().zip(expected).enumerate()
    {
        let (call, got) = (&exchange.call, &exchange.response);
        let stack: Vec<_> = steps.iter().map(|(id, _)| *id).collect();
        let results: Map<_, _> = steps
            .iter()
            .map(|(id, result)| ((*id).to_owned(), result.clone()))
            .collect();
        same("event", &call["event"], event)?;
        same("attempt", &call["ctx"]["attempt"], &json!(attempt))?;
        same(
            "stack",
            &call["ctx"]["stack"],
            &json!({"current": stack.len(), "stack": stack}),
        )?;
        same("steps", &call["steps"], &json!(results))?;
        let what = format!("response {}", at + 1);
        same(&what, &json!(got.status.as_u16()), &json!(status))?;
        same(&what, &relevant(got.json()), response)?;
        if got.header("x-inngest-sdk").is_empty() {
            return Err(format!("{what} has no X-Inngest-Sdk"));
        }
    }
    Ok(())
}

/// Removes what the runner does not compare.
fn relevant(mut response: Value) -> Value {
    for op in response
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        op.remove("displayName");
        if let Some(error) = op.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("name");
        }
    }
    response
}

fn same(what: &str, got: &Value, expected: &Value) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected}, got {got}"))
}
