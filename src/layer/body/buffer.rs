//! A body in memory, independent of the frames in which it arrived.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum_core::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::Full;

use super::backlog::Place;

/// The smallest piece, in bytes, that frames are copied into. It is small so that a client that
/// sends one byte for each of many bodies cannot use up the budget.
const SMALLEST: usize = 64;
/// Pieces of up to this many bytes grow with the body, so that memory stays under twice what
/// arrived. A connection or an HTTP/2 stream itself takes as much.
const SMALL: usize = 8 * 1024;
/// The size, in bytes, of all larger pieces. There is a single size, so that each piece fits where
/// another was freed. With sizes that doubled up to 64 KiB, a process held up to twice the budget.
const LARGE: usize = 16 * 1024;

/// A body that was read, in pieces.
///
/// Frames of unverified bodies are copied. A frame is a slice of its connection's read buffer and
/// keeps all of the buffer in memory, and the client decides how little of it is payload. With
/// padded chunk-size lines that was 16 KiB of 400 KiB. Only the frame that completes a body is kept
/// without copying, because the body is then verified or dropped at once.
///
/// Copying adds 2 % to the HMAC of 200 KB and 4 % to that of 4 MB, measured, whatever the size of
/// the pieces. A single growing buffer costs the same and saves an extractor its own copy (8 %),
/// but takes twice the memory of the body, and three times while it moves.
#[derive(Default)]
pub(in crate::layer) struct Buffer {
    /// Complete pieces, in order.
    full: Vec<Bytes>,
    /// The piece that frames are being copied into, after all of `full`.
    filling: Vec<u8>,
    /// The frame that completed the body, after `filling`.
    last: Bytes,
    len: usize,
}

impl Buffer {
    pub(in crate::layer) fn len(&self) -> usize {
        self.len
    }

    /// Returns the most memory that the pieces of a body of `len` bytes take: the last may be nearly
    /// empty.
    pub(super) const fn most(len: usize) -> usize {
        len.saturating_add(LARGE)
    }

    /// Copies as much of `bytes` as there is room for. Returns the rest.
    pub(super) fn copy<'frame>(&mut self, bytes: &'frame [u8]) -> &'frame [u8] {
        let room = self.filling.capacity() - self.filling.len();
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        self.filling.extend_from_slice(now);
        self.len += now.len();
        later
    }

    /// Returns how large a piece [`grow`](Self::grow) would allocate for `more` bytes.
    pub(super) fn piece_for(&self, more: usize) -> usize {
        match self.len.max(more) {
            wanted @ ..=SMALL => wanted.max(SMALLEST),
            _ => LARGE,
        }
    }

    /// Begins a new piece of `size` bytes. The one before it is full.
    pub(super) fn grow(&mut self, size: usize) {
        let piece = std::mem::replace(&mut self.filling, Vec::with_capacity(size));
        self.full.extend((!piece.is_empty()).then(|| piece.into()));
    }

    /// Takes back the frame that was added last without copying it.
    pub(super) fn take_last(&mut self) -> Bytes {
        self.len -= self.last.len();
        std::mem::take(&mut self.last)
    }

    /// Adds a frame without copying it. No frame can be copied after it.
    pub(in crate::layer) fn keep(&mut self, frame: Bytes) {
        self.len += frame.len();
        let before = std::mem::replace(&mut self.last, frame);
        if !before.is_empty() {
            self.grow(0);
            self.full.push(before);
        }
    }

    pub(in crate::layer) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let full = self.full.iter().map(|piece| &piece[..]);
        full.chain([&self.filling[..], &self.last[..]])
    }

    pub(in crate::layer) fn into_body(
        mut self,
        place: Option<Place>,
        trailers: Option<HeaderMap>,
    ) -> Body {
        if self.full.is_empty() && self.filling.is_empty() && trailers.is_none() && place.is_none()
        {
            return Body::new(Full::new(self.last));
        }
        self.grow(0);
        self.full
            .extend(Some(self.last).filter(|last| !last.is_empty()));
        Body::new(PiecesBody {
            left: self.len as u64,
            pieces: self.full.into_iter(),
            trailers,
            _place: place,
        })
    }
}

