//! Simulates rotations over a fleet: a hundred instances that change their keys at different times,
//! Inngest, which switches keys, and calls in both directions.
//!
//! - **The crate's own code**: each instance's key ring, signing, verification, and API calls
//!   through `InngestApiAuth`, which remembers the key that the API accepted last.
//! - **Simulated**: time; Inngest, which signs with one key, retries, and accepts the token of that
//!   key; and the deployments. Keys are put into the rings directly, as `Config::watch` does after
//!   it has read the files. (`rotation_files` tests that with real files and sockets.)
//!
//! Every run is determined by its seed. `FLEET_SEEDS` sets the number of runs (default: 30).
#![cfg(feature = "layer")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use inngest_auth::{InngestApiAuth, KeyRing, Keys, SigningKey, Tolerance, verify};
use tokio::runtime::Builder;
use tower::{Layer, ServiceExt, service_fn};

const API: &str = "https://api.inngest.example";

const INSTANCES: usize = 100;
/// Inngest's calls in one run. Each is tried five times, as Inngest does.
const CALLS: u64 = 300;
/// Calls to Inngest's API in one run.
const API_CALLS: u64 = 100;
const BACK_OFF: [u64; 4] = [15, 30, 60, 120];
const TOLERANCE: u64 = 300;
/// By this time, in seconds, all instances have followed a deployment.
const ROLLOUT: u64 = 600;
const START: u64 = 1_700_000_000;
const END: u64 = START + 4000;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn within(&mut self, from: u64, seconds: u64) -> u64 {
        from + self.below(seconds)
    }
}

struct TestKeys {
    old: SigningKey,
    new: SigningKey,
    /// The key of the next rotation.
    third: SigningKey,
}

impl TestKeys {
    fn new() -> Self {
        let key = |digit: &str| {
            format!("signkey-test-{}", digit.repeat(32))
                .parse()
                .unwrap()
        };
        Self {
            old: key("a"),
            new: key("b"),
            third: key("c"),
        }
    }

    fn pair(&self, pair: Pair) -> Keys {
        let (current, fallback) = match pair {
            Pair::Old => (&self.old, None),
            Pair::New => (&self.new, None),
            Pair::OldNew => (&self.old, Some(&self.new)),
            Pair::NewOld => (&self.new, Some(&self.old)),
            Pair::ThirdNew => (&self.third, Some(&self.new)),
        };
        Keys::new(current.clone(), fallback.cloned())
    }
}

/// The keys of an instance: the current key, then the fallback key.
#[derive(Clone, Copy, Debug)]
enum Pair {
    Old,
    New,
    OldNew,
    NewOld,
    ThirdNew,
}

/// The order in which an operator takes the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The guide's order, in any of the ways that it allows.
    Documented,
    /// _Rotate_ in the dashboard before the instances have the new key.
    RotatedFirst,
    /// The new key is deployed without the old one as fallback.
    WithoutFallback,
    /// The old key is removed as soon as _Rotate_ was clicked.
    RetiredAtOnce,
    /// After the rotation, one deployment is rolled back to the old key alone.
    RolledBack,
    /// The next rotation begins before _Rotate_ was clicked.
    RotatedTwice,
}

#[derive(Debug)]
enum Event {
    Holds(usize, Pair),
    Rotates,
    /// A call is signed now and arrives this many seconds later.
    Signs {
        call: u64,
        attempt: usize,
        delay: u64,
    },
    Arrives {
        call: u64,
        attempt: usize,
        at: usize,
        signature: inngest_auth::Signature,
    },
    CallsApi(usize),
}

/// What was lost in one run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lost {
    /// Attempts that an instance rejected.
    attempts: u64,
    /// Calls whose five attempts were all rejected.
    calls: u64,
    /// Calls that the API rejected with both keys.
    api: u64,
    /// The time from the first loss to the last, in seconds.
    seconds: u64,
}

