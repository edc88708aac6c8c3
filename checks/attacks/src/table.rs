//! The output: a line for each figure, with its limit.

use std::time::Instant;

use crate::genuine::{CALL, Genuine, Protocol};
use crate::process::Server;

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Without a limit, for information.
    None,
}

pub(crate) struct Table {
    attack: &'static str,
    /// How many figures of this try are over their limits.
    pub(crate) over: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        println!(
            "{:<13} {:<74} {:>10} {:>12}",
            "attack", "what", "measured", "limit"
        );
        Self {
            attack: "",
            over: 0,
        }
    }

    /// Begins a try of an attack.
    pub(crate) fn attack(&mut self, name: &'static str) {
        self.attack = name;
        self.over = 0;
    }

    pub(crate) fn row(&mut self, what: &str, measured: f64, unit: &str, limit: &Limit) {
        let (text, verdict) = match *limit {
            Limit::AtMost(limit) => (format!("≤ {limit:.1}"), measured <= limit),
            Limit::AtLeast(limit) => (format!("≥ {limit:.1}"), measured >= limit),
            Limit::None => (String::from("-"), true),
        };
        let verdict = match (limit, verdict) {
            (Limit::None, _) => "",
            (_, true) => "ok",
            (_, false) => {
                self.over += 1;
                "OVER"
            }
        };
        println!(
            "{:<13} {what:<74} {:>10} {text:>12} {verdict}",
            self.attack,
            format!("{measured:.1} {unit}"),
        );
    }

    /// Prints a note below the row that it belongs to.
    pub(crate) fn note(&self, text: &str) {
        println!("{:<13}   {text}", self.attack);
    }

    /// Does `work` beside genuine calls. Then prints what the server has used so far, and how many
    /// of the calls it answered, and how soon.
    pub(crate) fn beside<T>(
        &mut self,
        name: &str,
        server: &Server,
        calls: Beside,
        work: impl FnOnce() -> T,
    ) -> T {
        let start = Instant::now();
        let genuine = Genuine::start(server.address(), calls.protocol, calls.uri);
        let done = work();
        let report = genuine.stop();
        self.row(&format!("{name}: peak"), server.peak(), "MiB", &calls.peak);
        self.note(&format!(
            "server CPU {:.1} s; {:.1} s beside genuine calls",
            server.cpu().as_secs_f64(),
            start.elapsed().as_secs_f64()
        ));
        for (size, kind, p99) in [
            ("1 KB", &report.small, &calls.p99),
            ("4 MB", &report.large, &Limit::None),
        ] {
            let what = format!("{name}: genuine {size} with 200");
            self.row(&what, kind.succeeded(), "%", &calls.answered);
            self.note(&kind.summary());
            if !matches!(p99, Limit::None) {
                let what = format!("{name}: genuine {size}, p99");
                self.row(&what, kind.quantile(0.99), "ms", p99);
            }
        }
        done
    }
}

/// Genuine calls beside an attack, and what the server must keep to.
#[derive(Clone, Copy)]
pub(crate) struct Beside {
    pub(crate) protocol: Protocol,
    pub(crate) uri: &'static str,
    /// In MiB.
    pub(crate) peak: Limit,
    /// In percent, of each size.
    pub(crate) answered: Limit,
    /// In milliseconds, of the small ones. Printed only in a note if it has no limit.
    pub(crate) p99: Limit,
}

impl Default for Beside {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            uri: CALL,
            peak: Limit::AtMost(256.0 + BESIDE),
            answered: Limit::AtLeast(99.0),
            p99: Limit::AtMost(100.0),
        }
    }
}

/// What a server may use in addition to the budget, in MiB.
pub(crate) const BESIDE: f64 = 64.0;
