//! What the crate costs, as ratios to the one thing that cannot be avoided: `cargo bench --bench ratios`.
//!
//! A line a row: name, ratio, limit, verdict; exit status 1 if any is over. Baseline and candidate take turns in
//! one process and the fastest round of each counts, so that a busy machine changes little. `--csv` prints cost by
//! body size instead. Answer signing is off unless the row is about it.
#![allow(
    unsafe_code,
    reason = "an allocator that counts; the crate itself forbids unsafe code"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and bytes, for people"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hmac::{Hmac, KeyInit, Mac};
use http_body::Frame;
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, Keys, SIGNATURE_HEADER, Signature, SigningKey, Tolerance, verify};
use sha2::Sha256;
use tower::{Layer, Service};

const NOW: u64 = 1_700_000_000;
const CURRENT: &str = "signkey-test-12345678";
const FALLBACK: &str = "signkey-test-87654321";
const FRAME: usize = 64 * 1024;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Counting costs: not while time is measured.
static COUNTS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn grown(by: usize) {
    if COUNTS.load(Relaxed) {
        CALLS.fetch_add(1, Relaxed);
        TOTAL.fetch_add(by, Relaxed);
        PEAK.fetch_max(LIVE.fetch_add(by, Relaxed) + by, Relaxed);
    }
}

