//! The fastest of many rounds, taken in turns, so that a busy machine changes little.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// One of the ways that are compared: `make` prepares an operation, untimed, and `work` does it.
pub(crate) struct Way<'a, T> {
    make: Box<dyn FnMut() -> T + 'a>,
    work: Box<dyn FnMut(T) + 'a>,
}

pub(crate) fn way<'a, T>(make: impl FnMut() -> T + 'a, work: impl FnMut(T) + 'a) -> Way<'a, T> {
    Way {
        make: Box::new(make),
        work: Box::new(work),
    }
}

/// Returns the nanoseconds that an operation takes in the fastest of all rounds of each way.
///
/// Other load can only slow a round down.
pub(crate) fn fastest<T, const N: usize>(
    time: Duration,
    batch: usize,
    mut ways: [Way<'_, T>; N],
) -> [f64; N] {
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

/// Runs `work` at this depth of the stack.
///
/// Now and then a whole process measured a fifth more, as if by where its stack and heap lay: each
/// round has them elsewhere.
fn at_depth(depth: usize, work: &mut dyn FnMut()) {
    let frame = black_box([0_u8; 64]);
    match depth.checked_sub(1) {
        Some(depth) => at_depth(depth, work),
        None => work(),
    }
    black_box(frame);
}

/// The rows that a bench prints: name, figure, limit, verdict.
pub(crate) struct Report {
    judged: bool,
    over: bool,
}

impl Report {
    /// Begins the table. Limits are judged where SHA-256 runs in hardware: in software the HMAC
    /// takes several times as long, and any ratio to it looks good.
    pub(crate) fn new() -> Self {
        let judged = hashes_in_hardware();
        let verdict = if judged {
            "yes"
        } else {
            "no: nothing is judged"
        };
        println!("SHA-256 in hardware: {verdict}");
        println!("\n{:<30} {:>10} {:>8}", "row", "figure", "limit");
        Self {
            judged,
            over: false,
        }
    }

    /// Prints a row that is judged.
    pub(crate) fn row(&mut self, name: &str, figure: f64, limit: f64) {
        let ok = figure <= limit || !self.judged;
        self.over |= !ok;
        let digits = if limit >= 100.0 { 0 } else { 2 };
        let verdict = if ok { "ok" } else { "over" };
        println!("{name:<30} {figure:>10.digits$} {limit:>8.digits$} {verdict}");
    }

    /// Prints a row that is judged by what is reached, and says if the aim is not.
    pub(crate) fn aimed(&mut self, name: &str, figure: f64, limit: f64, aim: f64) {
        let ok = figure <= limit || !self.judged;
        self.over |= !ok;
        let verdict = match (ok, figure <= aim) {
            (true, true) => "ok".to_owned(),
            (true, false) => format!("within the limit, above the aim of {aim:.2}"),
            (false, _) => "over".to_owned(),
        };
        println!("{name:<30} {figure:>10.2} {limit:>8.2} {verdict}");
    }

    /// Prints a row that must be at least so much.
    pub(crate) fn least(&mut self, name: &str, figure: f64, limit: f64) {
        let ok = figure >= limit || !self.judged;
        self.over |= !ok;
        let verdict = if ok { "ok" } else { "under" };
        println!("{name:<30} {figure:>10.2} {limit:>8.2} {verdict}");
    }

    /// Prints a row that is only shown.
    #[expect(clippy::unused_self, reason = "the table must have begun")]
    pub(crate) fn show(&self, name: &str, figure: f64) {
        println!("{name:<30} {figure:>10.2}");
    }

    pub(crate) fn exit_code(&self) -> std::process::ExitCode {
        u8::from(self.over).into()
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
