//! Limits how many log lines unauthenticated clients can cause.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How many lines may be logged in a period.
#[derive(Clone, Copy)]
pub(super) struct Rate {
    lines: u32,
    period: Duration,
}

/// The rate for lines that say what happened.
pub(super) const FEW: Rate = Rate {
    lines: 10,
    period: Duration::from_secs(60),
};
/// The rate for lines that say what to do.
pub(super) const ONCE: Rate = Rate {
    lines: 1,
    period: Duration::from_secs(60 * 60),
};

/// Limits each kind of log line separately, so that a flood of one kind does not hide another.
#[derive(Default)]
pub(super) struct Limiter(Mutex<BTreeMap<&'static str, Period>>);

struct Period {
    end: Instant,
    lines: u32,
    suppressed: u64,
}

/// The number of lines suppressed before this one, if any. It is a field of the line.
pub(super) type Suppressed = Option<u64>;

impl Limiter {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Permits a line of this kind, or returns `None` if the limit is reached.
    pub(super) fn permit(&self, kind: &'static str, rate: Rate) -> Option<Suppressed> {
        let now = Instant::now();
        let mut kinds = self.0.lock().expect("nothing panics while it is locked");
        let period = kinds.entry(kind).or_insert(Period {
            end: now,
            lines: 0,
            suppressed: 0,
        });
        if now >= period.end {
            period.end = now + rate.period;
            period.lines = rate.lines;
        }
        if period.lines == 0 {
            period.suppressed += 1;
            return None;
        }
        period.lines -= 1;
        let suppressed = std::mem::take(&mut period.suppressed);
        Some((suppressed > 0).then_some(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_a_minute_and_the_next_says_how_many_were_suppressed() {
        let limiter = Limiter::new();
        for suppressed in [None, Some(91), Some(91)] {
            assert_eq!(limiter.permit("stale", FEW), Some(suppressed));
            for _ in 1..10 {
                assert_eq!(limiter.permit("stale", FEW), Some(None));
            }
            for _ in 0..90 {
                assert_eq!(limiter.permit("stale", FEW), None);
            }
            tokio::time::advance(FEW.period.saturating_sub(Duration::from_secs(1))).await;
            assert_eq!(limiter.permit("stale", FEW), None);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(
            limiter.permit("wrong_signature", FEW),
            Some(None),
            "another kind"
        );
    }
}
