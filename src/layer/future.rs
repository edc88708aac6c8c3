//! One request on its way through the steps, and all that it ever waits for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum_core::BoxError;
use axum_core::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, Version, response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::Frames;
use super::policy::{Checking, Guard, Heads, Next, Pass, Waiting, pass_unsigned_sync, tell};
use super::rejection::{Rejection, RejectionKind};
use super::response as respond;
use super::sign::{Reading, Signer};

pin_project! {
    /// What [`InngestAuthService`](crate::InngestAuthService) answers with.
    ///
    /// By hand, not an `async` block: it needs no box of its own, and a request is not moved from one to the next.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<Body>>,
    {
        inner: S,
        guard: Arc<Guard>,
        #[pin]
        step: Step<S::Future, B, R>,
    }
}

pin_project! {
    #[project = StepNow]
    #[project_replace = StepWas]
    enum Step<F, B, R> {
        /// The request's body arrives.
        Body { parts: Option<Parts>, #[pin] frames: Frames<B>, purpose: Purpose },
        /// Nothing is waited for but, perhaps, the inner service's readiness.
        Decided { next: Next },
        /// A replay store.
        Wait { next: Waiting },
        Inner { #[pin] answer: F, pass: Pass },
        /// The answer's body is read, to be signed.
        Answer { head: response::Parts, #[pin] body: R, reading: Reading, signer: Signer },
        Done,
    }
}

/// What a body is read for.
enum Purpose {
    Check(Checking),
    /// Nothing, for at most so many bytes more: a sender who is still writing is to see the answer.
    Forget(usize, Then),
}

enum Then {
    Refuse(Rejection),
    PassUnsignedSync,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<Body>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(inner: S, guard: Arc<Guard>, request: Request<B>) -> Self {
        let step = Step::first(&guard, request);
        Self { inner, guard, step }
    }
}

impl<F, B, R> Step<F, B, R>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn first(guard: &Guard, request: Request<B>) -> Self {
        let discard = guard.discard_limits();
        let (time, purpose) = match guard.judge_heads(&request) {
            Ok(Heads::Dev) => {
                let next = guard.pass_dev(request);
                return Self::Decided { next };
            }
            Ok(Heads::Signed(claim)) => (guard.body.time, Purpose::Check(Checking::new(claim, guard))),
            Ok(Heads::UnsignedSync) => (discard.time, Purpose::Forget(discard.len, Then::PassUnsignedSync)),
            Err(rejection) => {
                // On HTTP/1 a body that was not read closes the connection, and a sender that is still writing then
                // may see a reset in place of the answer.
                let in_the_way = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
                if !in_the_way || guard.never_arrives(&request) {
                    let next = Next::Answer(guard.refuse(rejection, in_the_way));
                    return Self::Decided { next };
                }
                (discard.time, Purpose::Forget(discard.len, Then::Refuse(rejection)))
            }
        };
        let (parts, body) = request.into_parts();
        let frames = Frames::new(body, time);
        Self::Body {
            parts: Some(parts),
            frames,
            purpose,
        }
    }
}

impl Purpose {
    fn poll<B>(&mut self, mut frames: Pin<&mut Frames<B>>, cx: &mut Context<'_>) -> Poll<Result<(), RejectionKind>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        while let Some(frame) = ready!(frames.as_mut().poll_next(cx)) {
            match (&mut *self, frame) {
                (Self::Check(checking), frame) => checking.take(frame?)?,
                (Self::Forget(left, _), Ok(frame)) if frame.len() <= *left => *left -= frame.len(),
                (Self::Forget(..), _) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<Body>, Response = Response<R>>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let guard = &*this.guard;
        loop {
            let next = match this.step.as_mut().project() {
                StepNow::Body {
                    parts,
                    mut frames,
                    purpose,
                } => {
                    let read = ready!(purpose.poll(frames.as_mut(), cx));
                    let http1 = parts.as_ref().is_some_and(|parts| parts.version < Version::HTTP_2);
                    if let (Err(kind @ RejectionKind::OverBudget), Purpose::Check(checking), true) =
                        (read, &*purpose, http1)
                    {
                        *purpose = Purpose::Forget(checking.left(), Then::Refuse(Rejection::new(kind)));
                        frames.within(guard.discard_limits().time);
                        continue;
                    }
                    // Taken where it stands: a step that is replaced whole is copied whole.
                    let Some(parts) = parts.take() else {
                        return Poll::Pending;
                    };
                    match (read, purpose) {
                        (Err(kind), _) => Next::Answer(guard.refuse(Rejection::new(kind), http1)),
                        (Ok(()), Purpose::Check(checking)) => guard.judge_body(parts, checking),
                        (Ok(()), Purpose::Forget(_, Then::PassUnsignedSync)) => pass_unsigned_sync(parts),
                        (Ok(()), Purpose::Forget(_, Then::Refuse(rejection))) => {
                            Next::Answer(guard.refuse(rejection.clone(), true))
                        }
                    }
                }
                StepNow::Wait { next } => ready!(next.as_mut().poll(cx)),
                StepNow::Inner { answer, pass } => {
                    let mut response = ready!(answer.poll(cx))?;
                    tell(response.extensions_mut(), pass.caller);
                    match pass.signer.take().map(|signer| (signer.reading(&response), signer)) {
                        Some((Ok(reading), signer)) => {
                            let (head, body) = response.into_parts();
                            this.step.set(Step::Answer {
                                head,
                                body,
                                reading,
                                signer,
                            });
                            continue;
                        }
                        Some((Err(why), signer)) => signer.warn_unsigned(why),
                        None => {}
                    }
                    Next::Answer(response.map(Body::new))
                }
                StepNow::Answer { body, reading, .. } => {
                    let read = ready!(reading.poll(body, cx));
                    match this.step.as_mut().project_replace(Step::Done) {
                        StepWas::Answer {
                            head, reading, signer, ..
                        } => match read {
                            Ok(()) => guard.sign(head, reading, signer),
                            Err(error) => Next::Answer(respond::unreadable(head.extensions, &*error)),
                        },
                        _ => return Poll::Pending,
                    }
                }
                StepNow::Decided { .. } => match this.step.as_mut().project_replace(Step::Done) {
                    StepWas::Decided { next } => next,
                    _ => return Poll::Pending,
                },
                // Not polled again once it has answered.
                StepNow::Done => return Poll::Pending,
            };
            match next {
                Next::Answer(response) => {
                    this.step.set(Step::Done);
                    return Poll::Ready(Ok(response));
                }
                Next::Wait(next) => this.step.set(Step::Wait { next }),
                Next::Pass(request, pass) => match this.inner.poll_ready(cx)? {
                    Poll::Ready(()) => {
                        let answer = this.inner.call(request);
                        this.step.set(Step::Inner { answer, pass });
                    }
                    Poll::Pending => {
                        let next = Next::Pass(request, pass);
                        this.step.set(Step::Decided { next });
                        return Poll::Pending;
                    }
                },
            }
        }
    }
}
