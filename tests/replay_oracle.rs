//! The replay store in memory, compared with an oracle that forgets nothing and knows the true
//! time.
//!
//! Random calls and replays, by every method, arrive at layers with different tolerances that share
//! a store. Meanwhile processes end and start, and their clock is wrong and is set:
//!
//! ```text
//! REPLAY_STEPS=10000000 cargo test --release --test replay_oracle -- --nocapture
//! ```
//!
//! `REPLAY_SEED` repeats a run that failed.
#![cfg(feature = "layer")]

#[path = "common/hands.rs"]
mod hands;
#[path = "common/random.rs"]
mod random;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hands::Hands;
use inngest_auth::Clock;
use inngest_auth::replay::{MemoryReplayStore, Recorded, ReplayStore, ReplayStoreError, Sighting};
use random::{Random, setting};

const NOW: u64 = 1_700_000_000;
const CAPACITY: usize = 300;

/// The settings of a layer.
#[derive(Clone, Copy)]
struct Layer {
    tolerance: u64,
    skew: u64,
}

const LAYERS: [Layer; 4] = [
    Layer {
        tolerance: 1,
        skew: 0,
    },
    Layer {
        tolerance: 10,
        skew: 5,
    },
    Layer {
        tolerance: 60,
        skew: 60,
    },
    Layer {
        tolerance: 300,
        skew: 60,
    },
];

/// A call, and every result of sending it.
#[derive(Clone, Copy)]
struct Call {
    mac: [u8; 32],
    signed_at: u64,
    ran: bool,
}

/// One run of the service.
struct Process {
    store: MemoryReplayStore,
    accepts_before_start: bool,
    clock_error: u64,
    /// By the true time, and by its own clock.
    started: u64,
    started_by_clock: u64,
    /// The smallest and largest error of its clock whenever it was read.
    off: (i64, i64),
    /// The latest start time that its clock has implied.
    told_start: u64,
    /// Whether a call has arrived that reveals when the process started.
    taught: bool,
    /// Every entry, with the time of its signature.
    fresh: HashMap<[u8; 32], u64>,
    longest: u64,
}

struct World {
    random: Random,
    /// The true time, which is also Inngest's.
    time: u64,
    clock: Hands,
    process: Process,
    calls: Vec<Call>,
    signed: u64,
    /// The number of steps in which only replays arrive.
    quiet: u64,
    counts: Counts,
}

#[derive(Default, Debug)]
struct Counts {
    processes: u64,
    fresh: u64,
    seen: u64,
    before_start: u64,
    full: u64,
    not_fresh_any_more: u64,
    runs: u64,
    runs_again_because_the_promise_was_off: u64,
}

impl Process {
    fn start(random: &mut Random, clock: &Hands, time: u64) -> Self {
        let clock_error = random.one_of(&[0, 2, 5, 5, 5]);
        let accepts_before_start = random.once_in(20);
        let shown = clock.now().unwrap();
        let off = shown.cast_signed() - time.cast_signed();
        Self {
            store: MemoryReplayStore::new(CAPACITY, clock)
                .clock_error(Duration::from_secs(clock_error))
                .insecure_accept_signed_before_start(accepts_before_start),
            accepts_before_start,
            clock_error,
            started: time,
            started_by_clock: shown,
            off: (off, off),
            told_start: shown,
            taught: false,
            fresh: HashMap::new(),
            longest: 0,
        }
    }

    /// Returns the number of entries that have not expired.
    fn live(&self, now: u64) -> usize {
        let longest = self.longest;
        self.fresh
            .values()
            .filter(|&&signed_at| signed_at + longest >= now)
            .count()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clock = Hands::at(NOW);
        let process = Process::start(&mut random, &clock, NOW);
        Self {
            random,
            time: NOW,
            clock,
            process,
            calls: Vec::new(),
            signed: 0,
            quiet: 0,
            counts: Counts::default(),
        }
    }

    fn step(&mut self) {
        self.quiet = self.quiet.saturating_sub(1);
        match self.random.below(2000) {
            0..4 => self.restart(),
            4 => self.pass(400),
            5 => self.set_clock(),
            6..100 => self.pass(5),
            100..400 => self.pass(2),
            400..1000 if self.quiet > 0 => self.pass(20),
            400..1000 => self.sign(),
            _ => self.replay(),
        }
    }

    fn pass(&mut self, below: u64) {
        let seconds = self.random.below(below);
        self.time += seconds;
        self.clock.pass(seconds);
    }

    /// Sets the clock right, or wrong by seconds, minutes or a day.
    fn set_clock(&mut self) {
        let far = self.random.one_of(&[0, 0, 3, 5, 6, 60, 360, 400, 86_400]);
        let off = self.random.below(far + 1).cast_signed();
        let off = if self.random.once_in(2) { off } else { -off };
        self.clock.jump(self.time.checked_add_signed(off));
    }

    fn restart(&mut self) {
        self.pass(20);
        if self.random.once_in(2) {
            self.set_clock();
        }
        self.process = Process::start(&mut self.random, &self.clock, self.time);
        self.counts.processes += 1;
        self.quiet = self.random.one_of(&[0, 10, 100]);
        // After some starts, every layer uses the store at once.
        if self.quiet == 0 {
            for layer in LAYERS {
                let call = self.new_call(self.time);
                self.deliver(call, layer);
            }
        }
    }

