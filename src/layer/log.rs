//! What the layer logs about requests: each kind of line a few times a minute, and what to do about
//! it once an hour, whatever clients send.

use std::fmt;
use std::sync::{Arc, OnceLock};

use axum_core::body::Body;
use http::{Method, Request};
use tokio::runtime::Handle;

use super::body::buffer::Buffer;
use super::headers::{self, Purpose};
use super::limiter::{FEW, Limiter, ONCE};
use super::sign::{SignResponses, Unsigned};
use super::turns::Turns;
use crate::diagnose::{self, Cause};
use crate::rejection::{self, Rejection, RejectionKind};
use crate::replay::ReplayStoreError;
use crate::verifier::{Check, Proof};
use crate::verify::{Form, Tolerance};

/// The log of one layer.
#[derive(Default)]
pub(super) struct Log {
    /// Whether the layer's settings have been logged.
    pub(super) started: OnceLock<()>,
    limiter: Limiter,
    diagnoses: Turns,
}

/// The level of a line, and so who sees it by default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Any scanner can cause it.
    Debug,
    /// An operator should look at it.
    Warn,
    /// No request can be verified until an operator has looked at it.
    Error,
}

impl Log {
    /// Logs a rejected request. The first of its kind in an hour is logged at WARN and says what to
    /// do.
    pub(super) fn rejected(&self, rejection: &Rejection, request: &Request<Body>) {
        let level = level(rejection, request);
        let advice = if tracing::enabled!(tracing::Level::WARN) {
            advice(rejection, request).filter(|advice| self.advise(advice))
        } else {
            None
        };
        let said = Said { rejection, advice };
        macro_rules! log {
            ($level:ident, $suppressed:expr) => {
                tracing::$level!(
                    kind = rejection.kind().as_str(),
                    method = method(request.method()),
                    age_seconds = rejection.age(),
                    keys_tried = keys_tried(rejection),
                    body_bytes = rejection.body_len(),
                    content_encoding = rejection.content_encoding(),
                    suppressed = $suppressed,
                    "rejected: {said}"
                )
            };
        }
        let enabled = match level {
            Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
            Level::Warn => tracing::enabled!(tracing::Level::WARN),
            Level::Error => tracing::enabled!(tracing::Level::ERROR),
        };
        if advice.is_some() {
            log!(warn, None::<u64>);
        } else if enabled && let Some(suppressed) = self.limiter.permit(line(level, rejection), FEW)
        {
            match level {
                Level::Debug => log!(debug, suppressed),
                Level::Warn => log!(warn, suppressed),
                Level::Error => log!(error, suppressed),
            }
        }
    }

    /// Finds out in a separate task why a signature is wrong, and logs the cause. Nothing waits for
    /// that task, so the response time does not reveal it.
    pub(super) fn diagnose(self: &Arc<Self>, request: &Request<Body>, body: Buffer, check: &Check) {
        if headers::is_foreign_probe(request) || !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        let suspected = if headers::is_coded(request.headers()) {
            Some(Cause::Compressed)
        } else {
            let head = body
                .iter()
                .find(|piece| !piece.is_empty())
                .unwrap_or_default();
            diagnose::suspect(head, body.len())
        };
        if body.len() > diagnose::MAX_LEN {
            return suspected.into_iter().for_each(|cause| self.explain(cause));
        }
        let (keys, signature) = (check.keys(), check.signature);
        let turn = self.diagnoses.take(diagnose::cost(body.len(), &keys));
        let (Some(turn), Ok(runtime)) = (turn, Handle::try_current()) else {
            return;
        };
        let (log, span) = (Arc::clone(self), tracing::Span::current());
        runtime.spawn(async move {
            let body: Vec<u8> = body.iter().flatten().copied().collect();
            let cause = diagnose::prove(&body, &signature, &keys).or(suspected);
            span.in_scope(|| cause.into_iter().for_each(|cause| log.explain(cause)));
            drop(turn);
        });
    }

    fn explain(&self, cause: Cause) {
        if !self.advise(cause.as_str()) {
            return;
        }
        let (name, proved) = (cause.as_str(), cause.is_proved());
        if proved {
            tracing::warn!(
                cause = name,
                proved,
                "proved cause of a wrong signature: {cause}"
            );
        } else {
            tracing::warn!(
                cause = name,
                proved,
                "suspected cause of a wrong signature, though anyone can send such a request: \
                 {cause}"
            );
        }
    }

