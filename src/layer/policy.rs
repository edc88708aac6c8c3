//! The settings that requests are checked against, and the steps as functions.
//! [`InngestAuth`](crate::InngestAuth) lists the steps by number.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum_core::body::Body;
use axum_core::extract::DefaultBodyLimit;
use http::header::CONTENT_ENCODING;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::backlog::Backlog;
use super::body::budget::{Budget, OverBudget, Share};
use super::body::buffer::Buffer;
use super::body::read::{drain, read};
use super::caller::Caller;
use super::headers::{self, Purpose, SIGNATURE};
use super::log::Log;
use super::response::{self, OnRejection};
use super::sign::{self, SignResponses, Unsigned};
use crate::canonical;
use crate::config::Mode;
use crate::rejection::{Rejection, RejectionKind};
use crate::replay::{self, Recorded};
use crate::signature::Signature;
use crate::verifier::{Check, Proof, ResponseSigner, Running, Verifier};
use crate::verify::Verified;

/// How long to drain the body of a request that is rejected by its headers, so that its client can
/// read the response.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// The same for HTTP/2, where a stream costs less than a connection; and how many bytes to drain.
const HTTP2_DRAIN_TIME: Duration = Duration::from_secs(1);
const HTTP2_DRAIN: usize = 64 * 1024;

/// Bodies of less than this many bytes are canonicalized without waiting for a turn. Genuine
/// requests that need a canonical form, which are syncs, are smaller.
const QUICKLY_CANONICALIZED: usize = 512;

/// The settings that a request is checked against. Keys are snapshotted per request.
///
/// Aligned so that no field shares a cache line with the reference count in front of it, to which
/// every request writes.
#[derive(Clone)]
#[repr(align(128))]
pub(super) struct Policy {
    pub(super) mode: Mode<Verifier>,
    /// In bytes.
    pub(super) body_limit: usize,
    pub(super) body_deadline: Duration,
    pub(super) budget: Arc<Budget>,
    pub(super) backlog: Arc<Backlog>,
    /// One permit, for the request whose body is being canonicalized.
    pub(super) canonicalizing: Arc<Semaphore>,
    pub(super) insecure_unsigned_sync: bool,
    pub(super) sign_responses: SignResponses,
    pub(super) replay: Option<replay::Guard>,
    /// In seconds.
    pub(super) replay_skew: u64,
    pub(super) replay_fails_open: bool,
    pub(super) on_rejection: Option<Arc<OnRejection>>,
    pub(super) log: Arc<Log>,
}

/// What is known about an admitted request.
pub(super) struct Admitted {
    caller: Caller,
    purpose: Purpose,
    signer: Option<ResponseSigner>,
}

/// What is known about a rejected request.
pub(super) struct Rejected {
    rejection: Rejection,
    unread: Unread,
}

/// The unread part of a rejected request's body.
enum Unread {
    Nothing,
    /// Up to this many bytes, which the client may still be sending.
    AtMost(usize),
    /// More than is worth draining.
    Endless,
}

impl Policy {
    /// Takes a request through steps 1 to 10. Afterwards it has the authenticated body and is
    /// marked.
    pub(super) async fn admit(&self, request: &mut Request<Body>) -> Result<Admitted, Rejected> {
        let verifier = match &self.mode {
            Mode::Cloud(verifier) => verifier,
            Mode::Dev { .. } => return Ok(self.forward_dev(request)),
            Mode::Unusable(error) => {
                let rejection = Rejection::unconfigured(error.variable(), error.to_string().into());
                return Err(self.before_body(rejection));
            }
        };
        if self.insecure_unsigned_sync && headers::is_unsigned_sync(request) {
            return Ok(self.forward_unsigned_sync(request).await);
        }
        let (body, mut proof) = self.verify(verifier, request).await?;
        self.log
            .verified(&proof, verifier.window(), request.method());
        let purpose = Purpose::of(request, body.len());
        let canonical = proof.canonical.take();
        let len = self
            .replace_body(request, body, canonical, purpose)
            .map_err(|kind| Rejected::after_body(kind.into()))?;
        let first_use = self
            .record(verifier, &proof.signature, purpose)
            .await
            .map_err(Rejected::after_body)?;
        Ok(self.forward_verified(request, len, &proof, purpose, first_use))
    }

