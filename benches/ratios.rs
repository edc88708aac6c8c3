//! What the crate costs in process, as ratios to the one thing that cannot be avoided:
//! `cargo bench --bench ratios`.
//!
//! One line a row: name, figure, limit, verdict; exit status 1 if any is over. Baseline and
//! candidate take turns in one process and the fastest round of each counts, so that a busy machine
//! changes little. Settings are the default unless a row says otherwise. `-- --csv` prints cost by
//! body size instead.
#![allow(
    unsafe_code,
    reason = "an allocator that counts; the crate itself forbids unsafe code"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and bytes, for people"
)]

mod common;

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use common::alloc::{Counting, cost};
use common::timing::{Report, fastest, way};
use common::{
    Bare, CURRENT, FALLBACK, MinimalLayer, NOW, NoOpLayer, auth, bare_hmac, captured_call, filled,
    head, key, keys, ready_hmac, route, run,
};
use http_body::Frame;
use inngest_auth::{SignResponses, Signature, Tolerance, verify};
use tower::{Layer, Service};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How long the ways of a row take turns: long enough that some rounds go undisturbed on a busy
/// machine.
const A_ROW: Duration = Duration::from_secs(2);
/// Large bodies over HTTP/2 arrive in frames of this size.
const FRAME: usize = 16 * 1024;

/// A body that arrives in frames of the given sizes, the last of them repeated.
struct Cut {
    rest: Bytes,
    sizes: Vec<usize>,
    timed: bool,
}

/// When a body gave its last frame, and when the handler was called.
static LAST_FRAME: Mutex<Option<(Instant, Option<Instant>)>> = Mutex::new(None);

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = match &self.sizes[..] {
            [last] => *last,
            _ => self.sizes.pop().expect("at least one"),
        };
        let size = size.min(self.rest.len());
        let frame = self.rest.split_to(size);
        if self.timed && self.rest.is_empty() && !frame.is_empty() {
            *LAST_FRAME.lock().expect("one thread") = Some((Instant::now(), None));
        }
        Poll::Ready((!frame.is_empty()).then_some(Ok(Frame::data(frame))))
    }

    /// Returns `true` once all bytes are read, as hyper does for an announced length.
    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// How a body arrives.
#[derive(Clone)]
enum Arrival {
    Whole,
    /// In frames of this size.
    Frames(usize),
    /// In frames of these sizes.
    Recorded(Vec<usize>),
}

impl Arrival {
    fn of(&self, body: &Bytes) -> Body {
        let sizes = match self {
            Self::Whole => return Body::from(body.clone()),
            Self::Frames(size) => vec![*size],
            Self::Recorded(sizes) => sizes.iter().rev().copied().collect(),
        };
        Body::new(Cut {
            rest: body.clone(),
            sizes,
            timed: false,
        })
    }
}

/// Returns the sizes of the frames in which hyper delivers a body of `len` bytes over loopback.
fn recorded(len: usize) -> Vec<usize> {
    use std::io::Write as _;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (told, sizes) = tokio::sync::mpsc::unbounded_channel();
        let app = axum::Router::new().fallback(async move |mut body: Body| {
            let mut sizes = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx))
                    .await
            {
                let frame = frame.expect("a frame").into_data().expect("data");
                sizes.push(frame.len());
            }
            told.send(sizes).expect("it is waited for");
        });
        tokio::spawn(async { axum::serve(listener, app).await });
        let client = std::thread::spawn(move || {
            let mut socket = std::net::TcpStream::connect(address).expect("a server");
            write!(
                socket,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {len}\r\n\r\n"
            )
            .expect("a server that reads");
            socket.write_all(&filled(len)).expect("a server that reads");
            // The response ends the call.
            std::io::Read::read(&mut socket, &mut [0]).expect("a response");
        });
        let mut sizes = sizes;
        let sizes = sizes.recv().await.expect("a call");
        client.join().expect("no panic");
        sizes
    })
}

/// Runs calls through each service in turn. Returns the nanoseconds of the HMAC of the body, then
/// those of the services.
macro_rules! per_call {
    ($body:expr, $make:expr, $batch:expr, $($service:expr),+) => {{
        let (body, make, ready) = ($body, $make, ready_hmac());
        fastest(A_ROW, $batch, [
            way(make, |it| {
                bare_hmac(&ready, body);
                // Kept out of the time of the baseline: freed never.
                std::mem::forget(it);
            }),
            $(way(make, {
                let mut service = $service;
                move |it| {
                    let response = run(service.call(it)).expect("infallible");
                    assert!(response.status().is_success());
                    drop(black_box(response));
                }
            })),+
        ])
    }};
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _inside = runtime.enter();
    if std::env::args().any(|arg| arg == "--csv") {
        by_size();
        return ExitCode::SUCCESS;
    }
    let (_, body) = captured_call();
    let ready = ready_hmac();
    let [hmac_1k] = fastest(A_ROW, 64, [way(|| (), |()| bare_hmac(&ready, &body))]);
    println!("bare HMAC of {} bytes: {hmac_1k:.0} ns", body.len());
    let mut report = Report::new();
    small_calls(&mut report, &body);
    large_calls(&mut report);
    rejections(&mut report, &body);
    allocations(&mut report, &body);
    report.exit_code()
}

