//! What the layer logs about requests: each kind a few times a minute, and what to do about it once
//! an hour, whatever strangers send.

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
use crate::keyring::Keys;
use crate::rejection::{Rejection, RejectionKind};
use crate::replay::ReplayStoreError;
use crate::signature::Signature;
use crate::verifier::Proof;
use crate::verify::{Form, Tolerance};

/// Longest text of somebody else's in a line, in bytes.
const MAX_TEXT: usize = 256;

/// The log of one layer.
#[derive(Default)]
pub(super) struct Log {
    /// Whether the layer's settings have been logged.
    pub(super) started: OnceLock<()>,
    limiter: Limiter,
    diagnoses: Turns,
}

/// Who may read a line by default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Any scanner causes it.
    Debug,
    /// An operator should look at it.
    Warn,
    /// Nothing works until an operator has looked at it.
    Error,
}

impl Log {
    /// Logs a rejected request. The first of its kind in an hour is visible, with what to do.
    pub(super) fn rejected(&self, rejection: &Rejection, request: &Request<Body>) {
        let level = level(rejection, request);
        let advice = advice(rejection, request)
            .filter(|advice| tracing::enabled!(tracing::Level::WARN) && self.advise(advice));
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

    /// Finds out, away from the request, why its signature is wrong, and logs the cause. Nothing
    /// waits for it, so that no sender can tell that it was done.
    pub(super) fn diagnose(
        self: &Arc<Self>,
        request: &Request<Body>,
        body: Buffer,
        signature: Signature,
        keys: Arc<Keys>,
    ) {
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
                "suspected cause of a wrong signature, though anyone can send such a request: {cause}"
            );
        }
    }

    /// Logs what is odd about a verified request, though it is admitted.
    pub(super) fn verified(&self, proof: &Proof, tolerance: Tolerance, method: &Method) {
        const DRIFT: &str = "the time of a verified request is off by more than half the tolerance: \
            set this machine's clock by NTP, or look for a queue before the app; beyond the tolerance \
            every request is rejected";
        const REENCODED: &str = "something on the way re-encodes JSON: the signature of a call matches \
            only the canonical form of its body, and calls over 64 KiB are rejected; let proxies pass \
            bodies unchanged";
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

    /// Logs a signed request in dev mode: only a server that expects verification signs.
    pub(super) fn forwarded_in_dev(&self, request: &Request<Body>) {
        const SIGNED: &str = "a signed request arrived in dev mode and was NOT verified: in production, \
            unset INNGEST_DEV and set INNGEST_SIGNING_KEY (a dev server does not sign; anyone else can \
            send such a header)";
        if headers::is_signed(request.headers()) && self.advise(SIGNED) {
            tracing::error!("{SIGNED}");
        }
    }

    /// Logs that the replay store could not tell whether a request is a replay.
    pub(super) fn store_failed(&self, error: &ReplayStoreError, admitted: bool) {
        if let Some(suppressed) = self.limiter.permit("store_failed", FEW) {
            let error = Cut(error);
            tracing::warn!(%error, admitted, suppressed, "cannot tell whether a request is a replay");
        }
    }

    /// Logs a response that is sent unsigned, if someone will miss the signature.
    pub(super) fn unsigned(&self, why: Unsigned, purpose: Purpose, rule: SignResponses) {
        let required = matches!(purpose, Purpose::TrustProbe | Purpose::Sync);
        let missed = match why {
            Unsigned::NotRequired | Unsigned::HasSignature => false,
            // Many handlers respond so, and rightly.
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
                "the response to an in-band sync or a trust probe is sent unsigned, and Inngest will not \
                 accept it: {what_to_do}"
            );
        } else {
            tracing::warn!(reason, "a response is sent unsigned: {what_to_do}");
        }
    }

    /// Logs a response that broke while it was read to be signed.
    pub(super) fn response_broken(&self, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.limiter.permit("response_broken", FEW) {
            let error = Cut(error);
            tracing::error!(
                suppressed,
                "failed to buffer the response body for signing: {error}"
            );
        }
    }

    /// Returns `true` if this advice may be given now.
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

/// Returns what is limited together: a flood of probes must not hide a call.
fn line(level: Level, rejection: &Rejection) -> &'static str {
    match (level, rejection.kind()) {
        (Level::Debug, RejectionKind::WrongSignature) => "foreign_probe",
        (_, kind) => kind.as_str(),
    }
}