    /// Logs what is unusual about a verified request that is nevertheless admitted.
    pub(super) fn verified(&self, proof: &Proof, tolerance: Tolerance, method: &Method) {
        const DRIFT: &str = "a verified request's time is off by more than half the tolerance: \
            synchronize this machine's clock by NTP, or look for a queue in front of the app, \
            before requests exceed the tolerance and are rejected";
        const REENCODED: &str = "a proxy re-encodes JSON: the signature of a call matches only the \
            canonical form of its body, and calls over 64 KiB are rejected; configure proxies to \
            forward bodies unchanged";
        if proof.age.unsigned_abs() > tolerance.as_secs() / 2 && self.advise(DRIFT) {
            let tolerance = tolerance.as_secs();
            tracing::warn!(
                age_seconds = proof.age,
                tolerance_seconds = tolerance,
                "{DRIFT}"
            );
        }
        if proof.verified.form() == Form::Canonical
            && method == Method::POST
            && self.advise(REENCODED)
        {
            tracing::warn!("{REENCODED}");
        }
    }

    /// Logs a signed request in dev mode, because only a server that expects verification signs.
    pub(super) fn forwarded_in_dev(&self, request: &Request<Body>) {
        const SIGNED: &str = "a signed request arrived in dev mode and was NOT verified: in \
            production, unset INNGEST_DEV and set INNGEST_SIGNING_KEY (a dev server does not sign, \
            but anyone can send a signature header)";
        if headers::is_signed(request.headers()) && self.advise(SIGNED) {
            tracing::error!("{SIGNED}");
        }
    }

    /// Logs that the replay store could not tell whether a request is a replay.
    pub(super) fn store_failed(&self, error: &ReplayStoreError, admitted: bool) {
        if let Some(suppressed) = self.limiter.permit("store_failed", FEW) {
            let error = Cut(error);
            tracing::warn!(%error, admitted, suppressed, "failed to check the replay store: cannot \
                tell whether a request is a replay");
        }
    }

    /// Logs that a response is sent unsigned, if Inngest or the setting requires a signature.
    pub(super) fn unsigned(&self, why: Unsigned, purpose: Purpose, rule: SignResponses) {
        let required = matches!(purpose, Purpose::TrustProbe | Purpose::Sync);
        let missed = match why {
            Unsigned::NotRequired | Unsigned::HasSignature => false,
            // Many handlers legitimately send empty or late responses.
            Unsigned::Empty | Unsigned::TooLate => required,
            _ => required || rule == SignResponses::All,
        };
        let (reason, what_to_do) = (why.as_str(), what_to_do(why));
        if !missed || !self.advise(what_to_do) {
            return;
        }
        if required {
            tracing::warn!(
                reason,
                "the response to an in-band sync or a trust probe is sent unsigned, so Inngest \
                 will not accept it: {what_to_do}"
            );
        } else {
            tracing::warn!(reason, "the response is sent unsigned: {what_to_do}");
        }
    }

    /// Logs that a response failed while it was buffered for signing.
    pub(super) fn response_broken(&self, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.limiter.permit("response_broken", FEW) {
            let error = Cut(error);
            tracing::error!(
                suppressed,
                "failed to buffer the response body for signing: {error}"
            );
        }
    }

    /// Returns `true` if this advice may be logged now.
    fn advise(&self, advice: &'static str) -> bool {
        self.limiter.permit(advice, ONCE).is_some()
    }
}

fn level(rejection: &Rejection, request: &Request<Body>) -> Level {
    use RejectionKind as Kind;
    match rejection.kind() {
        Kind::Unconfigured | Kind::NoTime | Kind::NoRuntime => Level::Error,
        Kind::Missing | Kind::Doubled | Kind::Malformed | Kind::BodyTooSlow | Kind::BodyBroken => {
            Level::Debug
        }
        Kind::WrongSignature if headers::is_foreign_probe(request) => Level::Debug,
        _ => Level::Warn,
    }
}

