//! The memory that all unverified bodies share.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
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
///
/// Headers that are so many that they count cost their client a hundredth of that on the wire. So
/// they only take free room, and their requests are dropped before any others.
pub(in crate::layer) struct Budget {
    limit: usize,
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    /// The bytes that all bodies hold, waiting or not.
    held: usize,
    /// The bodies that are waiting, and the bytes that these hold.
    waiting: BTreeMap<Number, Waiting>,
    held_waiting: usize,
    next: u64,
}

/// A number for each body, in the order in which they are dropped: the oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    /// `false` for a request whose headers count, so that it comes before all others.
    body_only: bool,
    age: u64,
}

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

    pub(in crate::layer) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns `true` if a body of `len` bytes fits while there is no other.
    pub(in crate::layer) fn fits_alone(&self, len: usize) -> bool {
        Buffer::most(len) <= self.limit
    }

    /// Returns the share of one body, initially empty.
    pub(in crate::layer) fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            buffer: Buffer::default(),
            held: 0,
            state: State::New,
        }
    }

    fn fits(&self, held: usize, more: usize) -> bool {
        held.checked_add(more).is_some_and(|sum| sum <= self.limit)
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies
            .lock()
            .expect("nothing panics while it is locked")
    }
}

/// One body and its share of the budget, released on drop.
pub(in crate::layer) struct Share<'budget> {
    budget: &'budget Budget,
    /// Empty while the budget holds it, so that the budget can drop it if others need the room.
    buffer: Buffer,
    held: usize,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    /// It holds nothing yet.
    New,
    /// It is being read.
    Numbered(Number),
    /// The budget has it.
    Waiting(Number),
}

