//! The memory that all unverified bodies share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use bytes::Bytes;

use super::buffer::Buffer;

/// Counts the memory of unverified bodies, up to a limit. When the limit is reached, the oldest
/// body that is waiting for its client is dropped to make room.
///
/// So clients that stall cannot lock out genuine calls. To be dropped, a genuine body would have to
/// be older than all of theirs while others reserve the whole budget anew. A body reserves at least
/// the smallest piece, so many tiny bodies reserve more than they send. Two alternatives are worse:
/// with deadlines that shrink as the budget fills, or with a reserve for small bodies, the budget
/// stays full of stalled bodies until the shortest deadline passes.
pub(in crate::layer) struct Budget {
    limit: usize,
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    /// The bytes that all bodies hold, waiting or not.
    held: usize,
    /// The bodies that are waiting for their clients, the oldest first.
    waiting: BTreeMap<Number, Waiting>,
    next: Number,
}

/// A number for each body, in order of age.
type Number = u64;

struct Waiting {
    buffer: Buffer,
    held: usize,
    waker: Waker,
}

impl Budget {
    pub(in crate::layer) fn new(limit: usize) -> Self {
        Self {
            limit,
            bodies: Mutex::default(),
        }
    }

    /// Returns the share of one body, initially empty.
    pub(super) fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            buffer: Buffer::default(),
            held: 0,
            number: None,
            waits: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies
            .lock()
            .expect("nothing panics while it is locked")
    }
}

/// One body and its share of the budget, released on drop.
pub(super) struct Share<'budget> {
    budget: &'budget Budget,
    /// Empty while the budget holds it, so that the budget can drop it if others need the room.
    buffer: Buffer,
    held: usize,
    number: Option<Number>,
    waits: bool,
}

/// The budget has no room for a body, or took the room that it had.
#[derive(Debug, PartialEq)]
pub(super) struct OverBudget;

impl Share<'_> {
    /// Copies a frame into the body.
    pub(super) fn copy(&mut self, frame: &[u8]) -> Result<(), OverBudget> {
        let mut rest = self.buffer.copy(frame);
        while !rest.is_empty() {
            let piece = self.buffer.piece_for(rest.len());
            self.reserve(piece)?;
            self.buffer.grow(piece);
            rest = self.buffer.copy(rest);
        }
        Ok(())
    }

    fn reserve(&mut self, more: usize) -> Result<(), OverBudget> {
        let budget = self.budget;
        let fits = |held: usize| {
            held.checked_add(more)
                .is_some_and(|sum| sum <= budget.limit)
        };
        // It would not fit even alone, so do not drop other bodies for it.
        if !fits(self.held) {
            return Err(OverBudget);
        }
        let mut dropped = Vec::new();
        let mut bodies = budget.lock();
        while !fits(bodies.held) {
            // The other bodies are being read at this moment.
            let Some((_, oldest)) = bodies.waiting.pop_first() else {
                return Err(OverBudget);
            };
            bodies.held -= oldest.held;
            dropped.push(oldest);
        }
        bodies.held += more;
        if self.number.is_none() {
            self.number = Some(bodies.next);
            bodies.next += 1;
        }
        self.held += more;
        drop(bodies);
        for body in dropped {
            body.waker.wake();
        }
        Ok(())
    }

    /// Hands the body to the budget until its client sends more.
    pub(super) fn wait(&mut self, waker: &Waker) {
        let Some(number) = self.number else { return };
        let waiting = Waiting {
            buffer: std::mem::take(&mut self.buffer),
            held: self.held,
            waker: waker.clone(),
        };
        self.budget.lock().waiting.insert(number, waiting);
        self.waits = true;
    }

    /// Takes the body back, if it was not dropped.
    pub(super) fn resume(&mut self) -> Result<(), OverBudget> {
        let (true, Some(number)) = (self.waits, &self.number) else {
            return Ok(());
        };
        self.waits = false;
        let waiting = self.budget.lock().waiting.remove(number);
        let Some(waiting) = waiting else {
            self.held = 0;
            return Err(OverBudget);
        };
        self.buffer = waiting.buffer;
        Ok(())
    }

    /// Returns the body and releases the share.
    pub(super) fn finish(&mut self, last: Bytes) -> Buffer {
        self.release();
        self.buffer.keep(last);
        std::mem::take(&mut self.buffer)
    }

    fn release(&mut self) {
        // A body of one frame holds nothing. This saves it the lock.
        if self.held > 0 {
            self.budget.lock().held -= std::mem::take(&mut self.held);
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        // If the budget has already dropped the body, its bytes must not be released twice.
        let _ = self.resume();
        drop(std::mem::take(&mut self.buffer));
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    const KIB: usize = 1024;

    fn held(budget: &Budget) -> usize {
        budget.lock().held
    }

    #[test]
    fn all_shares_have_one_limit_and_are_released_on_drop() {
        let budget = Budget::new(5 * KIB);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert_eq!(first.copy(&[1; KIB]), Ok(()));
        assert_eq!(
            second.copy(&[2; 5 * KIB]),
            Err(OverBudget),
            "the first is being read"
        );
        assert_eq!(second.copy(&[2; 4 * KIB]), Ok(()));
        assert_eq!(held(&budget), 5 * KIB);
        drop(first);
        assert_eq!(held(&budget), 4 * KIB);
        let buffer = second.finish(Bytes::from_static(b"the end"));
        assert_eq!(held(&budget), 0);
        assert_eq!(buffer.len(), 4 * KIB + 7);
        drop(second);
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn the_oldest_waiting_body_makes_room() {
        let budget = Budget::new(6 * KIB);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut bodies: Vec<_> = (0..3).map(|_| budget.share()).collect();
        for body in &mut bodies {
            assert_eq!(body.copy(&[0; 2 * KIB]), Ok(()));
        }
        // The oldest is being read. The second starts waiting after the third, but its age counts.
        bodies[2].wait(&waker);
        bodies[1].wait(&waker);
        let mut new = budget.share();
        assert_eq!(new.copy(&[0; 2 * KIB]), Ok(()));
        assert_eq!(
            (held(&budget), woken.0.load(Ordering::SeqCst)),
            (6 * KIB, 1)
        );
        assert_eq!(bodies[1].resume(), Err(OverBudget));
        // The other body still has its bytes and continues.
        assert_eq!(bodies[2].resume(), Ok(()));
        assert_eq!(bodies[2].finish(Bytes::new()).len(), 2 * KIB);
        drop(bodies);
        assert_eq!(held(&budget), 2 * KIB);
        // A body that could never fit must not drop others.
        new.wait(&waker);
        assert_eq!(budget.share().copy(&[0; 7 * KIB]), Err(OverBudget));
        assert_eq!((new.resume(), woken.0.load(Ordering::SeqCst)), (Ok(()), 1));
    }

    #[test]
    fn a_body_that_is_dropped_while_it_waits_leaves_nothing_held() {
        let budget = Budget::new(4 * KIB);
        for evict in [false, true] {
            let mut body = budget.share();
            assert_eq!(body.copy(&[0; 3 * KIB]), Ok(()));
            body.wait(Waker::noop());
            if evict {
                assert_eq!(budget.share().copy(&[0; 2 * KIB]), Ok(()));
            }
            drop(body);
            let bodies = budget.lock();
            assert_eq!(
                (bodies.held, bodies.waiting.len()),
                (0, 0),
                "evicted: {evict}"
            );
        }
    }
}
