//! What a request is judged by, and the steps that it meets. (The crate's front page counts them.)

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum_core::BoxError;
use axum_core::body::Body;
use axum_core::extract::DefaultBodyLimit;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{Extensions, HeaderName, Method, Request, Response, response};

use super::body::{Budget, Kept, Limits};
use super::caller::Caller;
use super::headers::{announces_more_than, asks_for_trust, asks_only_for_a_sync, describe, mark, waits_to_send};
use super::rejection::{Rejection, RejectionKind};
use super::response::{self as respond, OnRejection};
use super::sign::{Reading, SignResponses, Signer, Unsigned};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::key::Mac;
use crate::keyring::{Generation, KeyRing};
use crate::replay::{self, Recorded};
use crate::signature::Signature;
use crate::verify::{self, Tolerance, Verified, check_fresh};

const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");
/// For how long the body of a request that is refused by its headers is read, so that the answer arrives.
const DISCARD_TIME: Duration = Duration::from_secs(3);

/// Everything that a request is judged by, but the keys' present state.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) stance: Stance,
    pub(super) tolerance: Tolerance,
    pub(super) body: Limits,
    pub(super) budget: Arc<Budget>,
    pub(super) insecure_unsigned_sync: bool,
    pub(super) sign_responses: SignResponses,
    pub(super) replay: Option<replay::Guard>,
    /// In seconds.
    pub(super) replay_skew: u64,
    pub(super) replay_fails_open: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) on_rejection: Option<Arc<OnRejection>>,
}

#[derive(Clone)]
pub(super) enum Stance {
    Verify(KeyRing),
    Dev {
        /// Said at each request that claims to come from the cloud.
        key_set: bool,
    },
    /// The configuration cannot be used: nothing passes.
    Refuse(ConfigError),
}

/// What the headers alone decide.
pub(super) enum Heads {
    Dev,
    UnsignedSync,
    Signed(Claim),
}

/// A fresh signature, and what it is held against.
#[derive(Clone)]
pub(super) struct Claim {
    signature: Signature,
    held: Arc<Generation>,
    /// In Unix seconds.
    judged_at: u64,
}

/// Step 7: a body on its way in, and the current key's MAC running along.
pub(super) struct Checking {
    claim: Claim,
    running: Mac,
    body: Kept,
}

impl Checking {
    pub(super) fn new(claim: Claim, guard: &Guard) -> Self {
        Self {
            running: claim.held.keys().current().mac(),
            body: Kept::new(guard.body.len, &guard.budget),
            claim,
        }
    }

    pub(super) fn take(&mut self, frame: Bytes) -> Result<(), RejectionKind> {
        self.body.room_for(&frame)?;
        self.running.update(&frame);
        self.body.push(frame);
        Ok(())
    }

    /// Bytes that the body may still have.
    pub(super) fn left(&self) -> usize {
        self.body.left()
    }
}

/// What is known of a request that is let pass.
pub(super) struct Pass {
    pub(super) caller: Caller,
    pub(super) signer: Option<Signer>,
}

impl Pass {
    fn unsigned(caller: Caller) -> Self {
        Self { caller, signer: None }
    }
}

