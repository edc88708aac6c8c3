//! Twenty instances that share one replay store, in simulated time over a simulated network.
//!
//! The layers are real. The clocks, the store, the bodies that arrive in pieces and the attacker
//! are simulated. Each seed is another world. Everything captured is sent to every instance, by
//! some method to some URL; in one of 25 worlds, by every method to every URL. Much of it is sent
//! when windows are about to close. Signed responses are sent back as requests.
//!
//! ```text
//! REPLAY_SEEDS=100000 cargo test --release --test replay_simulation -- --nocapture
//! ```
//!
//! `REPLAY_SEED` sets the first seed. A failing test prints its seed.
#![cfg(feature = "layer")]

#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use inngest_auth::replay::{Recorded, ReplayStore, ReplayStoreError, Sighting};
use inngest_auth::{
    Clock, InngestAuth, InngestAuthService, KeyRing, Rejection, SIGNATURE_HEADER, SignResponses,
    Signature, SigningKey,
};
use random::{Random, setting};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

const INSTANCES: u64 = 20;
/// More than any clock is behind, in ms.
const BEHIND: u64 = 1_000_000;
/// The true time when a world begins, in milliseconds.
const BEGIN: u64 = 1_700_000_000_000;
const METHODS: [&str; 7] = ["POST", "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"];
const URLS: [&str; 5] = [
    "/api/inngest?fnId=pay&stepId=step",
    "/api/inngest?fnId=other&stepId=step",
    "/api/inngest",
    "/durable",
    "/api/inngest?probe=trust",
];

/// The beginning of a response that differs each time.
const RESPONSE: &str = "{\"response\":";

/// Whether the assumptions of the guarantee hold in a world.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Clocks differ by no more than the skew, and the store loses nothing.
    Kept,
    /// The store loses keys.
    KeysLost,
    /// Two clocks differ by more than the skew, in one place of the fleet.
    ClocksApart,
}

/// The parameters of a world.
#[derive(Clone, Copy, Debug)]
struct Laws {
    tolerance: u64,
    skew: u64,
    sign: SignResponses,
    /// The longest time that the store takes before it writes, and then before its response
    /// arrives, in ms.
    store: u64,
    /// One in this many operations fails, before or after the write. 0 means none.
    fails: u64,
    /// The longest pause between the two pieces of a body, in ms.
    body: u64,
    /// Whether everything is sent to every URL, by every method.
    everything: bool,
}

impl Laws {
    fn of(random: &mut Random) -> Self {
        let tolerance = random.one_of(&[1, 2, 5, 30]);
        let window = 1000 * tolerance;
        Self {
            tolerance,
            skew: random.one_of(&[0, 1, 3, 10]),
            sign: random.one_of(&[
                SignResponses::Required,
                SignResponses::All,
                SignResponses::Never,
            ]),
            store: random.one_of(&[0, 20, 400, window, 3 * window]),
            fails: random.one_of(&[0, 0, 3, 20]),
            body: random.one_of(&[0, 300, window, 3 * window]),
            everything: random.once_in(25),
        }
    }
}

/// An instance's clock: the true time plus an offset.
#[derive(Clone)]
struct SimulatedClock {
    began: Instant,
    /// In ms, the time when a world begins.
    begins_at: u64,
}

