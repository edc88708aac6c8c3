//! The body as it arrives. However it is cut and delayed, the verdict is the same, and the handler
//! reads the same bytes.
#![no_main]

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex};

use axum_core::body::Body;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use inngest_auth::testing::TestClock;
use inngest_auth::{
    InngestAuth, KeyRole, Keys, Rejection, RejectionKind, SIGNATURE_HEADER, Verified,
};
use inngest_auth_fuzz::framing::{BUDGET, DEADLINE, Head, LIMIT, Plan};
use inngest_auth_fuzz::{CURRENT, FALLBACK, NOW, at_once, header, planned};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt, service_fn};

/// One layer for all inputs, so that budget that one body does not release is missing for the next
/// ones.
static AUTH: LazyLock<InngestAuth> = LazyLock::new(|| {
    let [current, fallback] = [CURRENT, FALLBACK].map(|(text, _)| text.parse().unwrap());
    InngestAuth::new(Keys::new(current, Some(fallback)))
        .clock(TestClock::at(NOW))
        .body_limit(LIMIT)
        .body_budget(BUDGET)
        .body_deadline(DEADLINE)
        .sign_responses(inngest_auth::SignResponses::Never)
});

thread_local! {
    /// Its clock jumps to the next timer when nothing else is left to do.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
}

fuzz_target!(|input: &[u8]| {
    let Some((plan, bytes)) = planned::<Plan>(input) else {
        return;
    };
    let body = plan.body(bytes);
    let signed = |secret| header::write(NOW, &header::sign(secret, &body, NOW));
    let (header, verdict) = match plan.head {
        Head::Current => (Some(signed(CURRENT.1)), Ok(KeyRole::Current)),
        Head::Fallback => (Some(signed(FALLBACK.1)), Ok(KeyRole::Fallback)),
        Head::Forged => (Some(signed("")), Err(RejectionKind::WrongSignature)),
        Head::Malformed => (Some("t=1".into()), Err(RejectionKind::Malformed)),
        Head::Unsigned => (None, Err(RejectionKind::Missing)),
    };
    // A body must not change what the headers decide.
    let by_head = matches!(plan.head, Head::Malformed | Head::Unsigned);
    let expected = match plan.rejection(body.len()) {
        Some(kind) if !by_head => Err(kind),
        _ => verdict,
    };

    let mut request = Request::post("/api/inngest").version(if plan.http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    });
    if plan.announced {
        request = request.header(CONTENT_LENGTH, body.len());
    }
    if let Some(header) = header {
        request = request.header(SIGNATURE_HEADER, header);
    }
    let request = request.body(plan.frames(body.clone())).unwrap();

    let found = Arc::<Mutex<Vec<_>>>::default();
    let (finds, len) = (Arc::clone(&found), body.len() as u64);
    let handler = service_fn(move |request: Request<Body>| {
        assert_eq!(request.headers()[CONTENT_LENGTH], len.to_string());
        assert_eq!(
            http_body::Body::size_hint(request.body()).exact(),
            Some(len)
        );
        let read = at_once(request.into_body().collect()).unwrap();
        assert!(read.trailers().is_none(), "trailers are not signed");
        finds.lock().unwrap().push(read.to_bytes());
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let response = RUNTIME.with(|runtime| runtime.block_on(AUTH.layer(handler).oneshot(request)));
    let response = response.unwrap();

    let handed_on: &[Bytes] = match expected {
        Ok(_) => std::slice::from_ref(&body),
        Err(_) => &[],
    };
    assert_eq!(*found.lock().unwrap(), handed_on);
    let outcome = match response.extensions().get::<Rejection>() {
        Some(rejection) => Err(rejection.kind()),
        None => Ok(response.extensions().get::<Verified>().unwrap().key()),
    };
    assert_eq!(outcome, expected);
});