/// Returns the key for the rate limit. Foreign probes have their own, so that a flood of them does
/// not hide rejected calls.
fn line(level: Level, rejection: &Rejection) -> &'static str {
    match (level, rejection.kind()) {
        (Level::Debug, RejectionKind::WrongSignature) => "foreign_probe",
        (_, kind) => kind.as_str(),
    }
}

/// Returns what to do about a rejection. Advice that a client without a key can cause says so, or
/// applies only if genuine calls are rejected: otherwise anyone could talk an operator into a
/// change. Advice that turns verification off always says on which machine.
fn advice(rejection: &Rejection, request: &Request<Body>) -> Option<&'static str> {
    use RejectionKind as Kind;
    Some(match rejection.kind() {
        Kind::Missing if headers::looks_like_a_dev_server(request.headers()) => {
            "the sender seems to be a dev server, which has no signing key, but anyone can send \
             such a request: only on a development machine, set INNGEST_DEV=1"
        }
        Kind::Missing if headers::is_unsigned_sync(request) => {
            "anyone can send unsigned syncs, and a self-hosted server's UI and `curl -X PUT` do; a \
             server that has the key sends a signed one a few seconds later, so wait for that; \
             INNGEST_ENABLE_UNAUTHED_SYNC=1 would let anyone request a sync"
        }
        Kind::Missing => {
            "Inngest signs its calls: if genuine calls are rejected, configure proxies to forward \
             the header; to use a dev server, which does not sign, set INNGEST_DEV=1, only on a \
             development machine"
        }
        Kind::Doubled if rejection.is_joined() => {
            "if genuine calls are rejected, look for a proxy that joins headers, and configure it \
             to forward a single one"
        }
        Kind::Doubled => {
            "if genuine calls are rejected, configure proxies to forward the header once and \
             unchanged"
        }
        Kind::Malformed => {
            "Inngest does not send such a header: if genuine calls are rejected, look for a proxy \
             that changes it"
        }
        Kind::Stale => {
            "if genuine calls are rejected, synchronize this machine's clock by NTP, and look for \
             a queue in front of the app; a replayed captured request looks the same"
        }
        Kind::Future => "if genuine calls are rejected, synchronize this machine's clock by NTP",
        Kind::WrongSignature if headers::is_foreign_probe(request) => return None,
        Kind::WrongSignature => {
            "if genuine calls are rejected, set INNGEST_SIGNING_KEY to the signing key of the \
             environment that calls, and configure proxies to forward bodies unchanged; for a key \
             that ends in -HEX, `printf %s HEX | xxd -r -p | sha256sum | cut -c1-12` prints the \
             fingerprint that keys_tried shows"
        }
        Kind::Replayed => "turn off retries in proxies: Inngest signs each of its own retries anew",
        Kind::BeforeStart => "no action needed: Inngest's next attempt is accepted",
        Kind::BodyTooLarge => {
            "Inngest sends up to 4 MiB: if genuine calls are rejected, set body_limit, and every \
             limit outside the layer, to at least that"
        }
        Kind::BodyTooSlow => "raise body_deadline only if genuine calls are rejected",
        Kind::BodyBroken => {
            "the client closed the connection; if genuine calls are rejected, look for an outer \
             layer that aborts the body"
        }
        Kind::OverBudget => "raise body_budget only if genuine calls are rejected",
        Kind::BacklogFull => {
            "let the handler accept more concurrent requests, or limit the \
            concurrency of the functions in Inngest"
        }
        // The error itself says what to do.
        Kind::StoreUnavailable | Kind::Unconfigured | Kind::NoTime | Kind::NoRuntime => {
            return None;
        }
    })
}

/// Returns what to do about a response that is sent unsigned.
fn what_to_do(why: Unsigned) -> &'static str {
    match why {
        Unsigned::NotRequired | Unsigned::HasSignature => "nothing",
        Unsigned::Empty => "the body is empty; return the body that the SDK specification requires",
        Unsigned::Coded => "it has a Content-Encoding; put compression outside the layer",
        Unsigned::Stream => {
            "the body has no known length; return a buffered body instead of a \
            stream"
        }
        Unsigned::TooLong => "the body is longer than 8 MiB; return a shorter one",
        Unsigned::Trailers => "it has trailers, which a signature does not cover; remove them",
        Unsigned::TooLate => "the handler took longer than the tolerance; respond sooner",
        Unsigned::NotRecorded => "the replay store could not record it; restore the store",
    }
}

