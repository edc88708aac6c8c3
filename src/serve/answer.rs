//! Answers to verified requests, signed.
//!
//! A signed answer is a valid signature of its bytes, so it carries the request's own `t`: a later one would
//! let whoever sees answers keep a captured request's window open for ever, by sending them back as requests.

use std::pin::pin;
use std::sync::Arc;

use axum_core::BoxError;
use axum_core::body::Body;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::body::PiecesBody;
use super::layer::Guard;
use super::respond;
use crate::key::{Keys, SigningKey};
use crate::signature::{Signature, Verified, check_fresh};

/// Longest answer, in bytes, that is read to be signed.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// Signs one request's answer, with what is known when the request has been verified.
pub(super) struct Signer {
    keys: Arc<Keys>,
    verified: Verified,
    is_head: bool,
    /// Inngest refuses an unsigned answer to this request.
    is_in_band_sync: bool,
}

/// Why an answer goes out unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsigned {
    /// The handler signed it, or set the header for reasons of its own.
    HasSignature,
    NoBody,
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
    pub(super) fn new(keys: Arc<Keys>, verified: Verified, method: &Method, headers: &HeaderMap) -> Self {
        Self {
            keys,
            verified,
            is_head: method == Method::HEAD,
            is_in_band_sync: headers.get(respond::SYNC_KIND).is_some_and(|kind| kind == "in_band"),
        }
    }

    /// The answer, with its signature where it gets one. What cannot be read cannot be signed: 500.
    pub(super) async fn sign<R>(&self, response: Response<R>, guard: &Guard) -> Response<Body>
    where
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        if let Some(why) = self.unsignable(&response) {
            return self.unsigned(response.map(Body::new), why);
        }
        let (mut head, body) = response.into_parts();
        let (body, pieces) = match read(body).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!("an answer could not be read to be signed: {error}");
                return respond::message(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        let signed = match pieces {
            Err(why) => Err(why),
            Ok(pieces) => match self.signature(&pieces, guard) {
                // It is a valid signature of its bytes: whoever sends them back must not be let in.
                Ok(signature) if !guard.remember_answer(&signature).await => Err(Unsigned::Forgotten),
                signed => signed,
            },
        };
        match signed {
            Ok(signature) => match HeaderValue::from_bytes(&signature.encode()) {
                Ok(signature) => {
                    head.headers.insert(respond::SIGNATURE, signature);
                    Response::from_parts(head, body)
                }
                Err(_) => respond::message(StatusCode::INTERNAL_SERVER_ERROR),
            },
            Err(why) => self.unsigned(Response::from_parts(head, body), why),
        }
    }

    fn unsignable<R: http_body::Body>(&self, response: &Response<R>) -> Option<Unsigned> {
        let headers = response.headers();
        let without_body = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match response.body().size_hint().exact() {
            _ if headers.contains_key(respond::SIGNATURE) => Some(Unsigned::HasSignature),
            _ if self.is_head || without_body => Some(Unsigned::NoBody),
            _ if headers.contains_key(CONTENT_ENCODING) => Some(Unsigned::Coded),
            None => Some(Unsigned::Stream),
            Some(0) => Some(Unsigned::NoBody),
            Some(len) if len > MAX_LEN => Some(Unsigned::TooLong),
            Some(_) => None,
        }
    }

    /// Over the bytes as the handler made them, less one trailing newline: the server's own check drops it.
    fn signature(&self, pieces: &[Bytes], guard: &Guard) -> Result<Signature, Unsigned> {
        let signed_at = self.verified.signed_at();
        let key: &SigningKey = self.keys.in_role(self.verified.key());
        let (last, before) = pieces.split_last().ok_or(Unsigned::NoBody)?;
        let last = last.strip_suffix(b"\n").unwrap_or(last);
        if last.is_empty() && before.is_empty() {
            return Err(Unsigned::NoBody);
        }
        let signature = Signature::sign(key, before.iter().map(|piece| &piece[..]).chain([last]), signed_at);
        let now = guard.clock.now().ok_or(Unsigned::TooLate)?;
        check_fresh(&signature, now, guard.tolerance).map_err(|_| Unsigned::TooLate)?;
        Ok(signature)
    }

    fn unsigned(&self, response: Response<Body>, why: Unsigned) -> Response<Body> {
        if self.is_in_band_sync && why != Unsigned::HasSignature {
            tracing::warn!(reason = ?why, "the answer to an in-band sync goes out unsigned: Inngest will not take it");
        }
        response
    }
}

/// The body, unchanged, and its data in pieces that are not empty; or why these are not to be signed.
async fn read<R>(body: R) -> Result<(Body, Result<Vec<Bytes>, Unsigned>), BoxError>
where
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let announced = body.size_hint().exact();
    let mut body = pin!(body);
    let (mut pieces, mut trailers, mut len) = (Vec::new(), None, 0);
    while let Some(frame) = body.frame().await {
        match frame.map_err(Into::into)?.into_data() {
            Ok(data) => {
                len += data.len() as u64;
                pieces.extend(Some(data).filter(|data| !data.is_empty()));
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if Some(len) > announced {
            return Err("it is longer than it said".into());
        }
    }
    if Some(len) != announced {
        return Err("it is shorter than it said".into());
    }
    Ok(match (&trailers, &*pieces) {
        (Some(_), _) => (Body::new(PiecesBody::new(pieces, trailers)), Err(Unsigned::Trailers)),
        (None, [piece]) => (Body::new(Full::new(piece.clone())), Ok(pieces)),
        (None, _) => (Body::new(PiecesBody::new(pieces.clone(), None)), Ok(pieces)),
    })
}
