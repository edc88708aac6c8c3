//! A simulated rotation over a fleet: a hundred instances, each of which changes its keys at its
//! own time, Inngest, which switches keys, and calls in both directions. Time is simulated, and
//! every run is determined by its seed. `FLEET_SEEDS` sets the number of runs (default: 30).

use inngest_auth::{KeyRing, Keys, SigningKey, Tolerance, verify};

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

fn run(order: Order, seed: u64, keys: &TestKeys) -> Lost {
    let random = &mut Random(seed);
    let mut events = plan(order, random);
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
    // The next event is the last in the list. Events of one second are in random order.
    events.sort_by_key(|(time, _)| std::cmp::Reverse(*time));

    let rings: Vec<_> = (0..INSTANCES)
        .map(|_| KeyRing::from(keys.pair(Pair::Old)))
        .collect();
    let mut signer = &keys.old;
    let mut lost = Lost::default();
    let mut losses = Vec::new();
    while let Some((now, event)) = events.pop() {
        let mut later = |time: u64, event| {
            let at = events.partition_point(|(other, _)| *other > time);
            events.insert(at, (time, event));
        };
        match event {
            Event::Holds(at, pair) => rings[at].replace(keys.pair(pair)),
            Event::Rotates => signer = &keys.new,
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
                // The API accepts the token of the key that the server signs with.
                let held = rings[at].snapshot();
                let mut tokens = std::iter::once(held.current()).chain(held.fallback());
                if !tokens.any(|key| key.bearer().as_str() == signer.bearer().as_str()) {
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

/// Prints the figures of the guide's table of mistakes, and checks its bounds.
#[test]
fn each_wrong_order_loses_calls_for_as_long_as_the_guide_says() {
    let keys = TestKeys::new();
    let sent = (seeds() * CALLS, seeds() * API_CALLS);
    for (order, bound) in [
        // Until the last instance has the new key.
        (Order::RotatedFirst, ROLLOUT),
        // From the first instance with the new keys until _Rotate_, and for calls in flight then.
        (Order::WithoutFallback, ROLLOUT + 300 + TOLERANCE),
        // As long as a call may be in flight.
        (Order::RetiredAtOnce, TOLERANCE),
        // Until the last instance has both keys again.
        (Order::RolledBack, 2 * ROLLOUT),
        // From the first instance with the third key until _Rotate_, and for calls in flight then.
        (Order::RotatedTwice, 100 + TOLERANCE),
    ] {
        let mut all = Lost::default();
        for seed in 0..seeds() {
            let lost = run(order, seed, &keys);
            all.attempts += lost.attempts;
            all.calls += lost.calls;
            all.api += lost.api;
            all.seconds = all.seconds.max(lost.seconds);
        }
        println!(
            "{order:?}: {} attempts rejected, {} of {} calls and {} of {} API calls lost, \
             for up to {} s",
            all.attempts, all.calls, sent.0, all.api, sent.1, all.seconds
        );
        assert!(
            all.attempts > 0 && all.seconds > 0,
            "{order:?} loses nothing: {all:?}"
        );
        assert!(all.seconds <= bound, "{order:?}: {} s", all.seconds);
    }
}