impl SimulatedClock {
    fn millis(&self) -> u64 {
        self.begins_at + u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Option<u64> {
        Some(self.millis() / 1000)
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A store that all instances share, with its own time, which only runs forward.
#[derive(Clone)]
struct SimulatedStore {
    laws: Laws,
    loses: bool,
    forgets_early: bool,
    inside: Arc<Mutex<Inside>>,
}

struct Inside {
    random: Random,
    /// The MACs, and when they expire.
    entries: BTreeMap<[u8; 32], Instant>,
    lost: HashMap<[u8; 32], u32>,
}

/// A signature that was accepted.
struct Used {
    runs: u32,
    /// Whether it was the layer's own signature of a response.
    response: bool,
    /// How often the store lost it.
    lost: u32,
}

impl SimulatedStore {
    async fn take_time(&self) {
        let millis = self
            .inside
            .lock()
            .unwrap()
            .random
            .below(self.laws.store + 1);
        if millis > 0 {
            sleep(Duration::from_millis(millis)).await;
        }
    }

    fn fails(&self) -> Result<(), ReplayStoreError> {
        let fails =
            self.laws.fails > 0 && self.inside.lock().unwrap().random.once_in(self.laws.fails);
        if fails {
            return Err(ReplayStoreError::Unavailable("simulated".into()));
        }
        Ok(())
    }

    /// Does what `SET … NX EX` does.
    fn write(&self, sighting: Sighting) -> Recorded {
        let inside = &mut *self.inside.lock().unwrap();
        if self.loses && inside.random.once_in(10) {
            let at = inside.random.below(inside.entries.len() as u64 + 1);
            let key = inside
                .entries
                .keys()
                .nth(usize::try_from(at).unwrap())
                .copied();
            if let Some(key) = key {
                inside.entries.remove(&key);
                *inside.lost.entry(key).or_default() += 1;
            }
        }
        let window = sighting.until.saturating_sub(sighting.now) + 1;
        let seconds = sighting.seconds_left();
        let Some(seconds) =
            seconds.map(|seconds| if self.forgets_early { window } else { seconds })
        else {
            return Recorded::Seen;
        };
        let now = Instant::now();
        if inside
            .entries
            .get(&sighting.mac)
            .is_some_and(|&forgotten| forgotten > now)
        {
            return Recorded::Seen;
        }
        inside
            .entries
            .insert(sighting.mac, now + Duration::from_secs(seconds));
        Recorded::Fresh
    }
}

impl ReplayStore for SimulatedStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        self.take_time().await;
        self.fails()?;
        let recorded = self.write(sighting);
        self.take_time().await;
        self.fails()?;
        Ok(recorded)
    }
}

/// A body of two pieces, with a pause between them.
struct SlowBody {
    pieces: VecDeque<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl http_body::Body for SlowBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.pieces.len() < 2 {
            ready!(self.pause.as_mut().poll(cx));
        }
        Poll::Ready(self.pieces.pop_front().map(http_body::Frame::data).map(Ok))
    }
}

/// A text and its signature, as an attacker captures them.
#[derive(Clone)]
struct Captured {
    header: String,
    body: Bytes,
}

type Service = BoxCloneService<Request<Body>, Response<Body>, Infallible>;

/// What happened, summed over all worlds.
#[derive(Default)]
struct Counts {
    worlds: u64,
    signed: u64,
    deliveries: u64,
    signed_responses: u64,
    runs: u64,
    runs_again: u64,
    forwarded_and_nothing_run: u64,
    rejections: BTreeMap<String, u64>,
}

impl Counts {
    fn print(&self, what: &str) {
        let Self {
            worlds,
            signed,
            deliveries,
            signed_responses,
            runs,
            runs_again,
            forwarded_and_nothing_run,
            rejections,
        } = self;
        println!(
            "{what}: {worlds} seeds, {signed} calls signed and {deliveries} times delivered: {runs} runs, {runs_again} of \
             them again; {signed_responses} responses signed; {forwarded_and_nothing_run} without a run; rejected: \
             {rejections:?}"
        );
    }
}

/// The state of one world.
struct World {
    laws: Laws,
    random: Random,
    right: SimulatedClock,
    /// Each instance, with its offset from the true time in ms plus `BEHIND`.
    instances: Vec<(Service, u64)>,
    store: SimulatedStore,
    happened: Arc<Mutex<Happened>>,
}

#[derive(Default)]
struct Happened {
    /// How often each signature ran something.
    runs: HashMap<(u64, Bytes), u32>,
    responses: u64,
    counts: Counts,
}

