//! Outside a Tokio runtime the layer says what it lacks, and does not panic.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use common::{CALL, Seen, ask, inngest};
use http_body::Frame;
use inngest_auth::replay::MemoryReplayStore;
use inngest_auth::{Config, Rejection, RejectionKind, SIGNATURE_HEADER};
use tracing::subscriber::DefaultGuard;

/// Polls until it is ready, as an executor that is not Tokio's does.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1000 {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
    }
    panic!("it waits for something that never comes");
}

/// `{}`, once it was waited for.
struct Late {
    polls: u32,
    end: bool,
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.polls > 0 {
            self.polls -= 1;
            return Poll::Pending;
        }
        let end = std::mem::replace(&mut self.end, true);
        Poll::Ready((!end).then(|| Ok(Frame::data("{}".into()))))
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn errors(&self) -> Vec<String> {
        let said = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = said.lines().filter(|line| line.contains("ERROR"));
        lines.map(ToOwned::to_owned).collect()
    }
}

/// Returns a call whose body is complete after this many polls.
fn call(polls: u32) -> Request<Body> {
    let (parts, body) = inngest().call(CALL, "{}").into_parts();
    drop(body);
    Request::from_parts(parts, Body::new(Late { polls, end: false }))
}

fn unsigned(polls: u32) -> Request<Body> {
    let mut request = call(polls);
    request.headers_mut().remove(SIGNATURE_HEADER);
    request
}

#[test]
fn a_body_that_is_waited_for_outside_a_runtime_is_rejected_and_the_log_says_why() {
    let it = inngest();
    let sync = |polls| {
        let (mut parts, body) = unsigned(polls).into_parts();
        (parts.method, parts.uri) = ("PUT".parse().unwrap(), "/api/inngest".parse().unwrap());
        Request::from_parts(parts, body)
    };
    let store = MemoryReplayStore::new(10, it.clock()).insecure_accept_signed_before_start(true);
    let guarded = it.auth().replay_guard(store);
    for (what, auth, request, kind, reached) in [
        ("at once", it.auth(), call(0), None, 1),
        ("at once, with a replay guard", guarded, call(0), None, 1),
        (
            "late",
            it.auth(),
            call(1),
            Some(RejectionKind::NoRuntime),
            0,
        ),
        // Its rejection is decided; its body is not drained.
        (
            "unsigned, late",
            it.auth(),
            unsigned(1),
            Some(RejectionKind::Missing),
            0,
        ),
        (
            "unsigned sync, late",
            it.auth().insecure_unsigned_sync(true),
            sync(1),
            None,
            1,
        ),
    ] {
        let (log, _guard) = Log::begin();
        let seen = Seen::default();
        let answer = block_on(ask(&seen.app(auth), request));
        let rejection = answer.extensions.get::<Rejection>().map(Rejection::kind);
        let status = kind.map_or(200, RejectionKind::status);
        assert_eq!(
            (rejection, answer.status.as_u16()),
            (kind, status),
            "{what}"
        );
        assert_eq!(seen.count(), reached, "{what}");
        let errors = log.errors();
        if kind == Some(RejectionKind::NoRuntime) {
            let [error] = &*errors else {
                panic!("{what}: {errors:?}")
            };
            assert!(
                error.contains("outside a Tokio runtime: run the server in one"),
                "{error}"
            );
        } else {
            assert!(errors.is_empty(), "{what}: {errors:?}");
        }
    }
}

#[test]
fn another_executor_may_poll_the_layer_where_a_runtime_is_entered() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let answer = block_on(ask(&Seen::default().app(inngest().auth()), call(3)));
    assert_eq!(answer.status, StatusCode::OK);
}

#[test]
fn a_watch_outside_a_runtime_ends_and_the_log_says_why() {
    let (log, _guard) = Log::begin();
    let file = std::env::temp_dir().join(format!("inngest-auth-runtime-{}", std::process::id()));
    std::fs::write(&file, "signkey-test-12345678").unwrap();
    let config = Config::from_vars([("INNGEST_SIGNING_KEY_FILE", file.to_str().unwrap())]);
    block_on(config.unwrap().watch(Duration::from_secs(1)));
    std::fs::remove_file(&file).unwrap();
    let errors = log.errors();
    let [error] = &*errors else {
        panic!("{errors:?}")
    };
    assert!(
        error.contains("Config::watch needs a Tokio runtime"),
        "{error}"
    );
}

#[cfg(feature = "redis")]
#[test]
fn a_store_in_redis_outside_a_runtime_is_unavailable() {
    use inngest_auth::replay::RedisReplayStore;

    let store = RedisReplayStore::new("redis://127.0.0.1:1").unwrap();
    let auth = inngest().auth().replay_guard(store);
    let answer = block_on(ask(&Seen::default().app(auth), call(0)));
    let rejection = answer.extensions.get::<Rejection>().map(Rejection::kind);
    assert_eq!(rejection, Some(RejectionKind::StoreUnavailable));
}
