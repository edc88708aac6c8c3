//! A body in memory, whatever the frames that it came in.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum_core::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::Full;

/// Frames of this many bytes are kept as they came. Smaller ones in a row would pin the larger read buffers that
/// they are slices of (2 to 8 times the body, over a socket), so they are copied.
const KEEP: usize = 16 * 1024;
/// Smallest and largest piece, in bytes, that small frames are copied into.
const PIECE: std::ops::RangeInclusive<usize> = 1024..=64 * 1024;

/// A body that was read, in as few pieces as came without copying what is large.
#[derive(Default)]
pub(in crate::layer) struct Buffer {
    /// Complete pieces, in order, before `last`.
    full: Vec<Bytes>,
    /// A frame kept as it came, or the piece that small frames are being copied into.
    last: Last,
    len: usize,
    /// Bytes of memory in `full`.
    full_held: usize,
}

enum Last {
    Kept(Bytes),
    Filling(BytesMut),
}

impl Default for Last {
    fn default() -> Self {
        Self::Kept(Bytes::new())
    }
}

impl Buffer {
    pub(in crate::layer) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::layer) fn push(&mut self, frame: Bytes) {
        self.len += frame.len();
        match &mut self.last {
            _ if frame.is_empty() => {}
            _ if frame.len() >= KEEP => self.seal(Last::Kept(frame)),
            Last::Filling(_) => self.fill(&frame),
            // Two small ones in a row: there may be many.
            Last::Kept(kept) if !kept.is_empty() && kept.len() < KEEP => {
                let first = std::mem::take(kept);
                let piece = BytesMut::with_capacity(piece_for(first.len() + frame.len(), self.len));
                self.last = Last::Filling(piece);
                self.fill(&first);
                self.fill(&frame);
            }
            // A body of one frame is that frame.
            Last::Kept(_) => self.seal(Last::Kept(frame)),
        }
    }

    /// Copies, into the piece under way as far as it goes, the rest into a new one.
    fn fill(&mut self, bytes: &[u8]) {
        let room = self.room().min(bytes.len());
        let (now, later) = bytes.split_at(room);
        if let Last::Filling(piece) = &mut self.last {
            piece.put_slice(now);
        }
        if !later.is_empty() {
            let mut piece = BytesMut::with_capacity(piece_for(later.len(), self.len));
            piece.put_slice(later);
            self.seal(Last::Filling(piece));
        }
    }

    fn seal(&mut self, next: Last) {
        let bytes = match std::mem::replace(&mut self.last, next) {
            Last::Kept(bytes) => bytes,
            // A large frame came before it was half full: what little it holds must not keep all of it.
            Last::Filling(piece) if piece.len() < piece.capacity() / 2 => Bytes::copy_from_slice(&piece),
            Last::Filling(piece) => {
                self.full_held += piece.capacity() - piece.len();
                piece.freeze()
            }
        };
        self.full_held += bytes.len();
        self.full.extend(Some(bytes).filter(|bytes| !bytes.is_empty()));
    }

    fn room(&self) -> usize {
        match &self.last {
            Last::Kept(_) => 0,
            Last::Filling(piece) => piece.capacity() - piece.len(),
        }
    }

    /// Bytes of memory held once a frame of `more` bytes is in: an upper bound.
    pub(in crate::layer) fn held_with(&self, more: usize) -> usize {
        let len = self.len + more;
        let new = match &self.last {
            // How HTTP/2 often ends a body.
            _ if more == 0 => 0,
            _ if more >= KEEP => more,
            Last::Filling(_) => match more.saturating_sub(self.room()) {
                0 => 0,
                later => piece_for(later, len),
            },
            Last::Kept(kept) if !kept.is_empty() && kept.len() < KEEP => piece_for(kept.len() + more, len),
            Last::Kept(_) => more,
        };
        self.full_held + self.last.held() + new
    }

    pub(in crate::layer) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let last: &[u8] = match &self.last {
            Last::Kept(bytes) => bytes,
            Last::Filling(piece) => piece,
        };
        self.full.iter().map(|piece| &piece[..]).chain(std::iter::once(last))
    }

    pub(in crate::layer) fn into_body(mut self, trailers: Option<HeaderMap>) -> Body {
        if self.full.is_empty() && trailers.is_none() {
            return match self.last {
                Last::Kept(bytes) => Body::new(Full::new(bytes)),
                Last::Filling(piece) => Body::new(Full::new(piece.freeze())),
            };
        }
        self.seal(Last::default());
        Body::new(PiecesBody::new(self.full, trailers))
    }
}