    /// Checks the headers, reads the body and compares the MAC: steps 3 to 9.
    async fn verify(
        &self,
        verifier: &Verifier,
        request: &mut Request<Body>,
    ) -> Result<(Buffer, Proof), Rejected> {
        let (mut check, mut running) =
            check_headers(verifier, request.headers()).map_err(|it| self.before_body(it))?;
        let mut share = self.budget.share();
        if let Some(bytes) = headers::many(request.headers()) {
            let reserved = share.reserve_headers(bytes);
            reserved.map_err(|OverBudget| self.before_body(RejectionKind::OverBudget.into()))?;
        }
        // The MAC is computed as frames arrive.
        let read = read(
            request.body_mut(),
            self.body_deadline,
            &mut share,
            |frame| running.update(frame),
        );
        read.await.map_err(|kind| Rejected {
            rejection: kind.into(),
            unread: match kind {
                RejectionKind::OverBudget => Unread::AtMost(running.left()),
                _ => Unread::Endless,
            },
        })?;
        // Reuses the variable, because another one would enlarge the future of every request.
        check = match check.finish_raw(&running, share.pieces()) {
            Ok(proof) => return Ok((share.finish(), proof)),
            Err(check) => check,
        };
        let turn = self.turn_to_canonicalize(&mut share).await;
        let _turn =
            turn.map_err(|OverBudget| Rejected::after_body(RejectionKind::OverBudget.into()))?;
        let outcome = check.finish_canonical(share.pieces());
        let body = share.finish();
        match outcome {
            Ok(proof) => Ok((body, proof)),
            Err(check) => {
                let encoding = request.headers().get(CONTENT_ENCODING);
                let encoding = encoding.map(HeaderValue::as_bytes);
                let rejection = check.rejection(body.len()).with_content_encoding(encoding);
                self.log.diagnose(request, body, &check);
                Err(Rejected::after_body(rejection))
            }
        }
    }

