//! The output: a line for each figure, with its limit.

use crate::genuine::Report;

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

    /// Prints whether genuine calls meet their limits. `slack` is the handler's own time, in
    /// milliseconds.
    pub(crate) fn genuine(&mut self, beside: &str, report: &Report, slack: f64) {
        let promised = Limit::AtMost(100.0 + slack);
        self.calls(beside, report, &promised);
    }

    /// Adds the rows for genuine calls. The 99th percentile is only a note if it has no limit.
    pub(crate) fn calls(&mut self, beside: &str, report: &Report, p99: &Limit) {
        for (size, calls, p99) in [
            ("1 KB", &report.small, p99),
            ("4 MB", &report.large, &Limit::None),
        ] {
            let what = format!("{beside}: genuine {size} with 200");
            self.row(&what, calls.succeeded(), "%", &Limit::AtLeast(99.0));
            self.note(&calls.summary());
            if !matches!(p99, Limit::None) {
                let what = format!("{beside}: genuine {size}, p99");
                self.row(&what, calls.quantile(0.99), "ms", p99);
            }
        }
    }
}