fn call(body: &Bytes, arrival: &Arrival) -> impl Fn() -> Request<Body> + Clone {
    let head = head(&key(CURRENT).sign(body, NOW).to_string(), body.len());
    let (body, arrival) = (body.clone(), arrival.clone());
    move || head.clone().map(|()| arrival.of(&body))
}

fn small_calls(report: &mut Report, body: &Bytes) {
    let header = key(CURRENT).sign(body, NOW).to_string();
    let (ready, keys) = (ready_hmac(), keys());
    let check = || {
        let signature: Signature = black_box(&*header).parse().expect("grammatical");
        let tolerance = Tolerance::default();
        let authentic = verify(body, &signature, &keys, NOW, tolerance);
        let _ = black_box(authentic.expect("genuine"));
    };
    let [hmac, verified] = fastest(
        A_ROW,
        64,
        [
            way(|| (), |()| bare_hmac(&ready, body)),
            way(|| (), |()| check()),
        ],
    );
    report.row("verify_1k", verified / hmac, 1.15);

    let make = call(body, &Arrival::Whole);
    let bare = || Bare(body.clone());
    let signed = || auth().sign_responses(SignResponses::All);
    let [minimal, minimal_signed] = [false, true].map(|sign| MinimalLayer { sign });
    let [
        hmac,
        without,
        no_op,
        floor,
        floor_signed,
        layer,
        layer_signed,
    ] = per_call!(
        body,
        &make,
        32,
        bare(),
        NoOpLayer.layer(bare()),
        minimal.layer(bare()),
        minimal_signed.layer(bare()),
        auth().layer(bare()),
        signed().layer(bare())
    );
    report.show("no_op_1k", (no_op - without) / hmac);
    report.show("minimal_1k", (floor - without) / hmac);
    report.aimed("layer_1k", (layer - without) / hmac, 1.95, 1.6);
    report.aimed(
        "layer_1k / minimal_1k",
        (layer - without) / (floor - without),
        1.3,
        1.15,
    );
    report.show("minimal_signed_1k", (floor_signed - without) / hmac);
    report.show("layer_signed_1k", (layer_signed - without) / hmac);

    // Axum builds a route with a layer anew for every call until its state is given.
    let route = || route(body.clone());
    let [
        hmac,
        without,
        no_op,
        floor,
        floor_signed,
        layer,
        layer_signed,
    ] = per_call!(
        body,
        &make,
        32,
        route().with_state::<()>(()),
        route().layer(NoOpLayer).with_state::<()>(()),
        route().layer(minimal).with_state::<()>(()),
        route().layer(minimal_signed).with_state::<()>(()),
        route().layer(auth()).with_state::<()>(()),
        route().layer(signed()).with_state::<()>(())
    );
    report.show("route_no_op_1k", (no_op - without) / hmac);
    report.show("route_minimal_1k", (floor - without) / hmac);
    report.row("route_layer_1k", (layer - without) / hmac, 2.3);
    report.show("route_minimal_signed_1k", (floor_signed - without) / hmac);
    report.aimed(
        "route_layer_signed_1k",
        (layer_signed - without) / hmac,
        3.75,
        3.5,
    );
}

