//! Memory of verified bodies that wait.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use crate::rejection::RejectionKind;

/// Counts the bytes of verified bodies that wait for a replay store or for the inner service, up to
/// a limit. They have no share of the strangers' budget, so that neither can lock out the other.
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

    /// Waits for `ready` while a body of `len` bytes is in memory. What is ready at once is not
    /// counted.
    pub(in crate::layer) fn wait<F: Future + Unpin>(
        &self,
        len: usize,
        mut ready: F,
    ) -> impl Future<Output = Result<F::Output, RejectionKind>> {
        let mut place = None;
        poll_fn(move |cx| {
            if let Poll::Ready(output) = Pin::new(&mut ready).poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if place.is_none() {
                place = Some(self.place(len).ok_or(RejectionKind::BacklogFull)?);
            }
            Poll::Pending
        })
    }

    fn place(&self, len: usize) -> Option<Place<'_>> {
        let fits = |waiting: usize| waiting.checked_add(len).filter(|&sum| sum <= self.limit);
        // Relaxed: nothing else is ordered by this counter.
        let counted = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        counted.is_ok().then(|| Place { backlog: self, len })
    }
}

/// One body's place in the backlog, until it is dropped.
struct Place<'backlog> {
    backlog: &'backlog Backlog,
    len: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.backlog.waiting.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn only_bodies_that_wait_are_counted_and_up_to_the_limit() {
        let backlog = Backlog::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        let waiting = || backlog.waiting.load(Ordering::Relaxed);
        {
            let mut first = pin!(backlog.wait(60, pending::<()>()));
            let mut second = pin!(backlog.wait(40, pending::<()>()));
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert!(second.as_mut().poll(&mut cx).is_pending());
            // Once, however often it is polled.
            assert!(second.as_mut().poll(&mut cx).is_pending());
            assert_eq!(waiting(), 100);
            let full = pin!(backlog.wait(1, pending::<()>())).poll(&mut cx);
            assert_eq!(full, Poll::Ready(Err(RejectionKind::BacklogFull)));
            let at_once = pin!(backlog.wait(1000, ready(7))).poll(&mut cx);
            assert_eq!(at_once, Poll::Ready(Ok(7)));
        }
        assert_eq!(waiting(), 0);
    }
}
