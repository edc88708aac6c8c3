//! The memory cost of a request, counted by the allocator. There is a single test, so that nothing
//! else allocates.
#![cfg(feature = "layer")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts; the crate itself forbids unsafe code"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use common::{CALL, NOW, head, inngest, key, serve};
use http_body::Frame;
use http_body_util::BodyExt;
use inngest_auth::{InngestAuthService, SIGNATURE_HEADER};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower::{Layer, Service, service_fn};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn grown(by: usize) {
    CALLS.fetch_add(1, SeqCst);
    TOTAL.fetch_add(by, SeqCst);
    let live = LIVE.fetch_add(by, SeqCst) + by;
    PEAK.fetch_max(live, SeqCst);
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        // Both may exist at the same time.
        grown(new);
        LIVE.fetch_sub(layout.size(), SeqCst);
        unsafe { System.realloc(pointer, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Debug)]
struct Cost {
    /// The most bytes at once, above what was held before.
    peak: usize,
    /// All bytes allocated, freed or not.
    total: usize,
    calls: usize,
}

async fn cost<T>(work: impl Future<Output = T>) -> (T, Cost) {
    let (live, total, calls) = (LIVE.load(SeqCst), TOTAL.load(SeqCst), CALLS.load(SeqCst));
    PEAK.store(live, SeqCst);
    let done = work.await;
    let cost = Cost {
        peak: PEAK.load(SeqCst) - live,
        total: TOTAL.load(SeqCst) - total,
        calls: CALLS.load(SeqCst) - calls,
    };
    (done, cost)
}

type Handler = fn(
    Request<Body>,
) -> std::pin::Pin<
    Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>,
>;

/// Where each piece of the body is in memory, as seen by the handler.
static PIECES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn service() -> InngestAuthService<tower::util::ServiceFn<Handler>> {
    let handler: Handler = |request| {
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap();
                PIECES
                    .lock()
                    .unwrap()
                    .push((data.as_ptr() as usize, data.len()));
            }
            Ok(Response::default())
        })
    };
    // The deadline is long, because this test must also pass on a busy machine.
    let auth = inngest().auth().body_deadline(Duration::from_secs(600));
    auth.sign_responses(inngest_auth::SignResponses::Never)
        .layer(service_fn(handler))
}

async fn status(request: Request<Body>) -> StatusCode {
    service().call(request).await.unwrap().status()
}

fn signed(body: &[u8]) -> String {
    key("signkey-test-12345678").sign(body, NOW).to_string()
}

fn request(header: &str, body: Body) -> Request<Body> {
    Request::post(CALL)
        .header(SIGNATURE_HEADER, header)
        .body(body)
        .unwrap()
}

/// Returns `body` in frames of `size` bytes, which allocate nothing themselves.
fn in_frames(body: &Bytes, size: usize) -> Body {
    struct Cut(Bytes, usize);
    impl http_body::Body for Cut {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let size = self.1.min(self.0.len());
            let frame = self.0.split_to(size);
            std::task::Poll::Ready((!frame.is_empty()).then_some(Ok(Frame::data(frame))))
        }
        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }
    Body::new(Cut(body.clone(), size))
}

#[tokio::test]
async fn memory_follows_the_bytes_that_arrived() {
    frames_of_any_sizes_hold_what_they_carry().await;
    a_dribbled_body_costs_little_more_than_itself().await;
    only_the_frame_that_completes_a_body_is_kept().await;
    a_long_body_is_not_copied_for_its_canonical_form().await;
    hostile_json_costs_a_bounded_tree().await;
    a_rejection_by_headers_allocates_next_to_nothing().await;
    a_body_over_a_socket_pins_no_read_buffers().await;
}

async fn a_dribbled_body_costs_little_more_than_itself() {
    let body = Bytes::from(vec![b'x'; 4 * 1024 * 1024 + 1]);
    let header = signed(&body);
    for size in [1, 7, 1000, 16 * 1024 - 1] {
        let request = request(&header, in_frames(&body, size));
        let (status, cost) = cost(status(request)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            cost.peak < body.len() * 11 / 10 + 64 * 1024,
            "frames of {size}: {cost:?}"
        );
    }
}