impl Guard {
    /// Steps 1 to 6: no body is needed.
    #[expect(
        clippy::result_large_err,
        reason = "a box would be one more allocation that strangers cause"
    )]
    pub(super) fn judge_heads<B>(&self, request: &Request<B>) -> Result<Heads, Rejection> {
        let ring = match &self.stance {
            Stance::Verify(ring) => ring,
            Stance::Dev { .. } => return Ok(Heads::Dev),
            Stance::Refuse(error) => return Err(Rejection::unconfigured(*error)),
        };
        let headers = request.headers();
        let mut signatures = headers.get_all(respond::SIGNATURE).iter();
        let signature = match (signatures.next(), signatures.next()) {
            (Some(signature), None) => Signature::parse(signature.as_bytes()).map_err(Rejection::malformed)?,
            (Some(_), Some(_)) => return Err(Rejection::new(RejectionKind::Doubled)),
            (None, _) if self.insecure_unsigned_sync && asks_only_for_a_sync(request.method(), request.uri()) => {
                return Ok(Heads::UnsignedSync);
            }
            (None, _) => return Err(Rejection::new(RejectionKind::Missing)),
        };
        let now = self.clock.now().ok_or_else(|| Rejection::new(RejectionKind::NoTime))?;
        check_fresh(&signature, now, self.tolerance).map_err(Rejection::unverified)?;
        if announces_more_than(headers, self.body.len) {
            return Err(Rejection::new(RejectionKind::BodyTooLarge));
        }
        Ok(Heads::Signed(Claim {
            signature,
            held: ring.generation(),
            judged_at: now,
        }))
    }

    /// Steps 8 and 9, for a body that was read to its end.
    pub(super) fn judge_body(self: &Arc<Self>, parts: Parts, checking: &mut Checking) -> Next {
        let Checking { claim, running, body } = checking;
        let verified = verify::judge(running.clone(), &claim.signature, claim.held.keys(), body.iter());
        let pieces = body.take();
        match verified {
            Ok((verified, canonical)) => {
                let (len, body) = match canonical {
                    Some(bytes) => (bytes.len(), Body::from(bytes)),
                    None => (pieces.len(), pieces.into_body(None)),
                };
                let request = Request::from_parts(parts, body);
                self.check_replay(request, len, claim, verified)
            }
            Err(error) => {
                let mut rejection = Rejection::unverified(error).tried(claim.held.keys());
                rejection.age = Some(claim.judged_at.cast_signed() - claim.signature.signed_at().cast_signed());
                rejection.body_len = Some(pieces.len() as u64);
                rejection.content_encoding = parts.headers.get(CONTENT_ENCODING).cloned();
                Next::Answer(self.refuse(rejection, false))
            }
        }
    }

    /// Step 10.
    fn check_replay(self: &Arc<Self>, request: Request<Body>, len: usize, claim: &Claim, verified: Verified) -> Next {
        if self.replay.is_none() {
            return self.admit(request, len, claim, verified);
        }
        let (guard, claim) = (Arc::clone(self), claim.clone());
        Next::Wait(Box::pin(async move {
            match guard.remember(&claim.signature, request.method()).await {
                Ok(()) => guard.admit(request, len, &claim, verified),
                Err(kind) => Next::Answer(guard.refuse(Rejection::new(kind), false)),
            }
        }))
    }

    /// Step 11, and all that the handler is to find.
    fn admit(self: &Arc<Self>, mut request: Request<Body>, len: usize, claim: &Claim, verified: Verified) -> Next {
        claim.held.count(verified.key(), claim.judged_at);
        let caller = Caller::Verified(verified);
        let trust = asks_for_trust(request.method(), request.uri());
        let sync = asks_only_for_a_sync(request.method(), request.uri());
        let sign = match self.sign_responses {
            SignResponses::Required => trust || sync,
            SignResponses::All => true,
            SignResponses::Never => false,
        };
        let signer = sign.then(|| {
            let required_only = self.sign_responses == SignResponses::Required;
            Signer::new(
                Arc::clone(claim.held.keys()),
                verified,
                request.method(),
                required_only,
                sync,
            )
        });
        if !trust {
            describe(&mut request, len, caller);
            return Next::Pass(request, Pass { caller, signer });
        }
        let mut response = respond::trust_probe();
        tell(response.extensions_mut(), caller);
        match signer {
            Some(signer) => self.sign(response.into_parts().0, Reading::of(respond::TRUSTED), signer),
            None => Next::Answer(response),
        }
    }

    async fn remember(&self, signature: &Signature, method: &Method) -> Result<(), RejectionKind> {
        let Some(replay) = &self.replay else { return Ok(()) };
        let now = self.clock.now().ok_or(RejectionKind::NoTime)?;
        match replay.record(signature, now, self.tolerance, self.replay_skew).await {
            Ok(Recorded::Fresh) => Ok(()),
            // Two of these with one body in one second share a signature, rightly.
            Ok(Recorded::Seen) if matches!(*method, Method::GET | Method::HEAD) => Ok(()),
            Ok(Recorded::Seen) => Err(RejectionKind::Replayed),
            Err(error) if self.replay_fails_open => {
                tracing::warn!(%error, "a call passes that may be a replay");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a call is refused that may be a replay");
                Err(RejectionKind::StoreUnavailable)
            }
        }
    }

    pub(super) fn pass_dev<B>(&self, request: Request<B>) -> Next
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let from_cloud = request.headers().get(SERVER_KIND).is_some_and(|kind| kind == "cloud");
        if from_cloud && matches!(self.stance, Stance::Dev { key_set: true }) {
            tracing::warn!(
                "Inngest Cloud calls, a signing key is set, and nothing is verified: unset INNGEST_DEV in production"
            );
        }
        let mut request = request.map(Body::new);
        DefaultBodyLimit::max(self.body.len).apply(&mut request);
        mark(&mut request, Caller::Dev);
        Next::Pass(request, Pass::unsigned(Caller::Dev))
    }

    /// Step 13, once the answer has been read.
    pub(super) fn sign(self: &Arc<Self>, head: response::Parts, read: Reading, signer: Signer) -> Next {
        let signature = match signer.sign(&read, self) {
            Ok(signature) => signature,
            Err(why) => {
                signer.warn_unsigned(why);
                return Next::Answer(read.into_response(head, None));
            }
        };
        if self.replay.is_none() {
            return Next::Answer(read.into_response(head, Some(&signature)));
        }
        // It is a valid signature of its bytes: whoever sends them back must not be let in.
        let guard = Arc::clone(self);
        Next::Wait(Box::pin(async move {
            // `GET`: an equal answer that was recorded before is recorded.
            let recorded = guard.remember(&signature, &Method::GET).await.is_ok();
            if !recorded {
                signer.warn_unsigned(Unsigned::Forgotten);
            }
            Next::Answer(read.into_response(head, Some(&signature).filter(|_| recorded)))
        }))
    }

    pub(super) fn refuse(&self, rejection: Rejection, close: bool) -> Response<Body> {
        respond::refuse(rejection, close, self.on_rejection.as_deref())
    }

    /// Whether this body is not worth waiting for: its sender waits to be told to send it, or it is over the limit.
    pub(super) fn never_arrives<B>(&self, request: &Request<B>) -> bool {
        waits_to_send(request.headers()) || announces_more_than(request.headers(), self.body.len)
    }

    pub(super) fn discard_limits(&self) -> Limits {
        Limits {
            len: self.body.len,
            time: DISCARD_TIME.min(self.body.time),
        }
    }
}