    /// Waits until no other body is being canonicalized, unless this one is quickly done.
    ///
    /// Unauthenticated clients can complete thousands of bodies in the same millisecond. Genuine
    /// calls must not wait until all of these have been canonicalized. So only one is at a time,
    /// and other tasks are polled in between.
    async fn turn_to_canonicalize(
        &self,
        share: &mut Share<'_>,
    ) -> Result<Option<SemaphorePermit<'_>>, OverBudget> {
        if !(QUICKLY_CANONICALIZED..=canonical::MAX_LEN).contains(&share.len()) {
            return Ok(None);
        }
        let turn = match self.canonicalizing.try_acquire() {
            Ok(turn) => turn,
            Err(_) => Box::pin(share.wait_for(self.canonicalizing.acquire()))
                .await?
                .expect("the semaphore is never closed"),
        };
        // A worker that always has a task ready polls its sockets only after every 61 tasks. This
        // lets it poll them before each turn: with a single worker, genuine calls took 500 ms.
        tokio::task::yield_now().await;
        Ok(Some(turn))
    }

    /// Checks that the window is still open and records the signature: step 10.
    ///
    /// Returns `true` if the signature is used for the first time, or if there is no guard that
    /// could tell.
    async fn record(
        &self,
        verifier: &Verifier,
        signature: &Signature,
        purpose: Purpose,
    ) -> Result<bool, Rejection> {
        // A slow body must not outlive the window: the store may already have forgotten a signature
        // that is recorded too late.
        let now = verifier.check_fresh(signature)?;
        let Some(guard) = &self.replay else {
            return Ok(true);
        };
        let recorded = guard
            .record(signature, now, verifier.window(), self.replay_skew)
            .await;
        // Nor must a slow store: by the time it responds, it may have forgotten the signature
        // again.
        verifier.check_fresh(signature)?;
        match recorded {
            Ok(Recorded::Fresh) => Ok(true),
            // Requests that run nothing may share a signature, such as two genuine empty ones in
            // the same second.
            Ok(_) if purpose.runs_nothing() => Ok(false),
            Ok(Recorded::BeforeStart) => Err(RejectionKind::BeforeStart.into()),
            Ok(_) => Err(RejectionKind::Replayed.into()),
            Err(error) => {
                let admitted = self.replay_fails_open || purpose.runs_nothing();
                self.log.store_failed(&error, admitted);
                if admitted {
                    // The request may be a replay, so its response is not signed.
                    Ok(false)
                } else {
                    Err(RejectionKind::StoreUnavailable.into())
                }
            }
        }
    }

    /// Gives a verified request the bytes that were authenticated. Returns their number.
    fn replace_body(
        &self,
        request: &mut Request<Body>,
        body: Buffer,
        canonical: Option<Vec<u8>>,
        purpose: Purpose,
    ) -> Result<usize, RejectionKind> {
        let (len, body) = match canonical {
            // A probe's body is never read.
            _ if purpose == Purpose::TrustProbe => (0, Body::empty()),
            // It is too small to count in the backlog.
            Some(canonical) => (canonical.len(), Body::from(canonical)),
            None => {
                let place = self.backlog.place(body.len())?;
                (body.len(), body.into_body(place, None))
            }
        };
        *request.body_mut() = body;
        Ok(len)
    }

    /// Marks a verified request, and decides whether its response may be signed.
    fn forward_verified(
        &self,
        request: &mut Request<Body>,
        len: usize,
        proof: &Proof,
        purpose: Purpose,
        first_use: bool,
    ) -> Admitted {
        let caller = Caller::Verified(proof.verified);
        forward(request, len, caller);
        // A handler could respond to each repetition with a new text, and each would be signed. The
        // probe's response is a constant.
        let may_sign = (first_use || purpose == Purpose::TrustProbe)
            && request.method() != Method::HEAD
            && self.sign_responses.apply_to(purpose);
        Admitted {
            caller,
            purpose,
            signer: may_sign.then(|| proof.signer()),
        }
    }

    /// Forwards a request unchanged, marked: step 1.
    fn forward_dev(&self, request: &mut Request<Body>) -> Admitted {
        self.log.forwarded_in_dev(request);
        DefaultBodyLimit::max(self.body_limit).apply(request);
        mark(request.extensions_mut(), Caller::Dev);
        Admitted::unverified(Caller::Dev)
    }

    /// Forwards an unsigned sync without its body and the headers that describe the body: step 3.
    async fn forward_unsigned_sync(&self, request: &mut Request<Body>) -> Admitted {
        drain(
            request.body_mut(),
            self.body_limit,
            DRAIN_TIME.min(self.body_deadline),
        )
        .await;
        *request.body_mut() = Body::empty();
        headers::strip_unsigned_sync(request.headers_mut());
        forward(request, 0, Caller::UnsignedSync);
        Admitted::unverified(Caller::UnsignedSync)
    }

    /// Marks the response, and signs it if required: step 13.
    pub(super) async fn finish(&self, response: &mut Response<Body>, admitted: &Admitted) {
        if response.extensions().get::<Rejection>().is_none() {
            mark(response.extensions_mut(), admitted.caller);
        } else {
            unmark(response.extensions_mut());
        }
        if let (Some(signer), Mode::Cloud(verifier)) = (&admitted.signer, &self.mode)
            && let Err(why) = self
                .sign(response, verifier, signer, admitted.purpose)
                .await
        {
            self.log
                .unsigned(why, admitted.purpose, self.sign_responses);
        }
    }

    async fn sign(
        &self,
        response: &mut Response<Body>,
        verifier: &Verifier,
        signer: &ResponseSigner,
        purpose: Purpose,
    ) -> Result<(), Unsigned> {
        self.sign_responses.check(purpose, response)?;
        let body = match sign::buffer(response.body_mut()).await {
            Ok(body) => body,
            Err(error) => {
                self.log.response_broken(&error);
                let marks = std::mem::take(response.extensions_mut());
                *response = response::message(StatusCode::INTERNAL_SERVER_ERROR);
                *response.extensions_mut() = marks;
                return Err(Unsigned::NotRequired);
            }
        };
        let signature = body.sign(signer);
        *response.body_mut() = body.into_body();
        let signature = signature?;
        let now = verifier
            .check_fresh(&signature)
            .map_err(|_| Unsigned::TooLate)?;
        if let Some(guard) = &self.replay {
            // A signed response is a valid signature of its bytes. It is recorded so that it cannot
            // be sent back as a call.
            match guard
                .record(&signature, now, verifier.window(), self.replay_skew)
                .await
            {
                Ok(Recorded::Fresh) => {}
                // Two probes in the same second have the same response.
                Ok(Recorded::Seen) if purpose == Purpose::TrustProbe => {}
                _ => return Err(Unsigned::NotRecorded),
            }
            verifier
                .check_fresh(&signature)
                .map_err(|_| Unsigned::TooLate)?;
        }
        let value =
            HeaderValue::from_bytes(&signature.encode()).expect("a signature is visible ASCII");
        response.headers_mut().insert(SIGNATURE, value);
        Ok(())
    }

    /// Rejects a request by its headers alone, with the body still unread.
    fn before_body(&self, rejection: Rejection) -> Rejected {
        Rejected {
            rejection,
            unread: Unread::AtMost(self.body_limit),
        }
    }

    /// Makes the response to a rejected request, after draining the rest of its body.
    pub(super) async fn reject(
        &self,
        rejected: Rejected,
        request: &mut Request<Body>,
    ) -> Response<Body> {
        self.log.rejected(&rejected.rejection, request);
        let close = !self.drain(&rejected.unread, request).await;
        let mut response =
            response::reject(rejected.rejection, close, self.on_rejection.as_deref());
        unmark(response.extensions_mut());
        response
    }

    /// Drains the rest of a rejected request's body. Returns `true` if its connection can be
    /// reused.
    ///
    /// On HTTP/1 an unread body closes the connection, and a client that is still sending may then
    /// see a reset instead of the response. A closed connection would also reveal whether a
    /// signature was stale or wrong. On HTTP/2, some clients treat the reset of a stream that they
    /// are still writing to as a failure.
    async fn drain(&self, unread: &Unread, request: &mut Request<Body>) -> bool {
        let http1 = request.version() < Version::HTTP_2;
        let (most, time) = if http1 {
            (self.body_limit, DRAIN_TIME)
        } else {
            (HTTP2_DRAIN, HTTP2_DRAIN_TIME)
        };
        let drained = match *unread {
            Unread::Nothing => true,
            _ if http_body::Body::is_end_stream(request.body()) => true,
            Unread::Endless => false,
            Unread::AtMost(_) if never_arrives(request.headers(), most) => false,
            Unread::AtMost(limit) => {
                // The headers may be large, and they no longer count in the budget.
                *request.headers_mut() = HeaderMap::new();
                drain(
                    request.body_mut(),
                    limit.min(most),
                    time.min(self.body_deadline),
                )
                .await
            }
        };
        drained || !http1
    }
}