/// Runs what may run something: everything but a `GET` or `HEAD` without a body that is not a
/// re-entry. Its response is the call itself, or differs each time.
async fn handle(
    request: Request<Body>,
    happened: Arc<Mutex<Happened>>,
    pause: u64,
    echo: bool,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let signed_at = parts
        .extensions
        .get::<inngest_auth::Verified>()
        .unwrap()
        .signed_at();
    let asks = matches!(parts.method.as_str(), "GET" | "HEAD") && body.is_empty();
    let runs = !asks || parts.headers.contains_key("x-run-id");
    let number = {
        let mut happened = happened.lock().unwrap();
        happened.responses += 1;
        if runs {
            *happened.runs.entry((signed_at, body.clone())).or_default() += 1;
            happened.counts.runs += 1;
        } else {
            happened.counts.forwarded_and_nothing_run += 1;
        }
        happened.responses
    };
    sleep(Duration::from_millis(pause)).await;
    let body = if echo {
        body
    } else {
        format!("{RESPONSE}{number}}}").into()
    };
    let response = Response::builder().header("x-inngest-sync-kind", "in_band");
    response.body(Body::from(body)).unwrap()
}

impl World {
    fn new(seed: u64, promise: Promise, ring: &KeyRing) -> Self {
        let mut random = Random::new(seed);
        let laws = Laws::of(&mut random);
        let began = Instant::now();
        let begins_at = BEGIN + random.below(1000);
        let right = SimulatedClock { began, begins_at };
        let store = SimulatedStore {
            laws,
            loses: promise == Promise::KeysLost,
            // Entries kept for the longest tolerance would outlive clocks that are this far apart.
            // Among layers with one tolerance, no store needs to keep them longer than `until`.
            forgets_early: promise == Promise::ClocksApart || random.once_in(2),
            inside: Arc::new(Mutex::new(Inside {
                random: Random::new(random.next()),
                entries: BTreeMap::new(),
                lost: HashMap::new(),
            })),
        };
        let happened = Arc::<Mutex<Happened>>::default();
        // From the clock furthest behind to the one furthest ahead.
        let spread = match promise {
            Promise::Kept | Promise::KeysLost => 1000 * laws.skew,
            // One second more than the skew, but not so far that a third clock is that much behind
            // the second.
            Promise::ClocksApart => 1000 * (2 * laws.skew + 1),
        };
        // All clocks may be behind Inngest's, or ahead.
        let shift = random.below(1200 * laws.tolerance + 1);
        let instances = (0..INSTANCES).map(|_| {
            let offset = match random.below(4) {
                0 => 0,
                1 => spread,
                _ => random.below(spread + 1),
            };
            let clock = SimulatedClock {
                began,
                begins_at: begins_at + offset - shift,
            };
            let auth = InngestAuth::new(ring.clone())
                .clock(clock)
                .tolerance(Duration::from_secs(laws.tolerance))
                .body_deadline(Duration::from_secs(3600))
                .sign_responses(laws.sign)
                .replay_skew(Duration::from_secs(laws.skew))
                .replay_guard(store.clone());
            let (happened, pause, echo) =
                (Arc::clone(&happened), random.below(500), random.once_in(2));
            let handler = service_fn(move |request| {
                let happened = Arc::clone(&happened);
                async move { Ok::<_, Infallible>(handle(request, happened, pause, echo).await) }
            });
            let service: InngestAuthService<_> = auth.layer(handler);
            (BoxCloneService::new(service), BEHIND + offset - shift)
        });
        Self {
            instances: instances.collect(),
            laws,
            random,
            right,
            store,
            happened,
        }
    }

    /// Signs a call now, and sends it to one instance and, as captured, to all.
    fn sign(&mut self, key: &SigningKey, number: u64) {
        let body = match self.random.below(4) {
            0 => Bytes::new(),
            _ => format!("{{\"call\":{number}}}").into(),
        };
        let header = key.sign(&body, self.right.now().unwrap()).to_string();
        let captured = Captured { header, body };
        self.happened.lock().unwrap().counts.signed += 1;
        let at = self.random.below(300);
        let first = usize::try_from(number % INSTANCES).unwrap();
        self.deliver(&captured, at, first, "POST", URLS[0]);
        for instance in 0..self.instances.len() {
            if self.laws.everything {
                for method in METHODS {
                    for url in URLS {
                        let at = self.when(instance);
                        self.deliver(&captured, at, instance, method, url);
                    }
                }
            } else {
                let method = self.random.one_of(&METHODS);
                let (at, url) = (self.when(instance), self.random.one_of(&URLS));
                self.deliver(&captured, at, instance, method, url);
            }
        }
    }

