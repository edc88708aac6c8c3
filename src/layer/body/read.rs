//! The bounded read: frames until the end of a body or a deadline.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_core::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::LengthLimitError;
use tokio::runtime::Handle;
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::budget::{OverBudget, Share};
use crate::rejection::RejectionKind;

/// How many frames are read per poll. A client that always has bytes ready must not keep other
/// tasks, or the deadline, from being polled.
const FRAMES_A_TURN: u32 = 64;
/// How long each poll may find the task's cooperative budget used up, and no frame.
const FLOOD: Duration = Duration::from_secs(1);

/// Reads a body to its end into `share`, within `time`. `take` sees every frame first.
pub(in crate::layer) fn read<'a>(
    body: &'a mut Body,
    time: Duration,
    share: &'a mut Share<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), RejectionKind> + 'a,
) -> impl Future<Output = Result<(), RejectionKind>> + 'a {
    let mut frames = Frames::new(body, time);
    // Not an `async fn`, which would store its arguments twice.
    poll_fn(move |cx| {
        share.resume()?;
        loop {
            let Poll::Ready(frame) = frames.poll_next(cx) else {
                share.wait(cx.waker());
                return Poll::Pending;
            };
            let Some(frame) = frame.transpose()? else {
                return Poll::Ready(Ok(()));
            };
            take(&frame)?;
            if frames.body.is_end_stream() {
                share.complete(frame);
                return Poll::Ready(Ok(()));
            }
            share.copy(&frame)?;
        }
    })
}

/// Drains up to `limit` bytes for at most `time`, so that a client that is still sending can read
/// the response.
///
/// Returns `true` if the body ended, so that its connection can be reused.
pub(in crate::layer) async fn drain(body: &mut Body, limit: usize, time: Duration) -> bool {
    let mut left = limit;
    let mut frames = Frames::new(body, time);
    while let Some(frame) = poll_fn(|cx| frames.poll_next(cx)).await {
        match frame {
            Ok(frame) if frame.len() <= left => left -= frame.len(),
            _ => return false,
        }
    }
    true
}

impl From<OverBudget> for RejectionKind {
    fn from(_: OverBudget) -> Self {
        Self::OverBudget
    }
}

/// The data frames of a body, until a deadline. Trailers are dropped, because the signature does
/// not cover them.
struct Frames<'body> {
    body: &'body mut Body,
    deadline: Deadline,
    this_turn: u32,
    /// Since when each poll has found the task's budget used up, and no frame.
    used_up: Option<Instant>,
}

/// The time by which the body must end.
enum Deadline {
    /// This long after the first poll that has to wait. A timer has a cost, and most bodies are
    /// ready at once.
    After(Duration),
    At(Pin<Box<Sleep>>),
}

impl<'body> Frames<'body> {
    /// Reads `body`, which may take `time` from the first frame that is not ready.
    fn new(body: &'body mut Body, time: Duration) -> Self {
        Self {
            body,
            deadline: Deadline::After(time),
            this_turn: 0,
            used_up: None,
        }
    }

    /// Polls for the next frame, or `None` at the end of the body.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RejectionKind>>> {
        while self.this_turn < FRAMES_A_TURN {
            match Pin::new(&mut *self.body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(kind_of(&error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    self.this_turn += 1;
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Pending => return self.end_turn(cx),
            }
        }
        // Lets other tasks run before the next frames.
        cx.waker().wake_by_ref();
        self.end_turn(cx)
    }

    /// Compares the deadline with the clock.
    ///
    /// A timer alone is not enough: it stays pending while the task's cooperative budget is used
    /// up. A connection causes that if it always has bytes ready that never complete a frame, such
    /// as an endless chunk-size line. Each poll then takes the server long (a second, measured), so
    /// such a client is rejected after a few.
    ///
    /// Other futures in the same task can use up the budget too, so a single poll proves nothing.
    /// After such a poll the timer wakes the task at once, and the next poll has budget unless
    /// the flood goes on.
    fn end_turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RejectionKind>>> {
        let now = Instant::now();
        if let Deadline::After(time) = self.deadline {
            // `sleep` would panic.
            if Handle::try_current().is_err() {
                return Poll::Ready(Some(Err(RejectionKind::NoRuntime)));
            }
            self.deadline = Deadline::At(Box::pin(tokio::time::sleep(time)));
        }
        let Deadline::At(deadline) = &mut self.deadline else {
            unreachable!("the deadline was set above");
        };
        self.used_up = if self.this_turn > 0 || coop::has_budget_remaining() {
            None
        } else {
            self.used_up.or(Some(now))
        };
        self.this_turn = 0;
        let floods = self.used_up.is_some_and(|since| now - since >= FLOOD);
        if floods || now >= deadline.deadline() || deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(RejectionKind::BodyTooSlow)));
        }
        Poll::Pending
    }
}