fn large_calls(report: &mut Report) {
    for (name, len) in [("200k", 200_000), ("4m", 4_000_000)] {
        let body = filled(len);
        for (how, arrival, limit) in [
            ("socket", Arrival::Recorded(recorded(len)), 1.25),
            ("frames_16k", Arrival::Frames(FRAME), 1.25),
            ("whole", Arrival::Whole, 1.1),
        ] {
            let make = call(&body, &arrival);
            let [hmac, without, layer] = per_call!(
                &body,
                &make,
                1,
                Bare(Bytes::new()),
                auth().layer(Bare(Bytes::new()))
            );
            report.row(
                &format!("layer_{name}_{how}"),
                (layer - without) / hmac,
                limit,
            );
            let mut service = auth().layer(Bare(Bytes::new()));
            let it = make();
            let peak = cost(|| run(service.call(it))).peak;
            report.show(&format!("peak_{name}_{how}, KiB"), peak / 1024.0);
        }
    }

    let large = filled(4_000_000);
    let [mut current, mut fallback] = [CURRENT, FALLBACK].map(|text| {
        let head = head(&key(text).sign(&large, NOW).to_string(), large.len());
        let large = large.clone();
        let mut service = auth().layer(Bare(Bytes::new()));
        move || {
            let it = head.clone().map(|()| Arrival::Frames(FRAME).of(&large));
            drop(black_box(run(service.call(it))));
        }
    });
    let [with_current, with_fallback] = fastest(
        A_ROW,
        1,
        [way(|| (), |()| current()), way(|| (), |()| fallback())],
    );
    report.row("fallback_4m", with_fallback / with_current, 2.05);
    report.row("last_frame_4m", last_frame(&large), 1.25);
}

/// Returns the time from the arrival of the last frame to the handler, / the HMAC of that frame.
fn last_frame(large: &Bytes) -> f64 {
    /// The handler: says when it was called.
    #[derive(Clone)]
    struct Timed(Bare);

    impl Service<Request<Body>> for Timed {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = <Bare as Service<Request<Body>>>::Future;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            if let Some((_, called)) = &mut *LAST_FRAME.lock().expect("one thread") {
                called.get_or_insert_with(Instant::now);
            }
            self.0.call(request)
        }
    }

    let size = 64 * 1024;
    // The last frame is as large as the others.
    let whole = large.slice(..large.len() - large.len() % size);
    let head = head(&key(CURRENT).sign(&whole, NOW).to_string(), whole.len());
    let mut service = auth().layer(Timed(Bare(Bytes::new())));
    let ready = ready_hmac();
    let (mut last, mut frame) = (f64::INFINITY, f64::INFINITY);
    let row = Instant::now();
    while row.elapsed() < A_ROW {
        let body = Cut {
            rest: whole.clone(),
            sizes: vec![size],
            timed: true,
        };
        drop(run(service.call(head.clone().map(|()| Body::new(body)))));
        if let Some((began, Some(called))) = LAST_FRAME.lock().expect("one thread").take() {
            last = last.min((called - began).as_nanos() as f64);
        }
        let began = Instant::now();
        bare_hmac(&ready, &whole[..size]);
        frame = frame.min(began.elapsed().as_nanos() as f64);
    }
    last / frame
}

/// Returns bodies of 64 KiB that are slow to bring into canonical form: many small values, members
/// in the wrong order at every depth, and numbers and strings that are slow to convert.
fn hostile() -> Vec<Bytes> {
    let items = [
        r#"{"":0}"#,
        "[]",
        "0",
        r#"{"":[]}"#,
        "{}",
        r#"{"b":0,"a":0}"#,
        r#"{"a":0,"a":0}"#,
        r#""\u0000\n""#,
        "1.7976931348623157e308",
        "-5e-324",
        // Twenty-one digits.
        "1e20",
    ];
    let list = |item: &str| {
        format!(
            "[{}]",
            vec![item; (64 * 1024 - 1) / (item.len() + 1)].join(",")
        )
    };
    let deep = 120;
    let mut inmost = list("0");
    // Twelve bytes a level.
    inmost.truncate(inmost.len() - deep * 12 - 2);
    let inmost = inmost.trim_end_matches(',');
    let nested = format!(
        "{}{inmost}]{}",
        r#"{"b":"#.repeat(deep),
        r#","a":0}"#.repeat(deep)
    );
    // One object, its members in the wrong order.
    let members: Vec<_> = (0..6000)
        .rev()
        .map(|name| format!("{:?}:0", format!("{name:x}")))
        .collect();
    let wide = format!("{{{}}}", members.join(","));
    items
        .iter()
        .map(|item| list(item))
        .chain([nested, wide])
        .map(Bytes::from)
        .collect()
}

