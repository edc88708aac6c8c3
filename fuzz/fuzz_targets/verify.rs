//! Whole requests, genuine and altered: `verify` and the layer decide as the rules do.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum_core::body::Body;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use inngest_auth::testing::TestClock;
use inngest_auth::{
    Caller, InngestAuth, KeyRole, Keys, Rejection, RejectionKind, SIGNATURE_HEADER, SignResponses,
    Signature, Tolerance, Verified, VerifyError, verify,
};
use inngest_auth_fuzz::request::{Held, Method, Plan, Sent, Verdict};
use inngest_auth_fuzz::{CURRENT, at_once, header, planned};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, ServiceExt, service_fn};

fuzz_target!(|input: &[u8]| {
    let Some((plan, body)) = planned::<Plan>(input) else {
        return;
    };
    let sent = plan.send(body);
    let expected = plan.judge(&sent);
    assert_eq!(by_function(&plan, &sent), expected);
    by_layer(&plan, &sent, &expected);
});

fn keys(plan: &Plan) -> Keys {
    let mut texts = plan
        .keys()
        .into_iter()
        .map(|(_, (text, _))| text.parse().unwrap());
    let current = texts.next().unwrap();
    let fallback = match plan.held {
        Held::OneTwice => Some(CURRENT.0.parse().unwrap()),
        _ => texts.next(),
    };
    Keys::new(current, fallback)
}

fn by_function(plan: &Plan, sent: &Sent) -> Verdict {
    let Ok(signature) = Signature::parse(&sent.header) else {
        return Verdict::Malformed;
    };
    let tolerance = Tolerance::from_secs(plan.tolerance());
    match verify(&sent.body, &signature, &keys(plan), plan.now(), tolerance) {
        Ok(authentic) => Verdict::Accepted {
            key: authentic.verified().key(),
            form: authentic.verified().form(),
            time: authentic.verified().signed_at(),
            bytes: authentic.into_bytes().into_owned(),
        },
        Err(VerifyError::Stale { age }) => Verdict::Stale(age),
        Err(VerifyError::Future { ahead }) => Verdict::Future(ahead),
        Err(VerifyError::Mismatch) => Verdict::Mismatch,
        Err(other) => panic!("{other}"),
    }
}

/// What the handler received.
struct Found {
    verified: Verified,
    announced: Vec<HeaderValue>,
    body: Bytes,
}

fn by_layer(plan: &Plan, sent: &Sent, expected: &Verdict) {
    let Ok(header) = HeaderValue::from_bytes(&sent.header) else {
        return;
    };
    let found = Arc::<Mutex<Vec<_>>>::default();
    let finds = Arc::clone(&found);
    let handler = service_fn(move |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let body = at_once(body.collect()).unwrap().to_bytes();
        let Some(&Caller::Verified(verified)) = parts.extensions.get() else {
            panic!("the handler must not run for an unknown caller")
        };
        let announced = parts
            .headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .cloned()
            .collect();
        let echo = body.clone();
        finds.lock().unwrap().push(Found {
            verified,
            announced,
            body,
        });
        async { Ok::<_, Infallible>(Response::new(Full::new(echo))) }
    });
    let app = InngestAuth::new(keys(plan))
        .tolerance(Tolerance::from_secs(plan.tolerance()))
        .clock(TestClock::at(plan.now()))
        .sign_responses(SignResponses::All)
        .layer(handler);
    let mut request = Request::builder()
        .method(plan.method.name())
        .uri("/api/inngest?fnId=hello&stepId=step")
        .header(SIGNATURE_HEADER, header);
    if plan.says_dev {
        request = request.header("x-inngest-server-kind", "dev");
    }
    let request = request
        .body(Full::new(Bytes::from(sent.body.clone())))
        .unwrap();
    let response = at_once(app.oneshot(request)).unwrap();
    let found = std::mem::take(&mut *found.lock().unwrap());

    let Verdict::Accepted {
        key,
        form,
        time,
        bytes,
    } = expected
    else {
        assert!(found.is_empty(), "the handler ran");
        assert_rejected(response, sent, expected);
        return;
    };
    assert_eq!(response.status(), StatusCode::OK);
    let [found] = &found[..] else {
        panic!("the handler ran {} times", found.len())
    };
    let verified = (
        found.verified.key(),
        found.verified.form(),
        found.verified.signed_at(),
    );
    assert_eq!(verified, (*key, *form, *time));
    assert_eq!(found.body, bytes);
    assert_eq!(found.announced, [HeaderValue::from(bytes.len())]);
    assert_eq!(response.extensions().get(), Some(&found.verified));
    assert_response_signed(&response, plan, *key, *time, bytes);
}

fn assert_rejected(response: Response<Body>, sent: &Sent, expected: &Verdict) {
    let kind = match expected {
        _ if sent.header.is_empty() => RejectionKind::Missing,
        Verdict::Malformed if header::joined(&sent.header) => RejectionKind::Doubled,
        Verdict::Malformed => RejectionKind::Malformed,
        Verdict::Stale(_) => RejectionKind::Stale,
        Verdict::Future(_) => RejectionKind::Future,
        _ => RejectionKind::WrongSignature,
    };
    let rejection = response.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.kind(), kind);
    assert!(response.extensions().get::<Verified>().is_none());
    assert!(!response.headers().contains_key(SIGNATURE_HEADER));
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        at_once(response.into_body().collect()).unwrap().to_bytes(),
        r#"{"message":"Unauthorized"}"#
    );
}

/// Checks the signature: with the key and the time of the request, over the body without one
/// trailing newline. A response without a body must not be signed.
fn assert_response_signed(
    response: &Response<Body>,
    plan: &Plan,
    key: KeyRole,
    time: u64,
    body: &[u8],
) {
    let signed = body.strip_suffix(b"\n").unwrap_or(body);
    let secrets = plan.keys();
    let (_, (_, secret)) = secrets.iter().find(|(role, _)| *role == key).unwrap();
    let signature = header::write(time, &header::sign(secret, signed, time));
    let expected = match plan.method {
        Method::Head => None,
        _ if signed.is_empty() => None,
        _ => Some(signature.as_bytes()),
    };
    let got = response
        .headers()
        .get(SIGNATURE_HEADER)
        .map(HeaderValue::as_bytes);
    assert_eq!(got, expected);
}