    /// Returns after how many ms to send: soon, while it is fresh there, or when it is about to be
    /// stale there.
    fn when(&mut self, instance: usize) -> u64 {
        let ahead = self.instances[instance].1;
        let ends = (1000 * self.laws.tolerance + BEHIND).saturating_sub(ahead);
        match self.random.below(4) {
            0 => self.random.below(1000),
            1 => self.random.below(ends + 1000),
            // Its body and the store take some time.
            2 => ends.saturating_sub(self.random.below(self.laws.body + self.laws.store + 1)),
            _ => ends.saturating_sub(1000) + self.random.below(2500),
        }
    }

    fn deliver(
        &mut self,
        captured: &Captured,
        in_millis: u64,
        instance: usize,
        method: &str,
        url: &str,
    ) {
        let Captured { header, body } = captured.clone();
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(SIGNATURE_HEADER, header)
            .header("x-inngest-sync-kind", "in_band");
        if self.random.once_in(3) {
            request = request.header("x-run-id", "run");
        }
        let pause = self.random.below(self.laws.body + 1);
        let at = Instant::now() + Duration::from_millis(in_millis);
        let service = self.instances[instance].0.clone();
        // The instances to which a signed response is sent back as a request.
        let others = [(); 3].map(|()| self.random.one_of(&[0, 1, 7, 19]));
        let others = others.map(|other| {
            (
                self.instances[other].0.clone(),
                self.random.one_of(&METHODS),
            )
        });
        let happened = Arc::clone(&self.happened);
        tokio::spawn(async move {
            sleep_until(at).await;
            let body = match body.len() {
                0 => Body::empty(),
                _ if pause == 0 => Body::from(body),
                len => Body::new(SlowBody {
                    pieces: [body.slice(..len / 2), body.slice(len / 2..)].into(),
                    pause: Box::pin(sleep(Duration::from_millis(pause))),
                }),
            };
            let response = send(service, request.body(body).unwrap(), &happened).await;
            let Some(Captured { header, body }) = response else {
                return;
            };
            happened.lock().unwrap().counts.signed_responses += 1;
            for (service, method) in others {
                let back = Request::builder()
                    .method(method)
                    .uri(URLS[0])
                    .header(SIGNATURE_HEADER, &header);
                send(
                    service,
                    back.body(Body::from(body.clone())).unwrap(),
                    &happened,
                )
                .await;
            }
        });
    }
}

/// Returns the response's body and signature, if it is signed.
async fn send(
    service: Service,
    request: Request<Body>,
    happened: &Mutex<Happened>,
) -> Option<Captured> {
    let response = service
        .oneshot(request)
        .await
        .unwrap_or_else(|error| match error {});
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let counts = &mut happened.lock().unwrap().counts;
    counts.deliveries += 1;
    if let Some(rejection) = parts.extensions.get::<Rejection>() {
        *counts
            .rejections
            .entry(format!("{:?}", rejection.kind()))
            .or_default() += 1;
    }
    let header = parts
        .headers
        .get(SIGNATURE_HEADER)?
        .to_str()
        .unwrap()
        .to_owned();
    // The signature must be one that Inngest accepts, verified as requests are.
    header.parse::<Signature>().unwrap();
    Some(Captured { header, body })
}

/// Runs one world.
fn live(seed: u64, promise: Promise, key: &SigningKey, ring: &KeyRing) -> (Vec<Used>, Counts) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, promise, ring);
        for number in 0..=world.random.below(3) {
            world.sign(key, number);
            let pause = world.random.below(2000);
            sleep(Duration::from_millis(pause)).await;
        }
        // Longer than everything together: simulated time advances when nothing else is left to do.
        sleep(Duration::from_secs(3600)).await;
        let inside = world.store.inside.lock().unwrap();
        let mut happened = world.happened.lock().unwrap();
        let runs = std::mem::take(&mut happened.runs);
        let used = runs.into_iter().map(|((signed_at, body), runs)| {
            let header = key.sign(&body, signed_at).to_string();
            let mac = hex::decode(&header[header.len() - 64..]).unwrap();
            Used {
                runs,
                response: body.starts_with(RESPONSE.as_bytes()),
                lost: inside.lost.get(&mac[..]).copied().unwrap_or_default(),
            }
        });
        let used: Vec<_> = used.collect();
        let mut counts = std::mem::take(&mut happened.counts);
        counts.worlds = 1;
        let again = |used: &Used| u64::from(used.runs - u32::from(!used.response));
        counts.runs_again = used.iter().map(again).sum();
        // A call, the response to it, and the constant that a trust probe gets.
        assert!(
            promise != Promise::Kept || inside.entries.len() as u64 <= 3 * counts.signed,
            "seed {seed}: filled"
        );
        (used, counts)
    })
}

