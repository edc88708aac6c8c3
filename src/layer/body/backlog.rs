//! The memory of verified bodies that wait to be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::rejection::RejectionKind;

/// Bodies of up to this many bytes are not counted. So small calls are never rejected for a full
/// backlog, at no cost, and a connection that holds such a body is not much larger than an idle
/// one.
const SMALL: usize = 64 * 1024;

/// Counts the bytes of verified bodies that their handlers have not read yet, up to a limit. They
/// are not part of the budget for unverified bodies, so that neither can lock out the other.
pub(in crate::layer) struct Backlog {
    limit: usize,
    waiting: AtomicUsize,
}

impl Backlog {
    pub(in crate::layer) fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: AtomicUsize::new(0),
        }
    }

    pub(in crate::layer) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns `true` if a body of `len` bytes fits while there is no other.
    pub(in crate::layer) fn fits_alone(&self, len: usize) -> bool {
        len <= SMALL.max(self.limit)
    }

    /// Counts a body of `len` bytes until its place is dropped.
    pub(in crate::layer) fn place(
        self: &Arc<Self>,
        len: usize,
    ) -> Result<Option<Place>, RejectionKind> {
        if len <= SMALL {
            return Ok(None);
        }
        let fits = |waiting: usize| waiting.checked_add(len).filter(|&sum| sum <= self.limit);
        // Relaxed, because this counter orders nothing else.
        match self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(_) => Ok(Some(Place {
                backlog: Arc::clone(self),
                len,
            })),
            Err(_) => Err(RejectionKind::BacklogFull),
        }
    }
}

/// One body's place in the backlog, until it is dropped.
pub(in crate::layer) struct Place {
    backlog: Arc<Backlog>,
    len: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backlog.waiting.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_are_counted_until_their_places_are_dropped() {
        let backlog = Arc::new(Backlog::new(300_000));
        let place = |len| backlog.place(len).map(|place| place.is_some());
        let waiting = || backlog.waiting.load(Ordering::Relaxed);
        let first = backlog.place(100_000).unwrap();
        let second = backlog.place(200_000).unwrap();
        assert_eq!(waiting(), 300_000);
        assert_eq!(place(SMALL + 1), Err(RejectionKind::BacklogFull));
        assert_eq!(place(usize::MAX), Err(RejectionKind::BacklogFull));
        assert_eq!(place(SMALL), Ok(false), "small ones always pass");
        assert_eq!(waiting(), 300_000);
        drop(first);
        assert_eq!(place(100_000), Ok(true));
        drop(second);
        assert_eq!(waiting(), 0);
    }
}