/// A frame pins the read buffer that it is a slice of. The frame that completes a body may do so,
/// because the body is verified at once.
async fn only_the_frame_that_completes_a_body_is_kept() {
    let body = Bytes::from(vec![b'x'; 4_000_000]);
    let header = signed(&body);
    for (size, allocated) in [
        (body.len(), 8 * 1024),
        (3_000_000, 3_000_000 + 128 * 1024),
        (64 * 1024, body.len() + 128 * 1024),
        (16 * 1024, body.len() + 128 * 1024),
    ] {
        PIECES.lock().unwrap().clear();
        PIECES.lock().unwrap().reserve(1000);
        let request = request(&header, in_frames(&body, size));
        let (status, cost) = cost(status(request)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(cost.total < allocated, "frames of {size}: {cost:?}");
        let last = body.chunks(size).last().unwrap();
        let kept = |pieces: &[(usize, usize)]| {
            let all = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
            pieces
                .iter()
                .copied()
                .filter(|(at, _)| all.contains(at))
                .collect::<Vec<_>>()
        };
        let pieces = PIECES.lock().unwrap();
        assert_eq!(
            kept(&pieces),
            [(last.as_ptr() as usize, last.len())],
            "frames of {size}"
        );
    }
}

/// Only a body that is short enough to have a canonical form is copied to compute it.
async fn a_long_body_is_not_copied_for_its_canonical_form() {
    let header = key("signkey-test-00").sign(b"", NOW).to_string();
    for (len, most) in [(64 * 1024 + 1, 16 * 1024), (8 * 1024 * 1024, 16 * 1024)] {
        let body = Bytes::from([b"\"", &*vec![b'x'; len - 2], b"\""].concat());
        let (status, cost) = cost(status(request(&header, Body::from(body)))).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(cost.total < most, "{len} bytes: {cost:?}");
    }
}

/// A stream of items that are all ready.
struct Given<T>(std::vec::IntoIter<T>);

impl<T: Unpin> futures_core::Stream for Given<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::task::Poll::Ready(self.0.next())
    }
}

async fn frames_of_any_sizes_hold_what_they_carry() {
    let body = Bytes::from(vec![b'x'; 4 * 1024 * 1024]);
    let header = signed(&body);
    let sizes = [1, 1, 16 * 1024].into_iter().cycle();
    let mut rest = body.clone();
    let frames: Vec<_> = sizes
        .map_while(|size| {
            Some(rest.split_to(size.min(rest.len()))).filter(|frame| !frame.is_empty())
        })
        .map(Ok::<_, std::convert::Infallible>)
        .collect();
    let request = request(&header, Body::from_stream(Given(frames.into_iter())));
    let (status, cost) = cost(status(request)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(cost.peak < body.len() + 128 * 1024, "{cost:?}");
}

async fn hostile_json_costs_a_bounded_tree() {
    let header = key("signkey-test-00").sign(b"", NOW).to_string();
    for item in [
        "0",
        "[]",
        "{}",
        "\"\"",
        "[0]",
        r#"{"":0}"#,
        r#"{"":{}}"#,
        "1e9",
        r#"{"a":[]}"#,
    ] {
        let items = (64 * 1024 - 1) / (item.len() + 1);
        let body = Bytes::from(format!("[{}]", vec![item; items].join(",")));
        assert!(body.len() > 65_000 && body.len() <= 64 * 1024);
        let request = request(&header, Body::from(body.clone()));
        let (status, cost) = cost(status(request)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(cost.peak < 8 * 1024 * 1024, "{item}: {cost:?}");
        assert!(cost.peak > body.len(), "{item} was not looked at: {cost:?}");
    }
}

async fn a_rejection_by_headers_allocates_next_to_nothing() {
    let mut service = service();
    for header in [
        None,
        Some("lol"),
        Some(&*key("ff").sign(b"", NOW - 301).to_string()),
    ] {
        let mut request = Request::post(CALL).body(Body::empty()).unwrap();
        if let Some(header) = header {
            request
                .headers_mut()
                .insert(SIGNATURE_HEADER, header.parse().unwrap());
        }
        let (response, cost) = cost(service.call(request)).await;
        assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert!(cost.calls <= 8, "{header:?}: {cost:?}");
    }
}

/// Measures the live bytes while the handler runs, above what was held before, for a body of 2 MiB.
async fn a_body_over_a_socket_pins_no_read_buffers() {
    let body = vec![b'x'; 2 * 1024 * 1024];
    let header = signed(&body);
    let live = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&live);
    let handler = move |request: Request<Body>| {
        seen.store(LIVE.load(SeqCst), SeqCst);
        async move { drop(request) }
    };
    let server = serve(Router::new().fallback(handler).layer(inngest().auth())).await;
    for (write, pause) in [
        (1024, true),
        (2048, true),
        (4096, true),
        (64 * 1024, false),
        (body.len(), false),
    ] {
        let length = body.len().to_string();
        let head = head(
            "POST",
            &[
                (SIGNATURE_HEADER, &header),
                ("Content-Length", &length),
                ("Connection", "close"),
            ],
        );
        let mut socket = TcpStream::connect(server).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let before = LIVE.load(SeqCst);
        socket.write_all(&head).await.unwrap();
        for piece in body.chunks(write) {
            socket.write_all(piece).await.unwrap();
            if pause {
                // Lets the server read what has arrived.
                tokio::task::yield_now().await;
            }
        }
        let response = common::hear(&mut socket).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let bytes = live.load(SeqCst).saturating_sub(before);
        assert!(
            bytes >= body.len() && bytes <= 2 * body.len(),
            "writes of {write}: {bytes} bytes held"
        );
    }
}