/// Runs many worlds. In each, a call may run at most as often as `most` allows for the number of
/// times its key was lost. A response of the layer may run once less: never, if nothing is lost.
fn live_through(what: &str, seeds: u64, promise: Promise, most: impl Fn(u32) -> u32) -> Counts {
    let key: SigningKey = "signkey-test-12345678".parse().unwrap();
    let ring = KeyRing::from(key.clone());
    let mut all = Counts::default();
    let first = setting("REPLAY_SEED", 1);
    for seed in first..first + seeds {
        let (used, counts) = live(seed, promise, &key, &ring);
        for Used {
            runs,
            response,
            lost,
        } in used
        {
            let what = if response { "response" } else { "call" };
            let most = most(lost) - u32::from(response);
            assert!(
                runs <= most,
                "seed {seed}: {runs} runs of one {what}, {lost} times lost"
            );
        }
        all.worlds += counts.worlds;
        all.signed += counts.signed;
        all.deliveries += counts.deliveries;
        all.signed_responses += counts.signed_responses;
        all.runs += counts.runs;
        all.runs_again += counts.runs_again;
        all.forwarded_and_nothing_run += counts.forwarded_and_nothing_run;
        for (kind, count) in counts.rejections {
            *all.rejections.entry(kind).or_default() += count;
        }
    }
    all.print(what);
    all
}

#[test]
fn no_signature_runs_twice_on_twenty_instances_whatever_is_slow_or_fails() {
    let seeds = setting("REPLAY_SEEDS", 500);
    let counts = live_through("promise kept", seeds, Promise::Kept, |_| 1);
    assert_eq!(counts.runs_again, 0);
    assert!(
        counts.runs > seeds / 2,
        "too little has run to show anything"
    );
    assert!(counts.signed_responses > seeds / 10);
    for kind in ["Replayed", "Stale", "Future", "StoreUnavailable"] {
        assert!(counts.rejections.contains_key(kind), "no {kind}");
    }
}

/// As the docs of the module `replay` say: each lost key lets one signature be accepted again.
#[test]
fn a_lost_key_lets_that_signature_run_again_and_no_other() {
    let seeds = setting("REPLAY_SEEDS", 500) / 5;
    let counts = live_through("keys lost", seeds, Promise::KeysLost, |lost| 1 + lost);
    assert!(
        counts.runs_again > 0,
        "the store has lost nothing that mattered"
    );
}

/// As the docs of the module `replay` say: if clocks differ by more than the skew, a call can be
/// accepted again by an instance whose clock is behind.
#[test]
fn a_clock_behind_by_more_than_the_skew_lets_a_signature_run_twice() {
    let seeds = setting("REPLAY_SEEDS", 500) / 5;
    let counts = live_through("clocks apart", seeds, Promise::ClocksApart, |_| 2);
    assert!(
        counts.runs_again > 0,
        "the clocks were not far enough apart"
    );
}

#[test]
fn a_seed_determines_everything() {
    let key: SigningKey = "signkey-test-12345678".parse().unwrap();
    let ring = KeyRing::from(key.clone());
    for seed in 1..20 {
        let [one, other] = [(); 2].map(|()| live(seed, Promise::KeysLost, &key, &ring));
        assert_eq!(one.1.rejections, other.1.rejections, "{seed}");
        assert_eq!(
            (one.1.runs, one.1.deliveries),
            (other.1.runs, other.1.deliveries),
            "{seed}"
        );
    }
}