/// Returns when each instance changes its keys, and when Inngest switches.
fn plan(order: Order, random: &mut Random) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let deployed = START + ROLLOUT;
    // Waiting longer than needed is allowed.
    let rotated = match order {
        Order::RotatedFirst => random.within(START, ROLLOUT / 2),
        _ => random.within(deployed, 300),
    };
    events.push((rotated, Event::Rotates));
    // A call signed with the old key just before may arrive as late as the tolerance allows.
    let retired = rotated
        + if order == Order::RetiredAtOnce {
            0
        } else {
            TOLERANCE + 1 + random.below(300)
        };
    for at in 0..INSTANCES {
        let mut holds = |time, pair| events.push((time, Event::Holds(at, pair)));
        let follows = random.within(START, ROLLOUT);
        match order {
            Order::WithoutFallback => holds(follows, Pair::New),
            Order::RotatedTwice => {
                holds(follows, Pair::NewOld);
                holds(random.within(rotated - 100, 99), Pair::ThirdNew);
            }
            Order::RotatedFirst => holds(random.within(rotated, ROLLOUT), Pair::NewOld),
            // The new key may be deployed as the fallback first, and the keys may swap roles at any
            // time.
            _ => {
                let first = if random.below(2) == 0 {
                    Pair::NewOld
                } else {
                    Pair::OldNew
                };
                holds(follows, first);
                let changes = random.within(follows, retired - follows);
                holds(
                    changes,
                    if random.below(2) == 0 {
                        Pair::NewOld
                    } else {
                        Pair::OldNew
                    },
                );
            }
        }
        match order {
            Order::WithoutFallback | Order::RotatedTwice => {}
            Order::RolledBack => {
                let back = random.within(rotated + 1, ROLLOUT);
                holds(back, Pair::Old);
                holds(back + ROLLOUT, Pair::NewOld);
            }
            _ => holds(random.within(retired, ROLLOUT), Pair::New),
        }
    }
    events
}

/// Returns the header with the key's API token.
fn token(key: &SigningKey) -> HeaderValue {
    KeyRing::from(key.clone()).bearers().remove(0)
}

/// Returns Inngest's calls and the calls to its API, not sorted by time.
fn calls(random: &mut Random) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for call in 0..CALLS {
        let time = random.within(START, END - START);
        // Most calls arrive at once. Some wait for a connection as long as the tolerance allows.
        let delay = if random.below(4) == 0 {
            random.below(TOLERANCE + 1)
        } else {
            random.below(2)
        };
        events.push((
            time,
            Event::Signs {
                call,
                attempt: 0,
                delay,
            },
        ));
    }
    for _ in 0..API_CALLS {
        let time = random.within(START, END - START);
        let at = usize::try_from(random.below(INSTANCES as u64)).unwrap();
        events.push((time, Event::CallsApi(at)));
    }
    events
}

/// Returns the API as a function of a request. It accepts one token.
fn respond(
    accepted: Arc<Mutex<HeaderValue>>,
) -> impl Fn(Request<()>) -> Ready<Result<Response<()>, Infallible>> + Clone {
    move |request| {
        let is_accepted = request.headers()[header::AUTHORIZATION] == *accepted.lock().unwrap();
        let mut response = Response::new(());
        if !is_accepted {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        ready(Ok(response))
    }
}

fn run(order: Order, seed: u64, keys: &TestKeys) -> Lost {
    let runtime = Builder::new_current_thread().build().unwrap();
    let random = &mut Random(seed);
    let mut events = plan(order, random);
    events.extend(calls(random));
    // The next event is the last in the list. Events of one second are in random order.
    events.sort_by_key(|(time, _)| std::cmp::Reverse(*time));

    let rings: Vec<_> = (0..INSTANCES)
        .map(|_| KeyRing::from(keys.pair(Pair::Old)))
        .collect();
    let mut signer = &keys.old;
    // The API accepts the token of the key that the server signs with.
    let accepted = Arc::new(Mutex::new(token(signer)));
    let api = service_fn(respond(Arc::clone(&accepted)));
    let client = |ring: &KeyRing| {
        let auth = InngestApiAuth::new(ring.clone(), API).unwrap();
        auth.layer(api.clone())
    };
    let clients: Vec<_> = rings.iter().map(client).collect();
    let mut lost = Lost::default();
    let mut losses = Vec::new();
    while let Some((now, event)) = events.pop() {
        let mut later = |time: u64, event| {
            let at = events.partition_point(|(other, _)| *other > time);
            events.insert(at, (time, event));
        };
        match event {
            Event::Holds(at, pair) => rings[at].replace(keys.pair(pair)),
            Event::Rotates => {
                signer = &keys.new;
                *accepted.lock().unwrap() = token(signer);
            }
            Event::Signs {
                call,
                attempt,
                delay,
            } => {
                let at = usize::try_from(random.below(INSTANCES as u64)).unwrap();
                let signature = signer.sign(&call.to_be_bytes(), now);
                later(
                    now + delay,
                    Event::Arrives {
                        call,
                        attempt,
                        at,
                        signature,
                    },
                );
            }
            Event::Arrives {
                call,
                attempt,
                at,
                signature,
            } => {
                let (held, body) = (rings[at].snapshot(), call.to_be_bytes());
                if verify(&body, &signature, &held, now, Tolerance::default()).is_ok() {
                    continue;
                }
                lost.attempts += 1;
                losses.push(now);
                match BACK_OFF.get(attempt) {
                    Some(wait) => {
                        later(
                            now + wait,
                            Event::Signs {
                                call,
                                attempt: attempt + 1,
                                delay: 0,
                            },
                        );
                    }
                    None => lost.calls += 1,
                }
            }
            Event::CallsApi(at) => {
                let request = Request::get(format!("{API}/v1/events")).body(()).unwrap();
                let response = runtime.block_on(clients[at].clone().oneshot(request));
                if response.unwrap().status() != StatusCode::OK {
                    lost.api += 1;
                    losses.push(now);
                }
            }
        }
    }
    lost.seconds = losses
        .iter()
        .max()
        .map_or(0, |last| last - losses.iter().min().unwrap());
    lost
}

fn seeds() -> u64 {
    std::env::var("FLEET_SEEDS").map_or(30, |seeds| seeds.parse().unwrap())
}

#[test]
fn the_documented_orders_lose_no_call() {
    let keys = TestKeys::new();
    for seed in 0..seeds() {
        assert_eq!(
            run(Order::Documented, seed, &keys),
            Lost::default(),
            "seed {seed}"
        );
    }
    println!("{} seeds, {INSTANCES} instances: nothing lost", seeds());
}

/// A row of the guide's table of mistakes.
struct Row {
    order: Order,
    mistake: &'static str,
    /// In percent of all calls.
    calls: f64,
    /// Attempts that were rejected, in percent of all calls.
    attempts: f64,
    /// In percent of all API calls.
    api: f64,
    /// The most seconds between the first loss and the last.
    seconds: u64,
    until: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        order: Order::RotatedFirst,
        mistake: "_Rotate_ before the apps have the new key",
        calls: 0.8,
        attempts: 16.0,
        api: 7.4,
        seconds: ROLLOUT,
        until: "until the last instance has the new key",
    },
    Row {
        order: Order::WithoutFallback,
        mistake: "New key deployed without the old one as fallback",
        calls: 2.5,
        attempts: 35.0,
        api: 11.0,
        seconds: ROLLOUT + 300 + TOLERANCE,
        until: "from the first instance with the new key until _Rotate_, and calls in flight then",
    },
    Row {
        order: Order::RetiredAtOnce,
        mistake: "Fallback key removed right after _Rotate_",
        calls: 0.0,
        attempts: 0.16,
        api: 0.0,
        seconds: TOLERANCE,
        until: "calls in flight at _Rotate_",
    },
    Row {
        order: Order::RolledBack,
        mistake: "Rollback to the old key alone, after _Rotate_",
        calls: 1.6,
        attempts: 28.0,
        api: 13.0,
        seconds: 2 * ROLLOUT,
        until: "until the last instance has both keys again",
    },
    Row {
        order: Order::RotatedTwice,
        mistake: "Next rotation begun before _Rotate_",
        calls: 0.0,
        attempts: 3.0,
        api: 1.3,
        seconds: 100 + TOLERANCE,
        until: "from the first instance with the third key until _Rotate_ (here 100 s), and calls \
                in flight then",
    },
];