impl Last {
    fn held(&self) -> usize {
        match self {
            Self::Kept(bytes) => bytes.len(),
            Self::Filling(piece) => piece.capacity(),
        }
    }
}

/// As large as what is held already, within [`PIECE`]: memory stays under twice what arrived, and the number
/// of pieces small.
fn piece_for(need: usize, held: usize) -> usize {
    held.clamp(*PIECE.start(), *PIECE.end()).max(need)
}

/// Pieces, and trailers where there are any, as a body of exactly known size.
struct PiecesBody {
    pieces: std::vec::IntoIter<Bytes>,
    trailers: Option<HeaderMap>,
    left: u64,
}

impl PiecesBody {
    fn new(pieces: Vec<Bytes>, trailers: Option<HeaderMap>) -> Self {
        Self {
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces: pieces.into_iter(),
            trailers,
        }
    }
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(piece) = self.pieces.next() {
            self.left -= piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
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

    /// The bytes of memory that the pieces take.
    fn held(pieces: &Buffer) -> usize {
        pieces.full_held + pieces.last.held()
    }

    #[test]
    fn small_frames_are_copied_together_and_large_ones_kept() {
        let growing = [16_383; 12];
        for (frames, lens, memory) in [
            (&[][..], &[0][..], 0),
            (&[5], &[5], 5),
            (&[5, 0], &[5], 5),
            (&[0, 5, 7], &[12], 1024),
            (&[5, 7, 0, 1012], &[1024], 1024),
            // What has no room goes on in a piece as large as what is there.
            (&[5, 7, 1013], &[1024, 1], 1024 + 1025),
            (&[5, 7, 1013, 1024, 3], &[1024, 1025, 3], 1024 + 1025 + 2052),
            // More than that, if it is more.
            (&[1, 1, 16_383], &[1024, 15_361], 1024 + 16_385),
            (&[16_383, 16_383], &[32_766], 32_766),
            (&[16_384], &[16_384], 16_384),
            (&[16_384, 5], &[16_384, 5], 16_389),
            (&[5, 16_384], &[5, 16_384], 16_389),
            (&[16_384, 16_384, 5], &[16_384, 16_384, 5], 32_773),
            (&[16_384, 5, 6], &[16_384, 11], 16_384 + 16_395),
            // A piece that a large frame ends before it is half full takes no more than its bytes.
            (&[5, 6, 16_384, 7], &[11, 16_384, 7], 11 + 16_384 + 7),
            (&[5, 506, 16_384], &[511, 16_384], 511 + 16_384),
            (&[5, 507, 16_384], &[512, 16_384], 1024 + 16_384),
            // And never more than 64 KiB.
            (
                &growing,
                &[32_766, 49_149, 65_536, 49_145],
                32_766 + 49_149 + 2 * 65_536,
            ),
        ] {
            let mut pieces = Buffer::default();
            for (at, &len) in frames.iter().enumerate() {
                // A small frame is there twice while it is copied; what a piece has too much is given back.
                let (twice, given_back) = match &pieces.last {
                    Last::Kept(kept) if (1..KEEP).contains(&len) && (1..KEEP).contains(&kept.len()) => (kept.len(), 0),
                    Last::Filling(piece) if len >= KEEP && piece.len() < piece.capacity() / 2 => {
                        (0, piece.capacity() - piece.len())
                    }
                    _ => (0, 0),
                };
                let expected = pieces.held_with(len);
                pieces.push(vec![u8::try_from(at).unwrap(); len].into());
                let held = held(&pieces) + twice + given_back;
                assert_eq!(expected, held, "{frames:?}, frame {at}");
            }
            let sent: Vec<u8> = frames
                .iter()
                .enumerate()
                .flat_map(|(at, &len)| vec![u8::try_from(at).unwrap(); len])
                .collect();
            assert_eq!(pieces.len(), sent.len(), "{frames:?}");
            assert_eq!(pieces.iter().map(<[u8]>::len).collect::<Vec<_>>(), lens, "{frames:?}");
            assert_eq!(pieces.iter().collect::<Vec<_>>().concat(), sent, "{frames:?}");
            assert_eq!(held(&pieces), memory, "{frames:?}");
        }
    }

    #[test]
    fn pieces_are_a_body_that_knows_its_size_to_the_end() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        for trailers in [None, Some(trailers)] {
            let mut pieces = Buffer::default();
            for len in [16_384, 7] {
                pieces.push(vec![b'x'; len].into());
            }
            let mut body = pieces.into_body(trailers.clone());
            let mut next = |left| {
                assert_eq!(body.size_hint().exact(), Some(left));
                let ended = body.is_end_stream();
                let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
                let Poll::Ready(frame) = frame else { panic!("it waits") };
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