/// The budget has no room for a body, or took the room that it had.
#[derive(Debug, PartialEq)]
pub(in crate::layer) struct OverBudget;

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

    /// Adds `bytes` of headers to the share, if there is room without dropping another body.
    pub(in crate::layer) fn reserve_headers(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let mut bodies = self.budget.lock();
        if !self.budget.fits(bodies.held, bytes) {
            return Err(OverBudget);
        }
        self.hold(&mut bodies, bytes, false);
        Ok(())
    }

    /// Adds `more` bytes of body to the share.
    fn reserve(&mut self, more: usize) -> Result<(), OverBudget> {
        let budget = self.budget;
        let fits = |held| budget.fits(held, more);
        let mut dropped = Vec::new();
        let mut bodies = budget.lock();
        // It would not fit even without the bodies that are waiting. Do not drop them for nothing.
        if !fits(bodies.held - bodies.held_waiting) {
            return Err(OverBudget);
        }
        while !fits(bodies.held) {
            let (_, oldest) = bodies.waiting.pop_first().expect("without these it fits");
            bodies.held -= oldest.held;
            bodies.held_waiting -= oldest.held;
            dropped.push(oldest);
        }
        self.hold(&mut bodies, more, true);
        drop(bodies);
        for body in dropped {
            body.waker.wake();
        }
        Ok(())
    }

    fn hold(&mut self, bodies: &mut Bodies, more: usize, body_only: bool) {
        bodies.held += more;
        self.held += more;
        if let State::New = self.state {
            let age = bodies.next;
            bodies.next += 1;
            self.state = State::Numbered(Number { body_only, age });
        }
    }

    /// Hands the body to the budget until its client sends more.
    pub(super) fn wait(&mut self, waker: &Waker) {
        let State::Numbered(number) = self.state else {
            return;
        };
        let waiting = Waiting {
            buffer: std::mem::take(&mut self.buffer),
            held: self.held,
            waker: waker.clone(),
        };
        let mut bodies = self.budget.lock();
        bodies.held_waiting += self.held;
        bodies.waiting.insert(number, waiting);
        self.state = State::Waiting(number);
    }

    /// Takes the body back, if it was not dropped.
    pub(super) fn resume(&mut self) -> Result<(), OverBudget> {
        let State::Waiting(number) = self.state else {
            return Ok(());
        };
        self.state = State::Numbered(number);
        let mut bodies = self.budget.lock();
        let Some(waiting) = bodies.waiting.remove(&number) else {
            self.held = 0;
            return Err(OverBudget);
        };
        bodies.held_waiting -= waiting.held;
        self.buffer = waiting.buffer;
        Ok(())
    }

    /// Adds the frame that completes the body, without copying it.
    pub(super) fn complete(&mut self, last: Bytes) {
        self.buffer.keep(last);
    }

    /// Waits for `turn`. Until then the complete body belongs to the budget, as if it were waiting
    /// for its client.
    pub(in crate::layer) async fn wait_for<T>(
        &mut self,
        turn: impl Future<Output = T>,
    ) -> Result<T, OverBudget> {
        // A frame that is not copied keeps its connection's whole read buffer in memory.
        let last = self.buffer.take_last();
        self.copy(&last)?;
        drop(last);
        let mut turn = pin!(turn);
        poll_fn(|cx| {
            self.resume()?;
            let turn = turn.as_mut().poll(cx).map(Ok);
            if turn.is_pending() {
                self.wait(cx.waker());
            }
            turn
        })
        .await
    }

    /// Returns the pieces of the body.
    pub(in crate::layer) fn pieces(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.buffer.iter()
    }

    pub(in crate::layer) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the body and releases the share. What happens next is either that the body is
    /// verified, and counts elsewhere, or that it is freed.
    pub(in crate::layer) fn finish(mut self) -> Buffer {
        self.release();
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

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
        second.complete(Bytes::from_static(b"the end"));
        let buffer = second.finish();
        assert_eq!((held(&budget), buffer.len()), (0, 4 * KIB + 7));
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
        assert_eq!(bodies.remove(2).finish().len(), 2 * KIB);
        drop(bodies);
        assert_eq!(held(&budget), 2 * KIB);
    }

    #[test]
    fn a_body_that_does_not_fit_drops_no_other() {
        let budget = Budget::new(6 * KIB);
        let woken = Arc::new(Woken::default());
        let (mut read, mut waiting) = (budget.share(), budget.share());
        assert_eq!(waiting.copy(&[0; KIB]), Ok(()));
        waiting.wait(&Waker::from(Arc::clone(&woken)));
        assert_eq!(budget.share().copy(&[0; 7 * KIB]), Err(OverBudget));
        assert_eq!(read.copy(&[0; 4 * KIB]), Ok(()));
        assert_eq!(budget.share().copy(&[0; 3 * KIB]), Err(OverBudget));
        assert_eq!(
            (waiting.resume(), woken.0.load(Ordering::SeqCst)),
            (Ok(()), 0)
        );
    }

    #[test]
    fn headers_drop_no_body_and_are_dropped_before_older_bodies() {
        let budget = Budget::new(6 * KIB);
        let (mut body, mut first, mut second) = (budget.share(), budget.share(), budget.share());
        assert_eq!(body.copy(&[0; KIB]), Ok(()));
        body.wait(Waker::noop());
        for headers in [&mut first, &mut second] {
            assert_eq!(headers.reserve_headers(2 * KIB), Ok(()));
            // Its body does not make it worth more.
            assert_eq!(headers.copy(&[0; 64]), Ok(()));
            headers.wait(Waker::noop());
        }
        assert_eq!(
            budget.share().reserve_headers(KIB),
            Err(OverBudget),
            "the room is not free"
        );
        let mut new = budget.share();
        assert_eq!(new.copy(&[0; 2 * KIB]), Ok(()));
        assert_eq!(first.resume(), Err(OverBudget));
        assert_eq!((second.resume(), body.resume()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_complete_body_that_waits_for_its_turn_belongs_to_the_budget() {
        let budget = Budget::new(4 * KIB);
        let mut cx = Context::from_waker(Waker::noop());
        for evict in [false, true] {
            let mut share = budget.share();
            // The budget does not count it until it has to wait.
            share.complete(Bytes::from_static(&[b'x'; 3 * KIB]));
            assert_eq!(held(&budget), 0);
            let turn = Arc::new(AtomicBool::new(false));
            let ready = poll_fn(|_| {
                if turn.load(Ordering::SeqCst) {
                    Poll::Ready("turn")
                } else {
                    Poll::Pending
                }
            });
            let mut waiting = Box::pin(share.wait_for(ready));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            assert_eq!(held(&budget), 3 * KIB);
            if evict {
                assert_eq!(budget.share().copy(&[0; 2 * KIB]), Ok(()));
            }
            turn.store(true, Ordering::SeqCst);
            let expected = if evict { Err(OverBudget) } else { Ok("turn") };
            assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(expected));
            drop(waiting);
            let len = if evict { 0 } else { 3 * KIB };
            assert_eq!(share.finish().len(), len, "evicted: {evict}");
            assert_eq!(held(&budget), 0, "evicted: {evict}");
        }
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
                (bodies.held, bodies.held_waiting, bodies.waiting.len()),
                (0, 0, 0),
                "evicted: {evict}"
            );
        }
    }
}
