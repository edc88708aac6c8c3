//! Answers to verified requests, signed.
//!
//! A signed answer is a valid signature of its bytes, so it carries the request's own `t`: a later one would
//! let whoever sees answers keep a captured request's window open for ever, by sending them back as requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum_core::BoxError;
use axum_core::body::Body;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::buffer::Pieces;
use super::policy::Guard;
use super::response as respond;
use crate::keyring::Keys;
use crate::signature::Signature;
use crate::verify::{Verified, check_fresh};

/// Longest answer, in bytes, that is read to be signed.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// Which responses [`InngestAuth`](crate::InngestAuth) signs.
///
/// A signed response is a valid signature of its bytes: whoever holds it can send those bytes back as a call. So by default
/// only responses are signed that Inngest requires to be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignResponses {
    /// Signs what Inngest requires (the default): the constant `{}` that answers a trust probe, and a **200** response that
    /// itself carries `X-Inngest-Sync-Kind: in_band`, to a verified `PUT` whose query has no `fnId`, `stepId` or `probe`.
    #[default]
    Required,
    /// Signs every 2xx response to a verified request. Without a [replay guard](crate::replay), a handler that echoes any
    /// part of its request then signs what the sender chose.
    All,
    /// Signs nothing. Inngest Cloud then rejects in-band syncs.
    Never,
}

/// Signs one request's answer, with what is known when the request has been verified.
pub(super) struct Signer {
    keys: Arc<Keys>,
    verified: Verified,
    is_head: bool,
    required_only: bool,
    is_sync: bool,
}

/// Why an answer goes out unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// The handler signed it, or set the header for reasons of its own.
    HasSignature,
    NoBody,
    NotRequired,
    /// Its bytes are a coding of what the other side will check.
    Coded,
    Stream,
    TooLong,
    Trailers,
    TooLate,
    /// The replay store could not record it.
    Forgotten,
}

impl Signer {
    pub(super) fn new(
        keys: Arc<Keys>,
        verified: Verified,
        method: &Method,
        required_only: bool,
        is_sync: bool,
    ) -> Self {
        Self {
            keys,
            verified,
            is_head: method == Method::HEAD,
            required_only,
            is_sync,
        }
    }

    /// The reading that a signature needs, where the answer is to get one.
    pub(super) fn reading<R: http_body::Body>(&self, response: &Response<R>) -> Result<Reading, Unsigned> {
        let headers = response.headers();
        let without_body = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let in_band = response.status() == StatusCode::OK
            && self.is_sync
            && headers.get(respond::SYNC_KIND).is_some_and(|kind| kind == "in_band");
        match response.body().size_hint().exact() {
            _ if !response.status().is_success() || (self.required_only && !in_band) => Err(Unsigned::NotRequired),
            _ if headers.contains_key(respond::SIGNATURE) => Err(Unsigned::HasSignature),
            _ if self.is_head || without_body => Err(Unsigned::NoBody),
            _ if headers.contains_key(CONTENT_ENCODING) => Err(Unsigned::Coded),
            None => Err(Unsigned::Stream),
            Some(0) => Err(Unsigned::NoBody),
            Some(len) if len > MAX_LEN => Err(Unsigned::TooLong),
            Some(announced) => Ok(Reading::new(announced)),
        }
    }

    /// Over the bytes as the handler made them, less one trailing newline: the server's own check drops it.
    pub(super) fn sign(&self, read: &Reading, guard: &Guard) -> Result<Signature, Unsigned> {
        if read.trailers.is_some() {
            return Err(Unsigned::Trailers);
        }
        let last = read.pieces.iter().filter(|piece| !piece.is_empty()).last();
        let newline = last.is_some_and(|piece| piece.ends_with(b"\n"));
        let mut left = read.pieces.len() - usize::from(newline);
        if left == 0 {
            return Err(Unsigned::NoBody);
        }
        let signed = read.pieces.iter().map(|piece| {
            let piece = &piece[..left.min(piece.len())];
            left -= piece.len();
            piece
        });
        let signed_at = self.verified.signed_at();
        let signature = Signature::sign(self.keys.in_role(self.verified.key()), signed, signed_at);
        let now = guard.clock.now().ok_or(Unsigned::TooLate)?;
        check_fresh(&signature, now, guard.tolerance).map_err(|_| Unsigned::TooLate)?;
        Ok(signature)
    }

    pub(super) fn warn_unsigned(&self, why: Unsigned) {
        if self.is_sync && !matches!(why, Unsigned::HasSignature | Unsigned::NotRequired) {
            tracing::warn!(reason = ?why, "the answer to an in-band sync goes out unsigned: Inngest will not take it");
        }
    }
}

/// An answer's body as it is read, unchanged.
pub(super) struct Reading {
    announced: u64,
    pieces: Pieces,
    trailers: Option<HeaderMap>,
}

impl Reading {
    fn new(announced: u64) -> Self {
        Self {
            announced,
            pieces: Pieces::default(),
            trailers: None,
        }
    }

    /// What need not be read.
    pub(super) fn of(bytes: Bytes) -> Self {
        let mut reading = Self::new(bytes.len() as u64);
        reading.pieces.push(bytes);
        reading
    }

    pub(super) fn poll<R>(&mut self, mut body: Pin<&mut R>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        R: http_body::Body<Data = Bytes>,
        R::Error: Into<BoxError>,
    {
        while let Some(frame) = ready!(body.as_mut().poll_frame(cx)) {
            match frame.map_err(Into::into)?.into_data() {
                Ok(data) => self.pieces.push(data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
            if self.pieces.len() as u64 > self.announced {
                return Poll::Ready(Err("it is longer than it said".into()));
            }
        }
        if (self.pieces.len() as u64) < self.announced {
            return Poll::Ready(Err("it is shorter than it said".into()));
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn into_response(self, mut head: Parts, signature: Option<&Signature>) -> Response<Body> {
        match signature.map(|signature| HeaderValue::from_bytes(&signature.encode())) {
            Some(Ok(signature)) => {
                head.headers.insert(respond::SIGNATURE, signature);
            }
            Some(Err(_)) => return respond::message(StatusCode::INTERNAL_SERVER_ERROR),
            None => {}
        }
        Response::from_parts(head, self.pieces.into_body(self.trailers))
    }
}