/// Puts the outcome where layers outside find it: any of them can count by extensions.
pub(super) fn tell(extensions: &mut Extensions, caller: Caller) {
    extensions.remove::<Verified>();
    // One outcome: what a layer inside refused was refused.
    if let (Caller::Verified(verified), None) = (caller, extensions.get::<Rejection>()) {
        extensions.insert(verified);
    }
}

/// A sync without its body, and without what it says about it. In-band needs a signature.
pub(super) fn pass_unsigned_sync(parts: Parts) -> Next {
    let mut request = Request::from_parts(parts, Body::empty());
    request.headers_mut().remove(respond::SYNC_KIND);
    request.headers_mut().remove(CONTENT_ENCODING);
    describe(&mut request, 0, Caller::UnsignedSync);
    Next::Pass(request, Pass::unsigned(Caller::UnsignedSync))
}

/// What becomes of a request.
pub(super) enum Next {
    /// On to the inner service, which exists for this request only from now on.
    Pass(Request<Body>, Pass),
    Answer(Response<Body>),
    Wait(Waiting),
}

pub(super) type Waiting = Pin<Box<dyn Future<Output = Next> + Send>>;

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("InngestAuth");
        match &self.stance {
            Stance::Verify(keys) => debug.field("keys", &*keys.snapshot()),
            Stance::Dev { .. } => debug.field("dev", &true),
            Stance::Refuse(error) => debug.field("refuses_all", error),
        };
        debug
            .field("tolerance", &self.tolerance)
            .field("body_limit", &self.body.len)
            .field("body_deadline", &self.body.time)
            .field("insecure_unsigned_sync", &self.insecure_unsigned_sync)
            .field("sign_responses", &self.sign_responses)
            .field("replay_guard", &self.replay.is_some())
            .finish_non_exhaustive()
    }
}