/// Prints the figures, and compares them with the guide's table of mistakes.
#[test]
fn each_wrong_order_loses_as_much_and_for_as_long_as_the_guide_says() {
    let guide = include_str!("../src/guide/rotation.md");
    let keys = TestKeys::new();
    let (sent, sent_to_api) = (seeds() * CALLS, seeds() * API_CALLS);
    for row in ROWS {
        let mut all = Lost::default();
        for seed in 0..seeds() {
            let lost = run(row.order, seed, &keys);
            all.attempts += lost.attempts;
            all.calls += lost.calls;
            all.api += lost.api;
            all.seconds = all.seconds.max(lost.seconds);
        }
        println!(
            "{:?}: {} attempts rejected, {} of {sent} calls and {} of {sent_to_api} API calls \
             lost, for up to {} s",
            row.order, all.attempts, all.calls, all.api, all.seconds
        );
        for (counted, of, percent) in [
            (all.calls, sent, row.calls),
            (all.attempts, sent, row.attempts),
            (all.api, sent_to_api, row.api),
        ] {
            // Few runs scatter more. Nothing is lost where the guide says so.
            let counted = f64::from(u32::try_from(counted).unwrap());
            let expected = f64::from(u32::try_from(of).unwrap()) * percent / 100.0;
            let scatter = 0.1 * expected + 4.0 * expected.sqrt();
            assert!(
                (counted - expected).abs() <= scatter,
                "{:?}: {counted} instead of {expected} +- {scatter}",
                row.order
            );
        }
        let bound = row.seconds;
        assert!(
            (bound / 3..=bound).contains(&all.seconds),
            "{:?}: {} s",
            row.order,
            all.seconds
        );
        let calls = if row.calls > 0.0 {
            format!("{} %", row.calls)
        } else {
            format!("0, but {} % needed another attempt", row.attempts)
        };
        let api = match row.api {
            0.0 => "0".to_owned(),
            api => format!("{api} %"),
        };
        let line = format!(
            "| {} | {calls} | {api} | {bound} s: {} |",
            row.mistake, row.until
        );
        assert!(guide.contains(&line), "the guide lacks {line}");
    }
}