/// Returns `true` if the client waits for permission to send the body, or announced more than would
/// be drained.
fn never_arrives(headers: &HeaderMap, most: usize) -> bool {
    headers::waits_for_continue(headers)
        || headers::announced_len(headers).is_some_and(|len| len > most as u64)
}

impl Admitted {
    fn unverified(caller: Caller) -> Self {
        Self {
            caller,
            purpose: Purpose::Call,
            signer: None,
        }
    }

    /// Returns `true` if the layer itself responds: step 11.
    pub(super) fn is_trust_probe(&self) -> bool {
        self.purpose == Purpose::TrustProbe
    }
}

impl Rejected {
    /// Rejects a request whose body was read to its end.
    fn after_body(rejection: Rejection) -> Self {
        Self {
            rejection,
            unread: Unread::Nothing,
        }
    }
}

/// Checks what does not need the body: steps 3 to 6.
fn check_headers(verifier: &Verifier, headers: &HeaderMap) -> Result<(Check, Running), Rejection> {
    let signatures = headers.get_all(SIGNATURE).iter();
    let (check, running) = verifier.check_header(signatures.map(HeaderValue::as_bytes))?;
    if let Some(len) = headers::announced_len(headers) {
        running.expect(len)?;
    }
    Ok((check, running))
}

/// Makes a request's headers agree with its new body of `len` bytes, and marks it.
fn forward(request: &mut Request<Body>, len: usize, caller: Caller) {
    headers::describe_body(request.headers_mut(), len);
    // Axum's extractors stop at 2 MB by default, or at an outer layer's limit. This body is already
    // in memory and bounded.
    DefaultBodyLimit::disable().apply(request);
    mark(request.extensions_mut(), caller);
}

/// Marks a request for the handler, or a response for outer layers. A mark from another layer must
/// not be taken for this one's.
fn mark(extensions: &mut Extensions, caller: Caller) {
    extensions.insert(caller);
    match caller.verified() {
        Some(verified) => {
            extensions.insert(verified);
        }
        None => {
            extensions.remove::<Verified>();
        }
    }
}

/// Removes the marks of an admitted request from the response to a rejected one, which an inner
/// layer or a handler may have left. Outer layers must see only one outcome: the rejection.
fn unmark(extensions: &mut Extensions) {
    extensions.remove::<Caller>();
    extensions.remove::<Verified>();
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InngestAuth")
            .field("mode", &self.mode)
            .field("body_limit", &self.body_limit)
            .field("body_deadline", &self.body_deadline)
            .field("insecure_unsigned_sync", &self.insecure_unsigned_sync)
            .field("sign_responses", &self.sign_responses)
            .field("replay_guard", &self.replay.is_some())
            .finish_non_exhaustive()
    }
}
