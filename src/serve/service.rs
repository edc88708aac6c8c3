//! What a request meets, in order.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_core::BoxError;
use axum_core::body::Body;
use axum_core::extract::DefaultBodyLimit;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use tower::ServiceExt;
use tower_service::Service;

use super::answer::Signer;
use super::body::{self, Limits};
use super::extract::Caller;
use super::layer::{Guard, Stance};
use super::rejection::{Rejection, RejectionKind};
use super::respond;
use crate::key::Keys;
use crate::replay::Recorded;
use crate::signature::{Check, Signature, Verified, check_fresh};

const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");
/// Headers about a body as it was sent, which is not always how it is handed on. (RFC 9530, and what it replaced.)
const ABOUT_THE_BODY: [HeaderName; 6] = [
    TRANSFER_ENCODING,
    TRAILER,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];
/// For how long the body of a request that is refused by its headers is read, so that the answer arrives.
const DISCARD_TIME: Duration = Duration::from_secs(3);

/// The service that [`InngestAuth`](crate::InngestAuth) makes of an inner one.
#[derive(Clone, Debug)]
pub struct InngestAuthService<S> {
    inner: S,
    guard: Arc<Guard>,
}

impl<S> InngestAuthService<S> {
    pub(super) fn new(inner: S, guard: Arc<Guard>) -> Self {
        Self { inner, guard }
    }
}

impl<S, B, R> Service<Request<B>> for InngestAuthService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    /// Always ready: strangers wait for nothing of the inner service, and hold nothing of it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            match guard.admit(request).await {
                Admission::Pass(request, caller, signer) => {
                    let response = inner.oneshot(request).await?;
                    Ok(guard.finish(response, caller, signer).await)
                }
                Admission::Answer(response) => Ok(response),
            }
        })
    }
}

/// What becomes of a request.
enum Admission {
    /// On to the inner service, which exists for this request only from now on.
    Pass(Request<Body>, Caller, Option<Signer>),
    /// Answered here.
    Answer(Response<Body>),
}

/// What the headers alone decide.
enum Heads {
    Dev,
    UnsignedSync,
    Signed(Claim),
}

/// A fresh signature, and what it is held against.
struct Claim {
    signature: Signature,
    keys: Arc<Keys>,
    /// In Unix seconds.
    judged_at: u64,
}