/// Returns what to do about a rejection. None of it turns verification off without saying for whom.
fn advice(rejection: &Rejection, request: &Request<Body>) -> Option<&'static str> {
    use RejectionKind as Kind;
    Some(match rejection.kind() {
        Kind::Missing if headers::is_like_a_dev_servers(request.headers()) => {
            "the sender seems to have no signing key, as a dev server has none, but anyone can send \
             this: only on a development machine, set INNGEST_DEV=1"
        }
        Kind::Missing if headers::is_unsigned_sync(request) => {
            "a self-hosted server's UI and `curl -X PUT` send unsigned syncs; the server repeats the \
             sync, signed, within seconds, so wait for that; INNGEST_ENABLE_UNAUTHED_SYNC=1 lets anyone \
             ask for a sync"
        }
        Kind::Missing => {
            "Inngest signs its calls: if calls are rejected so, let proxies pass the header (a dev \
             server does not sign: only on a development machine, set INNGEST_DEV=1)"
        }
        Kind::Doubled if rejection.is_joined() => {
            "look for the proxy that joins headers, and let it pass one"
        }
        Kind::Doubled => "let proxies pass the header once and unchanged",
        Kind::Malformed => {
            "Inngest sends no such header: look for the script or the proxy that makes it"
        }
        Kind::Stale => {
            "set this machine's clock by NTP, and look for a queue before the app; a captured request \
             that is sent again looks the same"
        }
        Kind::Future => "set this machine's clock by NTP",
        Kind::WrongSignature if headers::is_foreign_probe(request) => return None,
        Kind::WrongSignature => {
            "set INNGEST_SIGNING_KEY to the key of the environment that calls, and let proxies pass \
             bodies unchanged; for a key that ends in -HEX, `printf %s HEX | xxd -r -p | sha256sum | \
             cut -c1-12` prints what keys_tried shows"
        }
        Kind::Replayed => "turn off retries in proxies: Inngest signs each of its own anew",
        Kind::BeforeStart => "Inngest's next attempt passes",
        Kind::BodyTooLarge => {
            "Inngest sends up to 4 MiB: leave body_limit, and every limit outside the layer, at that or \
             more"
        }
        Kind::BodyTooSlow => "raise body_deadline only if genuine calls are rejected",
        Kind::BodyBroken => "the sender hung up, or a layer outside broke the body off",
        Kind::OverBudget => "raise body_budget only if genuine calls are rejected",
        Kind::BacklogFull => "let the handler take more requests at once, or Inngest send fewer",
        // Their errors say it.
        Kind::StoreUnavailable | Kind::Unconfigured | Kind::NoTime | Kind::NoRuntime => {
            return None;
        }
    })
}

/// Returns what to do about a response that is sent unsigned.
fn what_to_do(why: Unsigned) -> &'static str {
    match why {
        Unsigned::NotRequired | Unsigned::HasSignature => "nothing",
        Unsigned::Empty => "it is empty; respond with what the SDK specification asks for",
        Unsigned::Coded => "it has a Content-Encoding; put compression outside the layer",
        Unsigned::Stream => "its length is not known; respond with a body in one piece",
        Unsigned::TooLong => "it is longer than 8 MiB",
        Unsigned::Trailers => "it has trailers, which no signature covers",
        Unsigned::TooLate => "it came later than the tolerance; respond sooner",
        Unsigned::NotRecorded => "the replay store could not record it; bring the store up",
    }
}

/// Returns a method from a closed set: senders choose it.
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

/// Returns the fingerprints, separated by blanks, or `None` if no key was tried.
fn keys_tried(rejection: &Rejection) -> Option<String> {
    let keys: Vec<_> = rejection.keys_tried().map(|key| key.to_string()).collect();
    (!keys.is_empty()).then(|| keys.join(" "))
}

/// A rejection, and what to do about it.
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

/// A text of somebody else's, cut to [`MAX_TEXT`] bytes.
struct Cut<T>(T);

impl<T: fmt::Display> fmt::Display for Cut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut ends = (0..=text.len().min(MAX_TEXT)).rev();
        let end = ends
            .find(|&end| text.is_char_boundary(end))
            .expect("0 is one");
        f.write_str(&text[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_are_cut_and_methods_are_from_a_closed_set() {
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