/// Returns the nanoseconds that a rejection takes.
fn rejections(report: &mut Report, body: &Bytes) {
    let ready = ready_hmac();
    let rejected = |body: &Bytes, signature: &str, announced: usize| {
        let head = head(signature, announced);
        let body = body.clone();
        move || head.clone().map(|()| Body::from(body.clone()))
    };
    let genuine = call(body, &Arrival::Whole);
    let large = filled(8 << 20);
    let at = |key_text: &str, body: &[u8], time| key(key_text).sign(body, time).to_string();
    let forged = at("ff", body, NOW);
    let mut bare = Bare(Bytes::new());
    let mut service = auth().layer(Bare(Bytes::new()));
    let mut time = |make: &dyn Fn() -> Request<Body>, batch| {
        let [hmac, bare, layer] = fastest(
            A_ROW / 2,
            batch,
            [
                way(make, |it| {
                    bare_hmac(&ready, body);
                    std::mem::forget(it);
                }),
                way(make, |it| drop(black_box(run(bare.call(it))))),
                way(make, |it| drop(black_box(run(service.call(it))))),
            ],
        );
        (hmac, layer - bare)
    };
    let stale = rejected(&Bytes::new(), &at(CURRENT, body, NOW - 301), 0);
    let (hmac, cost_of_stale) = time(&stale, 32);
    report.row("reject_header", cost_of_stale / hmac, 0.65);

    // What one forged request of each kind takes, against one genuine call of 1 KB.
    let (_, call) = time(&genuine, 32);
    for (name, make, batch) in [
        (
            "forged: empty signature",
            rejected(body, "", body.len()),
            32,
        ),
        (
            "forged: not a signature",
            rejected(body, "t=1&s=2", body.len()),
            32,
        ),
        (
            "forged: stale",
            rejected(body, &at("ff", body, NOW - 301), body.len()),
            32,
        ),
        (
            "forged: over the limit",
            rejected(body, &forged, 9 << 20),
            32,
        ),
        ("forged: 1 KB", rejected(body, &forged, body.len()), 32),
        (
            "forged: 8 MiB",
            rejected(&large, &at("ff", b"", NOW), large.len()),
            1,
        ),
    ] {
        report.show(name, time(&make, batch).1 / call);
    }

    // Judged is the shape that takes longest: what a stranger would send.
    let (mut slowest, mut ratio) = (0.0, 0.0);
    for json in hostile() {
        let make = rejected(&json, &forged, json.len());
        let [directly, layer] = fastest(
            A_ROW / 2,
            1,
            [
                way(&make, |it| {
                    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
                    black_box(serde_json_canonicalizer::to_vec(&value).expect("canonical"));
                    std::mem::forget(it);
                }),
                way(&make, |it| drop(black_box(run(service.call(it))))),
            ],
        );
        if layer > slowest {
            (slowest, ratio) = (layer, layer / directly);
        }
    }
    report.show("forged: hostile 64 KB", slowest / call);
    report.row("reject_canonical_64k", ratio, 1.25);
}

fn allocations(report: &mut Report, body: &Bytes) {
    let mut bare = Bare(Bytes::new());
    let mut service = auth().layer(Bare(Bytes::new()));
    let it = call(&filled(4_000_000), &Arrival::Whole)();
    report.row("alloc_4m", cost(|| run(service.call(it))).total, 2048.0);

    let dribbled = filled(4 * 1024 * 1024 + 1);
    let it = call(&dribbled, &Arrival::Frames(1))();
    let peak = cost(|| run(service.call(it))).peak - 64.0 * 1024.0;
    report.row("alloc_dribble", peak / dribbled.len() as f64, 1.1);

    let forged = key("ff").sign(body, NOW).to_string();
    let peaks = hostile().into_iter().map(|json| {
        let it = head(&forged, json.len()).map(|()| Body::from(json.clone()));
        cost(|| run(service.call(it))).peak / json.len() as f64
    });
    report.row("alloc_canonical", peaks.fold(0.0, f64::max), 16.0);

    let stale = key(CURRENT).sign(body, NOW - 301).to_string();
    let it = head(&stale, 0).map(|()| Body::empty());
    report.row("alloc_reject", cost(|| run(service.call(it))).calls, 7.0);

    let make = call(body, &Arrival::Whole);
    let (one, other) = (make(), make());
    let with = cost(|| run(service.call(one))).calls;
    let without = cost(|| run(bare.call(other))).calls;
    report.aimed("alloc_call", with - without, 10.0, 7.0);
}

/// Prints, for the plot, the nanoseconds of the bare HMAC, and those that the minimal layer and the
/// layer add to a call, by the bytes of its body.
fn by_size() {
    println!("bytes,hmac_ns,minimal_ns,layer_ns");
    for exponent in 6..=22 {
        let body = filled(1 << exponent);
        let batch = if exponent < 14 { 16 } else { 1 };
        let make = call(&body, &Arrival::Whole);
        let minimal = MinimalLayer { sign: false };
        let bare = || Bare(Bytes::new());
        let [hmac, without, floor, layer] = per_call!(
            &body,
            &make,
            batch,
            bare(),
            minimal.layer(bare()),
            auth().layer(bare())
        );
        println!(
            "{},{hmac:.0},{:.0},{:.0}",
            body.len(),
            floor - without,
            layer - without
        );
    }
}