    fn new_call(&mut self, signed_at: u64) -> usize {
        self.signed += 1;
        let mut mac = [0; 32];
        for chunk in mac.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.next().to_le_bytes());
        }
        mac[..8].copy_from_slice(&self.signed.to_be_bytes());
        let call = Call {
            mac,
            signed_at,
            ran: false,
        };
        // Some of the oldest calls stay captured.
        if self.calls.len() < 3000 {
            self.calls.push(call);
            return self.calls.len() - 1;
        }
        let at = usize::try_from(self.random.below(3000)).unwrap();
        self.calls[at] = call;
        at
    }

    /// Signs a genuine call, which is delivered at once or late.
    fn sign(&mut self) {
        let late = self.random.one_of(&[0, 0, 0, 0, 1, 2, 9, 61, 299]);
        let call = self.new_call(self.time - late);
        let layer = self.random.one_of(&LAYERS);
        self.deliver(call, layer);
    }

    fn replay(&mut self) {
        if let Some(last) = self.calls.len().checked_sub(1) {
            // Mostly one of the last calls, while there are few.
            let back = self.random.one_of(&[10, 100, 3000]).min(last as u64 + 1);
            let call = last - usize::try_from(self.random.below(back)).unwrap();
            let layer = self.random.one_of(&LAYERS);
            self.deliver(call, layer);
        }
    }

    /// Delivers a call as the layer does: checks the clock, then the store, then the clock again.
    fn deliver(&mut self, at: usize, layer: Layer) {
        let now = self.clock.now().unwrap();
        let call = self.calls[at];
        let off = now.cast_signed() - self.time.cast_signed();
        let process = &mut self.process;
        process.off = (process.off.0.min(off), process.off.1.max(off));
        if call.signed_at.abs_diff(now) > layer.tolerance {
            self.counts.not_fresh_any_more += 1;
            // The store may still receive it from a layer with another clock, so pass it on
            // sometimes.
            if !self.random.once_in(10) {
                return;
            }
        }
        let lives = layer.tolerance + layer.skew;
        let known = process.fresh.contains_key(&call.mac);
        let heard_of_all = process.longest >= 360;
        process.longest = process.longest.max(lives);
        let until = call.signed_at + lives;
        let recorded = at_once(process.store.record(Sighting::new(
            call.mac,
            call.signed_at,
            until,
            now,
        )));
        let uptime = self.time - process.started;
        let error = process.clock_error;
        let what = format!(
            "signed {} s ago, lives {lives}, clock {off} off, up for {uptime}, at the start {} off, \
             clock error {error}: {recorded:?}",
            self.time - call.signed_at,
            process.started_by_clock.cast_signed() - process.started.cast_signed(),
        );
        process.told_start = process.told_start.max(now - uptime);
        process.taught |= self.time - call.signed_at <= error;
        match recorded {
            Ok(Recorded::Fresh) => {
                self.counts.fresh += 1;
                // Must hold whatever the clock does.
                assert!(!known, "twice in one process: {what}");
                assert!(until >= now, "after its window: {what}");
                if !process.accepts_before_start {
                    let from_the_future = uptime <= lives && call.signed_at > now + error;
                    assert!(!from_the_future, "from the future: {what}");
                }
                process.fresh.insert(call.mac, call.signed_at);
            }
            Ok(Recorded::Seen) => self.counts.seen += 1,
            Ok(Recorded::BeforeStart) => {
                assert!(!process.accepts_before_start && !known, "{what}");
                // However wrong the clock was at the start, it must not reject calls for ever.
                assert!(
                    uptime <= lives || call.signed_at <= process.started + error,
                    "{what}"
                );
                self.counts.before_start += 1;
            }
            Err(ReplayStoreError::Full) => {
                self.counts.full += 1;
                assert!(!known && process.live(now) >= CAPACITY, "{what}");
            }
            recorded => panic!("{recorded:?}"),
        }
        // By a clock that has been right since the start, nothing new is rejected.
        let steady = process.off.0 == process.off.1 && process.off.0.unsigned_abs() <= error;
        let is_new = !known && until >= now && call.signed_at > process.started + 2 * error;
        if steady && is_new && heard_of_all {
            let accepted = matches!(recorded, Ok(Recorded::Fresh) | Err(ReplayStoreError::Full));
            assert!(accepted, "a new call is rejected: {what}");
        }
        // `GET` and `HEAD` without a body run nothing, but are recorded all the same.
        let method = self
            .random
            .one_of(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);
        let runs = !matches!(method, "GET" | "HEAD") || self.random.once_in(2);
        let is_fresh = call.signed_at.abs_diff(now) <= layer.tolerance;
        if recorded != Ok(Recorded::Fresh) || !is_fresh || !runs {
            return;
        }
        let start_was_told = process.told_start + error >= process.started;
        let is_right_now = now + layer.skew >= self.time;
        let by_clock = if uptime <= lives {
            start_was_told
        } else {
            is_right_now
        };
        let promised = !process.accepts_before_start && (process.taught || by_clock);
        if call.ran {
            assert!(!promised, "an earlier process ran it: {what}");
            self.counts.runs_again_because_the_promise_was_off += 1;
        }
        self.counts.runs += 1;
        self.calls[at].ran = true;
    }
}

/// Returns the output of a future that never waits, as those of the store in memory.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("it waits for nothing"),
    }
}

#[test]
fn nothing_is_accepted_twice_whatever_clocks_layers_and_restarts_do() {
    let steps = setting("REPLAY_STEPS", 200_000);
    let mut world = World::new(setting("REPLAY_SEED", 1));
    for _ in 0..steps {
        world.step();
    }
    println!("{steps} steps: {:#?}", world.counts);
    let counts = &world.counts;
    // Every path was taken.
    for count in [
        counts.processes,
        counts.fresh,
        counts.seen,
        counts.before_start,
        counts.full,
        counts.runs,
    ] {
        assert!(count > steps / 10_000, "{counts:?}");
    }
}
