//! The bounded read: bytes, time, and memory whatever the frames.

pub(in crate::layer) mod buffer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum_core::BoxError;
use bytes::Bytes;
use http_body_util::LengthLimitError;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use self::buffer::Pieces;
use crate::layer::rejection::RejectionKind;

/// A sender whose bytes are always there must not keep the deadline from being looked at.
const FRAMES_A_TURN: u32 = 64;

/// What a body may take.
#[derive(Clone, Copy)]
pub(in crate::layer) struct Limits {
    /// In bytes.
    pub(in crate::layer) len: usize,
    /// From the first poll to the end.
    pub(in crate::layer) time: Duration,
}

pin_project! {
    /// The data frames of a body, until a deadline. Trailers are dropped: nobody signed them.
    pub(in crate::layer) struct Frames<B> {
        #[pin]
        body: B,
        time: Duration,
        // Made only when the body keeps us waiting: most are there at once, and a timer costs.
        deadline: Option<Pin<Box<Sleep>>>,
        this_turn: u32,
    }
}

impl<B> Frames<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(in crate::layer) fn new(body: B, time: Duration) -> Self {
        Self {
            body,
            time,
            deadline: None,
            this_turn: 0,
        }
    }

    /// Another deadline, from now.
    pub(in crate::layer) fn within(self: Pin<&mut Self>, time: Duration) {
        let this = self.project();
        (*this.time, *this.deadline) = (time, None);
    }

    pub(in crate::layer) fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, RejectionKind>>> {
        let mut this = self.project();
        while *this.this_turn < FRAMES_A_TURN {
            match this.body.as_mut().poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(kind_of(&*error.into())))),
                Poll::Ready(Some(Ok(frame))) => {
                    *this.this_turn += 1;
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Pending => {
                    *this.this_turn = 0;
                    return poll_deadline(*this.time, this.deadline, cx);
                }
            }
        }
        // Others get their turn, and the deadline is looked at.
        *this.this_turn = 0;
        cx.waker().wake_by_ref();
        poll_deadline(*this.time, this.deadline, cx)
    }
}

fn poll_deadline<T>(
    time: Duration,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<T, RejectionKind>>> {
    let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
    deadline
        .as_mut()
        .poll(cx)
        .map(|()| Some(Err(RejectionKind::BodyTooSlow)))
}

/// A body that is kept as it arrives, within its limit and the budget of all.
pub(in crate::layer) struct Kept {
    pieces: Pieces,
    limit: usize,
    /// Given back once the body is judged.
    held: Reservation,
}

impl Kept {
    pub(in crate::layer) fn new(limit: usize, budget: &Arc<Budget>) -> Self {
        Self {
            pieces: Pieces::default(),
            limit,
            held: Reservation::new(budget),
        }
    }

    /// Bytes that the body may still have.
    pub(in crate::layer) fn left(&self) -> usize {
        self.limit - self.pieces.len()
    }

    /// Reserves what the frame will take.
    pub(in crate::layer) fn room_for(&mut self, frame: &[u8]) -> Result<(), RejectionKind> {
        if frame.len() > self.left() {
            Err(RejectionKind::BodyTooLarge)
        } else if self.held.grow_to(self.pieces.held_with(frame.len())) {
            Ok(())
        } else {
            Err(RejectionKind::OverBudget)
        }
    }

    pub(in crate::layer) fn push(&mut self, frame: Bytes) {
        self.pieces.push(frame);
    }

    pub(in crate::layer) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.pieces.iter()
    }

    /// The body, for which the budget is needed no more.
    pub(in crate::layer) fn take(&mut self) -> Pieces {
        self.held.give_back();
        std::mem::take(&mut self.pieces)
    }
}

/// A limit that an outer layer set is a limit; all else is a broken body.
fn kind_of(error: &(dyn std::error::Error + 'static)) -> RejectionKind {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return RejectionKind::BodyTooLarge;
        }
        cause = error.source();
    }
    RejectionKind::BodyBroken
}

/// Bytes that all bodies not yet verified may hold together.
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
}

/// One body's share of the budget, given back on drop.
pub(in crate::layer) struct Reservation {
    budget: Arc<Budget>,
    held: usize,
}

impl Reservation {
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            held: 0,
        }
    }

    fn grow_to(&mut self, held: usize) -> bool {
        let more = held.saturating_sub(self.held);
        let fits = |used: usize| used.checked_add(more).filter(|&used| used <= self.budget.limit);
        // Nothing else is ordered by this counter.
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

    fn give_back(&mut self) {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            self.budget.used.fetch_sub(held, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Frame;

    use super::*;

    /// Frames of these many bytes, then nothing.
    struct Given(std::vec::IntoIter<usize>);

    impl http_body::Body for Given {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.next().map(|len| Ok(Frame::data(vec![b'x'; len].into()))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn others_have_their_turn_after_64_frames() {
        let mut frames = std::pin::pin!(Frames::new(Given(vec![1; 200].into_iter()), Duration::from_secs(1)));
        let mut cx = Context::from_waker(Waker::noop());
        for turn in [64, 64, 64] {
            for frame in 0..turn {
                assert!(frames.as_mut().poll_next(&mut cx).is_ready(), "{frame}");
            }
            assert!(frames.as_mut().poll_next(&mut cx).is_pending());
        }
        for _ in 0..8 {
            assert!(matches!(frames.as_mut().poll_next(&mut cx), Poll::Ready(Some(Ok(_)))));
        }
        assert!(matches!(frames.as_mut().poll_next(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn a_body_has_its_limit_and_all_have_one_budget() {
        let budget = Arc::new(Budget::new(100));
        let mut first = Kept::new(60, &budget);
        assert_eq!(
            (first.left(), first.room_for(&[0; 61])),
            (60, Err(RejectionKind::BodyTooLarge))
        );
        assert_eq!(first.room_for(&[0; 40]), Ok(()));
        first.push(vec![0; 40].into());
        assert_eq!(
            (first.left(), first.room_for(&[0; 21])),
            (20, Err(RejectionKind::BodyTooLarge))
        );
        let mut second = Kept::new(usize::MAX, &budget);
        assert_eq!(second.room_for(&[0; 61]), Err(RejectionKind::OverBudget));
        assert_eq!(second.room_for(&[0; 60]), Ok(()));
        let used = || budget.used.load(Ordering::Relaxed);
        assert_eq!(used(), 100);
        // What is reserved already is not reserved again.
        assert_eq!(second.room_for(&[0; 60]), Ok(()));
        drop(second);
        assert_eq!(used(), 40);
        drop(first);
        assert_eq!(used(), 0);
    }
}