/// Returns the method from a closed set, because clients choose it and it is a field of the log.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Returns the fingerprints separated by spaces, or `None` if no key was tried.
fn keys_tried(rejection: &Rejection) -> Option<String> {
    let keys: Vec<_> = rejection.keys_tried().map(|key| key.to_string()).collect();
    (!keys.is_empty()).then(|| keys.join(" "))
}

/// A rejection, followed by what to do about it.
struct Said<'a> {
    rejection: &'a Rejection,
    advice: Option<&'static str>,
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rejection.fmt(f)?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

/// A text from outside the crate, cut for a line.
struct Cut<T>(T);

impl<T: fmt::Display> fmt::Display for Cut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(rejection::cut(&self.0.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::signature::SignatureError;

    /// Every kind.
    const KINDS: [RejectionKind; 17] = {
        use RejectionKind as Kind;
        [
            Kind::Missing,
            Kind::Doubled,
            Kind::Malformed,
            Kind::Stale,
            Kind::Future,
            Kind::WrongSignature,
            Kind::Replayed,
            Kind::BeforeStart,
            Kind::BodyTooLarge,
            Kind::BodyTooSlow,
            Kind::BodyBroken,
            Kind::OverBudget,
            Kind::BacklogFull,
            Kind::StoreUnavailable,
            Kind::Unconfigured,
            Kind::NoTime,
            Kind::NoRuntime,
        ]
    };

    /// Returns `true` if a client without a key can cause a rejection of this kind.
    fn can_be_provoked(kind: RejectionKind) -> bool {
        use RejectionKind as Kind;
        match kind {
            Kind::Missing
            | Kind::Doubled
            | Kind::Malformed
            | Kind::Stale
            | Kind::Future
            | Kind::WrongSignature
            | Kind::BodyTooLarge
            | Kind::BodyTooSlow
            | Kind::BodyBroken
            | Kind::OverBudget => true,
            // Only after the signature was verified.
            Kind::Replayed | Kind::BeforeStart | Kind::BacklogFull | Kind::StoreUnavailable => {
                false
            }
            // They reject genuine requests too.
            Kind::Unconfigured | Kind::NoTime | Kind::NoRuntime => false,
        }
    }

    /// A line may otherwise talk an operator into a change that only an attacker wants.
    #[test]
    fn advice_that_a_stranger_can_provoke_says_so() {
        let names = include_str!("../rejection.rs")
            .split("fn as_str(self)")
            .nth(1);
        let names = names.unwrap().split("\n    }\n").next().unwrap();
        assert_eq!(
            names.matches("=> \"").count(),
            KINDS.len(),
            "a kind is missing above"
        );
        let requests = [
            Request::post("/"),
            Request::put("/"),
            Request::post("/").header("x-inngest-server-kind", "dev"),
            Request::get("/"),
        ];
        let requests = requests.map(|request| request.body(Body::empty()).unwrap());
        let joined = Rejection::from(SignatureError::Joined);
        let rejections = KINDS.map(Rejection::from).into_iter().chain([joined]);
        let mut texts = BTreeSet::new();
        for rejection in rejections {
            let advices = requests
                .iter()
                .filter_map(|request| advice(&rejection, request));
            let kind = rejection.kind();
            if can_be_provoked(kind) {
                let what = rejection.to_string();
                assert!(
                    !what.contains(": "),
                    "{kind}: advice without a condition: {what}"
                );
                texts.extend(advices.map(|text| (kind, text)));
            }
        }
        for (kind, text) in &texts {
            assert!(
                text.contains("if genuine calls are rejected") || text.contains("anyone can"),
                "{kind}: {text}"
            );
        }
        assert_eq!(texts.len(), 13);
    }

    #[test]
    fn foreign_texts_are_cut_and_methods_are_from_a_closed_set() {
        assert_eq!(Cut("ä".repeat(500)).to_string(), "ä".repeat(128));
        assert_eq!(Cut(format!("a{}", "ä".repeat(500))).to_string().len(), 255);
        for (sent, logged) in [
            ("GET", "GET"),
            ("PUT", "PUT"),
            ("get", "other"),
            ("X\u{21}", "other"),
        ] {
            assert_eq!(method(&sent.parse().unwrap()), logged);
        }
    }
}