fn shrunk(by: usize) {
    if COUNTS.load(Relaxed) {
        LIVE.fetch_sub(by, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrunk(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        grown(new);
        shrunk(layout.size());
        unsafe { System.realloc(pointer, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Cost {
    peak: f64,
    total: f64,
    calls: f64,
}

fn cost<T>(work: impl FnOnce() -> T) -> Cost {
    // Far from zero, so that what was there before can be given back.
    LIVE.store(usize::MAX / 2, Relaxed);
    PEAK.store(usize::MAX / 2, Relaxed);
    TOTAL.store(0, Relaxed);
    CALLS.store(0, Relaxed);
    COUNTS.store(true, Relaxed);
    let done = work();
    COUNTS.store(false, Relaxed);
    drop(done);
    Cost {
        peak: (PEAK.load(Relaxed) - usize::MAX / 2) as f64,
        total: TOTAL.load(Relaxed) as f64,
        calls: CALLS.load(Relaxed) as f64,
    }
}

/// Everything here is ready at once.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
}

/// How long a row's ways take turns: long enough that on a busy machine, too, some rounds go undisturbed.
const A_ROW: Duration = Duration::from_secs(2);

/// Now and then a whole process measured a fifth more, as if by where its stack and heap lay: each round has them
/// elsewhere.
fn at_depth(depth: usize, work: &mut dyn FnMut()) {
    let frame = black_box([0_u8; 64]);
    match depth.checked_sub(1) {
        Some(depth) => at_depth(depth, work),
        None => work(),
    }
    black_box(frame);
}

/// The fastest of all rounds of each, in nanoseconds an operation. `make` prepares a round, untimed.
fn fastest<T, const N: usize>(time: Duration, batch: usize, mut ways: [Way<'_, T>; N]) -> [f64; N] {
    let mut best = [f64::INFINITY; N];
    let began = Instant::now();
    for round in 0.. {
        if began.elapsed() >= time {
            break;
        }
        for (way, best) in ways.iter_mut().zip(&mut best) {
            let placement = black_box(Vec::<u8>::with_capacity(round % 61 * 16));
            let mut prepared: Vec<T> = (0..batch).map(|_| (way.make)()).collect();
            at_depth(round % 64, &mut || {
                let began = Instant::now();
                for it in prepared.drain(..) {
                    (way.work)(it);
                }
                *best = best.min(began.elapsed().as_nanos() as f64 / batch as f64);
            });
            drop(placement);
        }
    }
    best
}

struct Way<'a, T> {
    make: Box<dyn FnMut() -> T + 'a>,
    work: Box<dyn FnMut(T) + 'a>,
}

fn way<'a, T>(make: impl FnMut() -> T + 'a, work: impl FnMut(T) + 'a) -> Way<'a, T> {
    Way {
        make: Box::new(make),
        work: Box::new(work),
    }
}

/// The service behind the layer: drops its request, answers with what it was given.
#[derive(Clone)]
struct Bare(Bytes);

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some((_, called)) = &mut *LAST_FRAME.lock().expect("one thread") {
            called.get_or_insert_with(Instant::now);
        }
        drop(request);
        ready(Ok(Response::new(Body::from(self.0.clone()))))
    }
}

/// When a body gave its last frame, and when the handler was called.
static LAST_FRAME: Mutex<Option<(Instant, Option<Instant>)>> = Mutex::new(None);

/// A body in frames of one size that cost nothing of their own.
struct Cut {
    rest: Bytes,
    size: usize,
    timed: bool,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.size.min(self.rest.len());
        let frame = self.rest.split_to(size);
        if self.timed && self.rest.is_empty() && !frame.is_empty() {
            *LAST_FRAME.lock().expect("one thread") = Some((Instant::now(), None));
        }
        Poll::Ready((!frame.is_empty()).then_some(Ok(Frame::data(frame))))
    }

    /// hyper says so too, once it has read as many bytes as were announced.
    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

fn key(text: &str) -> SigningKey {
    text.parse().expect("a key")
}

fn auth() -> InngestAuth {
    let keys = Keys::new(key(CURRENT), Some(key(FALLBACK)));
    InngestAuth::new(keys)
        .clock(TestClock::at(NOW))
        .sign_responses(inngest_auth::SignResponses::Never)
}

/// As Axum hands a call on: its length said, and something in the extensions already (it always puts some there).
fn request(header: &str, body: Body) -> Request<Body> {
    let len = http_body::Body::size_hint(&body).lower();
    let mut request = Request::post("/api/inngest")
        .header(SIGNATURE_HEADER, header)
        .body(body)
        .expect("a request");
    request.headers_mut().insert("content-length", len.into());
    request.extensions_mut().insert(());
    request
}

fn in_frames(body: &Bytes, size: usize) -> Body {
    match size {
        whole if whole >= body.len() => Body::from(body.clone()),
        size => Body::new(Cut {
            rest: body.clone(),
            size,
            timed: false,
        }),
    }
}

/// The body of a real call.
fn call_1k() -> Bytes {
    let line = include_str!("../tests/vectors/server_requests.jsonl")
        .lines()
        .find(|line| line.contains("\"calls_old-9\""));
    let request: serde_json::Value =
        serde_json::from_str(line.expect("the request")).expect("JSON");
    Bytes::from(request["body"].as_str().expect("a body").to_owned())
}

fn filled(len: usize) -> Bytes {
    (0..len)
        .map(|at| b"{\"key\": 0123456789}"[at % 19])
        .collect()
}

fn bare_hmac(ready: &Hmac<Sha256>, body: &[u8]) {
    let mut mac = ready.clone();
    mac.update(black_box(body));
    mac.update(b"1700000000");
    black_box(mac.finalize().into_bytes());
}

fn ready_hmac() -> Hmac<Sha256> {
    Hmac::new_from_slice(b"12345678").expect("any key")
}

/// HMAC of the body, the bare service, and the layer before it, in nanoseconds.
fn layered(body: &Bytes, frame: usize, header: &str, batch: usize) -> [f64; 3] {
    let ready = ready_hmac();
    let mut guarded = auth().layer(Bare(Bytes::new()));
    let mut bare = Bare(Bytes::new());
    let make = || request(header, in_frames(body, frame));
    fastest(
        A_ROW,
        batch,
        [
            way(make, |it| {
                bare_hmac(&ready, body);
                // Kept out of the time of the baseline, as far as it goes: freed later.
                std::mem::forget(it);
            }),
            way(make, |it| drop(black_box(run(bare.call(it))))),
            way(make, |it| {
                let response = run(guarded.call(it)).expect("infallible");
                assert!(response.status().is_success());
                drop(black_box(response));
            }),
        ],
    )
}

struct Report {
    judged: bool,
    over: bool,
}

impl Report {
    fn row(&mut self, name: &str, ratio: f64, limit: f64) {
        let ok = ratio <= limit || !self.judged;
        self.over |= !ok;
        let digits = if limit >= 100.0 { 0 } else { 2 };
        let verdict = if ok { "ok" } else { "over" };
        println!("{name:<22} {ratio:>8.digits$} {limit:>8.digits$} {verdict}");
    }
}

fn hashes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
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
    let body = call_1k();
    let ready = ready_hmac();
    let [hmac_1k] = fastest(A_ROW, 64, [way(|| (), |()| bare_hmac(&ready, &body))]);
    let judged = hashes_in_hardware();
    println!("bare HMAC of {} bytes: {hmac_1k:.0} ns", body.len());
    println!(
        "SHA-256 in hardware: {}",
        if judged {
            "yes"
        } else {
            "no: nothing is judged"
        }
    );
    println!("\n{:<22} {:>8} {:>8}", "row", "ratio", "limit");
    let mut report = Report {
        judged,
        over: false,
    };
    times(&mut report, &body);
    refusals(&mut report, &body);
    allocations(&mut report, &body);
    if report.over {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn times(report: &mut Report, body: &Bytes) {
    let header = key(CURRENT).sign(body, NOW).to_string();
    let ready = ready_hmac();
    let keys = Keys::new(key(CURRENT), Some(key(FALLBACK)));
    let [hmac, verified] = fastest(
        A_ROW,
        64,
        [
            way(|| (), |()| bare_hmac(&ready, body)),
            way(
                || (),
                |()| {
                    let signature: Signature = black_box(&*header).parse().expect("grammatical");
                    black_box(
                        verify(body, &signature, &keys, NOW, Tolerance::default())
                            .expect("genuine"),
                    );
                },
            ),
        ],
    );
    report.row("verify_1k", verified / hmac, 1.25);

    let [hmac, bare, guarded] = layered(body, usize::MAX, &header, 32);
    report.row("layer_1k", (guarded - bare) / hmac, 1.9);
    for (name, len) in [("layer_200k", 200_000), ("layer_4m", 4_000_000)] {
        let body = filled(len);
        let header = key(CURRENT).sign(&body, NOW).to_string();
        let [hmac, bare, guarded] = layered(&body, FRAME, &header, 1);
        report.row(name, (guarded - bare) / hmac, 1.1);
    }

    let large = filled(4_000_000);
    let [mut current, mut fallback] = [CURRENT, FALLBACK].map(|text| {
        let header = key(text).sign(&large, NOW).to_string();
        let large = large.clone();
        let mut guarded = auth().layer(Bare(Bytes::new()));
        move || {
            drop(black_box(run(
                guarded.call(request(&header, in_frames(&large, FRAME)))
            )));
        }
    });
    let [with_current, with_fallback] = fastest(
        A_ROW,
        1,
        [way(|| (), |()| current()), way(|| (), |()| fallback())],
    );
    report.row("fallback_4m", with_fallback / with_current, 2.05);

    // The last frame is as large as the others.
    let whole = large.slice(..large.len() - large.len() % FRAME);
    let header = key(CURRENT).sign(&whole, NOW).to_string();
    let mut guarded = auth().layer(Bare(Bytes::new()));
    let (mut last, mut frame) = (f64::INFINITY, f64::INFINITY);
    let row = Instant::now();
    while row.elapsed() < A_ROW {
        let body = Cut {
            rest: whole.clone(),
            size: FRAME,
            timed: true,
        };
        drop(run(guarded.call(request(&header, Body::new(body)))));
        if let Some((began, Some(called))) = LAST_FRAME.lock().expect("one thread").take() {
            last = last.min((called - began).as_nanos() as f64);
        }
        let began = Instant::now();
        bare_hmac(&ready, &whole[..FRAME]);
        frame = frame.min(began.elapsed().as_nanos() as f64);
    }
    report.row("last_frame_4m", last / frame, 1.25);

    let answer = body.clone();
    let header = key(CURRENT).sign(b"", NOW).to_string();
    let mut unsigned = auth().layer(Bare(answer.clone()));
    let mut signed = auth()
        .sign_responses(inngest_auth::SignResponses::All)
        .layer(Bare(answer));
    let make = || request(&header, Body::empty());
    let [hmac, unsigned, signed] = fastest(
        A_ROW,
        32,
        [
            way(make, |it| {
                bare_hmac(&ready, body);
                std::mem::forget(it);
            }),
            way(make, |it| drop(black_box(run(unsigned.call(it))))),
            way(make, |it| {
                let response = run(signed.call(it)).expect("infallible");
                assert!(response.headers().contains_key(SIGNATURE_HEADER));
                drop(black_box(response));
            }),
        ],
    );
    report.row("sign_answer_1k", (signed - unsigned) / hmac, 1.7);
}

/// 64 KiB each, under a signature that is fresh and wrong: many small values, members in the wrong order, and that
/// at every depth, numbers and strings that take long.
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

fn refusals(report: &mut Report, body: &Bytes) {
    let ready = ready_hmac();
    let mut guarded = auth().layer(Bare(Bytes::new()));
    let stale = key(CURRENT).sign(body, NOW - 301).to_string();
    let make = || request(&stale, Body::empty());
    let [hmac, refused] = fastest(
        A_ROW,
        32,
        [
            way(make, |it| {
                bare_hmac(&ready, body);
                std::mem::forget(it);
            }),
            way(make, |it| drop(black_box(run(guarded.call(it))))),
        ],
    );
    report.row("refuse_header", refused / hmac, 0.8);

    let forged = key("ff").sign(body, NOW).to_string();
    // Judged is the shape that takes longest: what a stranger would send.
    let (mut slowest, mut ratio) = (0.0, 0.0);
    for json in hostile() {
        let make = || request(&forged, Body::from(json.clone()));
        let [directly, refused] = fastest(
            A_ROW / 2,
            1,
            [
                way(make, |it| {
                    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
                    black_box(serde_json_canonicalizer::to_vec(&value).expect("canonical"));
                    std::mem::forget(it);
                }),
                way(make, |it| drop(black_box(run(guarded.call(it))))),
            ],
        );
        if refused > slowest {
            (slowest, ratio) = (refused, refused / directly);
        }
    }
    report.row("refuse_canonical_64k", ratio, 1.25);
}

fn allocations(report: &mut Report, body: &Bytes) {
    let mut bare = Bare(Bytes::new());
    let mut guarded = auth().layer(Bare(Bytes::new()));
    let large = filled(4_000_000);
    let header = key(CURRENT).sign(&large, NOW).to_string();
    let it = request(&header, Body::from(large));
    report.row("alloc_4m", cost(|| run(guarded.call(it))).total, 2048.0);

    let dribbled = filled(4 * 1024 * 1024 + 1);
    let header = key(CURRENT).sign(&dribbled, NOW).to_string();
    let it = request(&header, in_frames(&dribbled, 1));
    let peak = cost(|| run(guarded.call(it))).peak - 64.0 * 1024.0;
    report.row("alloc_dribble", peak / dribbled.len() as f64, 1.1);

    let forged = key("ff").sign(body, NOW).to_string();
    let peaks = hostile().into_iter().map(|json| {
        let it = request(&forged, Body::from(json.clone()));
        cost(|| run(guarded.call(it))).peak / json.len() as f64
    });
    report.row("alloc_canonical", peaks.fold(0.0, f64::max), 16.0);

    let stale = key(CURRENT).sign(body, NOW - 301).to_string();
    let it = request(&stale, Body::empty());
    report.row("alloc_refuse", cost(|| run(guarded.call(it))).calls, 7.0);

    let header = key(CURRENT).sign(body, NOW).to_string();
    let it = || request(&header, Body::from(body.clone()));
    let (one, other) = (it(), it());
    let with = cost(|| run(guarded.call(one))).calls;
    let without = cost(|| run(bare.call(other))).calls;
    report.row("alloc_call", with - without, 10.0);
}

/// For the plot: bytes of the body, nanoseconds of the bare HMAC, nanoseconds that the layer adds.
fn by_size() {
    println!("bytes,hmac_ns,layer_ns");
    for exponent in 6..=22 {
        let body = filled(1 << exponent);
        let header = key(CURRENT).sign(&body, NOW).to_string();
        let [hmac, bare, guarded] =
            layered(&body, FRAME, &header, if exponent < 14 { 16 } else { 1 });
        println!("{},{hmac:.0},{:.0}", body.len(), guarded - bare);
    }
}