/// Pieces, and optional trailers, as a body of exactly known length.
struct PiecesBody {
    pieces: std::vec::IntoIter<Bytes>,
    trailers: Option<HeaderMap>,
    left: u64,
    /// Held until the body is dropped, which happens once it has been read.
    _place: Option<Place>,
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(piece) = self.pieces.next() {
            self.left -= piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;

    /// Copies a frame. Returns the sizes of the pieces that were allocated for it.
    fn copy(buffer: &mut Buffer, frame: &[u8]) -> Vec<usize> {
        let mut allocated = Vec::new();
        let mut rest = buffer.copy(frame);
        while !rest.is_empty() {
            allocated.push(buffer.piece_for(rest.len()));
            buffer.grow(buffer.piece_for(rest.len()));
            rest = buffer.copy(rest);
        }
        allocated
    }

    #[test]
    fn frames_are_copied_into_pieces_that_grow_with_the_body() {
        for (frames, pieces) in [
            (&[][..], &[][..]),
            (&[1], &[64]),
            (&[5, 0, 59], &[64]),
            (&[5, 60], &[64, 64]),
            (&[1024, 1024, 1], &[1024, 1024, 2048]),
            (&[5000, 1], &[5000, 5000]),
            (&[8192, 1], &[8192, 8192]),
            // A piece is filled before the next begins. Above 8 KiB all have the same size.
            (&[1, 8193], &[64, 8130]),
            (&[8193], &[16_384]),
            (&[1, 65_535], &[64, 16_384, 16_384, 16_384, 16_384]),
            (&[417_792], &[16_384; 26]),
        ] {
            let mut buffer = Buffer::default();
            let mut allocated = Vec::new();
            let mut sent: Vec<u8> = Vec::new();
            for (at, &len) in frames.iter().enumerate() {
                let frame = vec![u8::try_from(at).unwrap(); len];
                sent.extend(&frame);
                allocated.extend(copy(&mut buffer, &frame));
            }
            assert_eq!(
                buffer.iter().collect::<Vec<_>>().concat(),
                sent,
                "{frames:?}"
            );
            assert_eq!(buffer.len(), sent.len(), "{frames:?}");
            assert_eq!(allocated, pieces, "{frames:?}");
            assert!(allocated.iter().sum::<usize>() <= Buffer::most(sent.len()));
        }
    }

    #[test]
    fn a_frame_that_is_kept_is_not_copied() {
        let frames: Vec<Bytes> = vec![vec![1; 7].into(), vec![2; 9].into()];
        let mut buffer = Buffer::default();
        for frame in &frames {
            buffer.keep(frame.clone());
        }
        let pieces: Vec<_> = buffer.iter().filter(|piece| !piece.is_empty()).collect();
        assert_eq!(pieces, frames);
        assert!(
            pieces
                .iter()
                .zip(&frames)
                .all(|(piece, frame)| piece.as_ptr() == frame.as_ptr())
        );
    }

    #[test]
    fn a_body_of_pieces_knows_its_remaining_size() {
        let trailers =
            HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        for trailers in [None, Some(trailers)] {
            let mut buffer = Buffer::default();
            copy(&mut buffer, &[b'x'; 16_384]);
            buffer.keep(vec![b'x'; 7].into());
            let mut body = buffer.into_body(None, trailers.clone());
            let mut next = |left| {
                assert_eq!(body.size_hint().exact(), Some(left));
                let ended = body.is_end_stream();
                let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
                let Poll::Ready(frame) = frame else {
                    panic!("it waits")
                };
                let frame = frame.map(Result::unwrap);
                assert_eq!(ended, frame.is_none(), "{left} bytes left");
                frame
            };
            assert_eq!(next(16_391).unwrap().into_data().unwrap().len(), 16_384);
            assert_eq!(next(7).unwrap().into_data().unwrap().len(), 7);
            if let Some(trailers) = trailers {
                assert_eq!(next(0).unwrap().into_trailers().unwrap(), trailers);
            }
            assert!(next(0).is_none());
        }
    }
}