impl Guard {
    async fn admit<B>(&self, request: Request<B>) -> Admission
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match self.judge_heads(&request) {
            Ok(Heads::Dev) => self.pass_dev(request),
            Ok(Heads::UnsignedSync) => {
                let (parts, body) = request.into_parts();
                body::discard(pin!(body), self.discard_limits()).await;
                let mut request = Request::from_parts(parts, Body::empty());
                request.headers_mut().remove(respond::SYNC_KIND);
                request.headers_mut().remove(CONTENT_ENCODING);
                hand_on(request, 0, Caller::UnsignedSync, None)
            }
            Ok(Heads::Signed(claim)) => self.check_body(request, &claim).await,
            Err(rejection) => {
                let close = self.let_answer_arrive(request).await;
                self.refuse(rejection, close)
            }
        }
    }

    /// Steps 1 to 6: no body is needed.
    #[expect(
        clippy::result_large_err,
        reason = "a box would be one more allocation that strangers cause"
    )]
    fn judge_heads<B>(&self, request: &Request<B>) -> Result<Heads, Rejection> {
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
            (None, _) if self.unauthenticated_sync && is_plain_sync(request.method(), request.uri()) => {
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
            keys: ring.snapshot(),
            judged_at: now,
        }))
    }

    /// Steps 7 to 11.
    async fn check_body<B>(&self, request: Request<B>, claim: &Claim) -> Admission
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let mut body = pin!(body);
        let mut check = Check::new(claim.signature, &claim.keys);
        let read = body::read(body.as_mut(), self.body, &self.budget, |bytes| check.update(bytes)).await;
        let (pieces, held) = match read {
            Ok(read) => read,
            Err((kind, arrived)) => {
                let http1 = parts.version < Version::HTTP_2;
                if http1 && kind == RejectionKind::OverBudget {
                    let mut limits = self.discard_limits();
                    limits.len -= arrived.min(limits.len);
                    body::discard(body, limits).await;
                }
                return self.refuse(Rejection::new(kind), http1);
            }
        };
        let verified = check.finish(&claim.keys, pieces.iter());
        drop(held);
        let (verified, canonical) = match verified {
            Ok(verified) => verified,
            Err(error) => {
                let mut rejection = Rejection::unverified(error).tried(&claim.keys);
                rejection.age = Some(claim.judged_at.cast_signed() - claim.signature.signed_at().cast_signed());
                rejection.body_len = Some(pieces.len() as u64);
                rejection.content_encoding = parts.headers.get(CONTENT_ENCODING).cloned();
                return self.refuse(rejection, false);
            }
        };
        if let Err(kind) = self.remember(&claim.signature, &parts.method).await {
            return self.refuse(Rejection::new(kind), false);
        }
        claim.keys.count(verified.key(), claim.judged_at);
        let caller = Caller::Verified(verified);
        let signer = self
            .sign_answers
            .then(|| Signer::new(Arc::clone(&claim.keys), verified, &parts.method, &parts.headers));
        if is_trust_probe(&parts.method, &parts.uri) {
            return Admission::Answer(self.finish(respond::trust_probe(), caller, signer).await);
        }
        let (len, body) = match canonical {
            Some(bytes) => (bytes.len(), Body::from(bytes)),
            None => (pieces.len(), pieces.into_body()),
        };
        hand_on(Request::from_parts(parts, body), len, caller, signer)
    }

    /// Step 10.
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

    /// Whether a signed answer may go out: only if what was signed cannot come back as a call.
    pub(super) async fn remember_answer(&self, signature: &Signature) -> bool {
        // `GET`: an equal answer that was recorded before is recorded.
        self.remember(signature, &Method::GET).await.is_ok()
    }

    fn pass_dev<B>(&self, request: Request<B>) -> Admission
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
        Admission::Pass(request, Caller::Dev, None)
    }

    /// Step 13, and the outcome for whoever stands outside: any outer layer can count by extensions.
    async fn finish<R>(&self, response: Response<R>, caller: Caller, signer: Option<Signer>) -> Response<Body>
    where
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let mut response = match signer {
            Some(signer) => signer.sign(response, self).await,
            None => response.map(Body::new),
        };
        response.extensions_mut().remove::<Verified>();
        // One outcome: what a layer inside refused was refused.
        if let (Caller::Verified(verified), None) = (caller, response.extensions().get::<Rejection>()) {
            response.extensions_mut().insert(verified);
        }
        response
    }

    fn refuse(&self, rejection: Rejection, close: bool) -> Admission {
        Admission::Answer(respond::refuse(rejection, close, self.on_refusal.as_deref()))
    }

    /// Before a refusal that the headers decided. A sender that is still writing when an HTTP/1 connection
    /// closes may see a reset in place of the answer. Returns whether the connection must close.
    async fn let_answer_arrive<B>(&self, request: Request<B>) -> bool
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() || parts.version >= Version::HTTP_2 {
            return false;
        }
        let headers = &parts.headers;
        let waits = headers
            .get(EXPECT)
            .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !waits && !announces_more_than(headers, self.body.len) {
            body::discard(pin!(body), self.discard_limits()).await;
        }
        true
    }

    fn discard_limits(&self) -> Limits {
        Limits {
            len: self.body.len,
            time: DISCARD_TIME.min(self.body.time),
        }
    }
}

/// Makes what is handed on agree with itself: `len` bytes, said once, and nothing about how they were sent.
fn hand_on(mut request: Request<Body>, len: usize, caller: Caller, signer: Option<Signer>) -> Admission {
    let headers = request.headers_mut();
    let mut said = headers.get_all(CONTENT_LENGTH).iter();
    let right = (said.next().and_then(number), said.next().is_none()) == (Some(len as u64), true);
    if !right {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    for header in ABOUT_THE_BODY {
        headers.remove(header);
    }
    // Axum's extractors stop at 2 MB unless told: these bytes are bounded already.
    DefaultBodyLimit::max(len).apply(&mut request);
    mark(&mut request, caller);
    Admission::Pass(request, caller, signer)
}

/// What an outer layer left behind must not speak for this request.
fn mark(request: &mut Request<Body>, caller: Caller) {
    request.extensions_mut().remove::<Verified>();
    request.extensions_mut().insert(caller);
}

fn announces_more_than(headers: &HeaderMap, limit: usize) -> bool {
    let announced = headers.get(CONTENT_LENGTH).and_then(number);
    announced.is_some_and(|len| len > limit as u64)
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// A `PUT` that asks for a sync and nothing else: what names a function, a step or a probe is a call.
fn is_plain_sync(method: &Method, uri: &Uri) -> bool {
    let mut names = query(uri).map(|(name, _)| name);
    method == Method::PUT && !names.any(|name| matches!(&*name, "fnId" | "stepId" | "probe"))
}

/// Exactly one `probe`, and it asks for trust; beside a function or a step it is the handler's.
fn is_trust_probe(method: &Method, uri: &Uri) -> bool {
    let mut probes = query(uri).filter(|(name, _)| name == "probe");
    method == Method::POST
        && probes.next().is_some_and(|(_, value)| value == "trust")
        && probes.next().is_none()
        && !query(uri).any(|(name, _)| matches!(&*name, "fnId" | "stepId"))
}

fn query(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}
