//! Memory that all bodies not yet verified share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes that unverified bodies hold together, up to a limit.
pub(in crate::layer) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(in crate::layer) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    /// Lends the share of one body, empty at first.
    pub(in crate::layer) fn share(&self) -> Share<'_> {
        Share { budget: self, held: 0 }
    }
}

/// One body's share of the budget, released on drop.
pub(in crate::layer) struct Share<'budget> {
    budget: &'budget Budget,
    held: usize,
}

impl Share<'_> {
    /// Returns `false`, and reserves nothing more, if the budget has no room.
    #[must_use]
    pub(in crate::layer) fn grow_to(&mut self, held: usize) -> bool {
        let more = held.saturating_sub(self.held);
        let fits = |used: usize| used.checked_add(more).filter(|&used| used <= self.budget.limit);
        // Relaxed: nothing else is ordered by this counter.
        let grown = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok();
        if grown {
            self.held += more;
        }
        grown
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.held > 0 {
            self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_have_one_limit_and_are_released_on_drop() {
        let budget = Budget::new(100);
        let used = || budget.used.load(Ordering::Relaxed);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.grow_to(40));
        assert!(!second.grow_to(61));
        assert!(second.grow_to(60));
        assert_eq!(used(), 100);
        // What is reserved already is not reserved again.
        assert!(second.grow_to(60));
        drop(second);
        assert_eq!(used(), 40);
        drop(first);
        assert_eq!(used(), 0);
    }
}
