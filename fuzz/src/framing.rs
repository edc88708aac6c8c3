//! A body on its way, cut into frames, delayed and aborted, and the expected outcome.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use inngest_auth::RejectionKind;
use tokio::time::Sleep;

/// In bytes: longer than what is kept as one piece, and longer than a frame that is kept without
/// copying.
pub const LIMIT: usize = 40_000;
/// The most that one body may need, however it is cut. The layer has no more, so all of it must be
/// released each time.
pub const BUDGET: usize = 2 * LIMIT + 64 * 1024;
/// Never met exactly, because waits are whole [`MOMENT`]s.
pub const DEADLINE: Duration = Duration::from_millis(30_050);
const MOMENT: Duration = Duration::from_millis(100);

/// All zeros: a genuine body in one frame.
#[derive(Debug, Default, Arbitrary)]
pub struct Plan {
    pub head: Head,
    length: Length,
    pub announced: bool,
    pub http2: bool,
    end: End,
    steps: Vec<Step>,
}

/// The headers.
#[derive(Debug, Default, Clone, Copy, Arbitrary)]
pub enum Head {
    #[default]
    Current,
    Fallback,
    Forged,
    Malformed,
    Unsigned,
}

/// Repeats the given bytes, or cuts them, to a length.
#[derive(Debug, Default, Clone, Copy, Arbitrary)]
enum Length {
    #[default]
    AsItIs,
    AroundLimit(i8),
    Any(u16),
}

#[derive(Debug, Default, Clone, Copy, Arbitrary)]
enum End {
    #[default]
    Done,
    Broken,
    Never,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    Bytes(u16),
    FewBytes(u8),
    Nothing,
    Pending,
    /// Waits for this many [`MOMENT`]s.
    Wait(u8),
    Trailers,
}

impl Plan {
    #[must_use]
    pub fn body(&self, bytes: &[u8]) -> Bytes {
        let length = match self.length {
            Length::AsItIs => return Bytes::copy_from_slice(bytes),
            Length::AroundLimit(more) => LIMIT.saturating_add_signed(more.into()),
            Length::Any(length) => length.into(),
        };
        let mut body = bytes.repeat(length / bytes.len().max(1) + 1);
        body.resize(length, b' ');
        body.into()
    }

    #[must_use]
    pub fn frames(self, body: Bytes) -> Framed {
        Framed {
            left: body,
            steps: self.steps.into_iter(),
            end: self.end,
            waiting: None,
            over: false,
        }
    }

    /// Returns why a fresh, well-formed request with this body is rejected before its signature is
    /// compared.
    #[must_use]
    pub fn rejection(&self, length: usize) -> Option<RejectionKind> {
        if self.announced && length > LIMIT {
            return Some(RejectionKind::BodyTooLarge);
        }
        let (mut arrived, mut waited) = (0, Duration::ZERO);
        for step in &self.steps {
            match *step {
                Step::Bytes(count) => arrived += usize::from(count).min(length - arrived),
                Step::FewBytes(count) => arrived += usize::from(count).min(length - arrived),
                Step::Wait(moments) => waited += MOMENT * moments.into(),
                Step::Nothing | Step::Pending | Step::Trailers => {}
            }
            if arrived > LIMIT {
                return Some(RejectionKind::BodyTooLarge);
            }
            if waited > DEADLINE {
                return Some(RejectionKind::BodyTooSlow);
            }
        }
        match self.end {
            _ if length > LIMIT => Some(RejectionKind::BodyTooLarge),
            End::Done => None,
            End::Broken => Some(RejectionKind::BodyBroken),
            End::Never => Some(RejectionKind::BodyTooSlow),
        }
    }
}

/// The steps of a plan, then the rest in one frame, then the end.
pub struct Framed {
    left: Bytes,
    steps: std::vec::IntoIter<Step>,
    end: End,
    waiting: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl Body for Framed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        assert!(!self.over, "polled behind its end");
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        let count = match self.steps.next() {
            Some(Step::Bytes(count)) => count.into(),
            Some(Step::FewBytes(count)) => count.into(),
            Some(Step::Nothing) => 0,
            Some(Step::Trailers) => {
                let trailers =
                    HeaderMap::from_iter([(http::header::EXPIRES, "0".parse().unwrap())]);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Wait(moments)) => {
                self.waiting = Some(Box::pin(tokio::time::sleep(MOMENT * moments.into())));
                return self.poll_frame(cx);
            }
            None if !self.left.is_empty() => self.left.len(),
            None => {
                self.over = !matches!(self.end, End::Never);
                return match self.end {
                    End::Done => Poll::Ready(None),
                    End::Broken => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
                    End::Never => Poll::Pending,
                };
            }
        };
        let count = count.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(count)))))
    }
}