/// Distinguishes an outer layer's limit from a body that failed.
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Frame;

    use super::*;

    /// Yields frames of these lengths, then ends.
    struct Given(std::vec::IntoIter<usize>);

    impl http_body::Body for Given {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(
                self.0
                    .next()
                    .map(|len| Ok(Frame::data(vec![b'x'; len].into()))),
            )
        }
    }

    /// Uses up the cooperative budget of the task, as other futures in it may.
    fn use_up_the_budget(cx: &mut Context<'_>) {
        while std::pin::pin!(coop::consume_budget()).poll(cx).is_ready() {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_not_a_flood_if_other_futures_use_up_the_budget() {
        struct Silent;
        impl http_body::Body for Silent {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let mut body = Body::new(Silent);
        let mut frames = Frames::new(&mut body, Duration::from_secs(30));
        for _ in 0..5 {
            for others in [true, false] {
                let mut polled = false;
                // Without a frame, the second poll happens only if the first one has woken it.
                poll_fn(|cx| {
                    if others && !polled {
                        use_up_the_budget(cx);
                    }
                    assert!(frames.poll_next(cx).is_pending());
                    if std::mem::replace(&mut polled, true) || !others {
                        return Poll::Ready(());
                    }
                    Poll::Pending
                })
                .await;
            }
            tokio::time::advance(5 * FLOOD).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_bodies_in_one_task_are_all_read_after_a_silence() {
        use tokio::sync::mpsc::{Receiver, channel};
        struct Channel(Receiver<Bytes>);
        impl http_body::Body for Channel {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                let data = self.0.poll_recv(cx);
                data.map(|data| data.map(|data| Ok(Frame::data(data))))
            }
        }
        let (senders, mut bodies): (Vec<_>, Vec<_>) = (0..400)
            .map(|_| channel(1))
            .map(|(sender, receiver)| (sender, Body::new(Channel(receiver))))
            .unzip();
        let bodies = bodies.iter_mut();
        let mut all: Vec<_> = bodies
            .map(|body| Frames::new(body, Duration::from_secs(30)))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        for frames in &mut all {
            assert!(frames.poll_next(&mut cx).is_pending());
        }
        tokio::time::advance(2 * FLOOD).await;
        for sender in senders {
            sender.send("{}".into()).await.expect("it is read");
        }
        let mut read = 0;
        poll_fn(|cx| {
            all.retain_mut(|frames| {
                while let Poll::Ready(frame) = frames.poll_next(cx) {
                    let Some(frame) = frame else {
                        return false;
                    };
                    assert!(frame.is_ok(), "{frame:?} after {read}");
                    read += 1;
                }
                true
            });
            if all.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        assert_eq!(read, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn the_read_yields_after_64_frames() {
        let mut body = Body::new(Given(vec![1; 200].into_iter()));
        let mut frames = Frames::new(&mut body, Duration::from_secs(1));
        let mut cx = Context::from_waker(Waker::noop());
        for turn in [64, 64, 64] {
            for frame in 0..turn {
                assert!(frames.poll_next(&mut cx).is_ready(), "{frame}");
            }
            assert!(frames.poll_next(&mut cx).is_pending());
        }
        for _ in 0..8 {
            assert!(matches!(
                frames.poll_next(&mut cx),
                Poll::Ready(Some(Ok(_)))
            ));
        }
        assert!(matches!(frames.poll_next(&mut cx), Poll::Ready(None)));
    }
}
