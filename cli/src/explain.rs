//! `inngest-auth explain`

use inngest_auth::{
    Clock, Config, Form, KeyRing, Keys, RejectionKind, SIGNATURE_HEADER, Signature, SystemClock,
    Tolerance, Verified, Verifier, diagnose, verify,
};

use crate::input::{self, Stdin};
use crate::report::{Failure, Report};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// When the request came, in Unix seconds (default: now).
    #[arg(long)]
    at: Option<u64>,
    /// The request's signature header. The file is then its body alone.
    #[arg(long)]
    signature: Option<String>,
    /// A file with the request as it was received: head, empty line, body (default: standard
    /// input).
    file: Option<String>,
}

/// The time that a request is judged by.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Option<u64> {
        Some(self.0)
    }
}

pub(crate) fn run(args: &Args, config: &Config, stdin: Stdin) -> Result<Report, Failure> {
    let ring = config
        .keys()
        .ok_or("INNGEST_DEV is set, so nothing is verified; unset it")?;
    let bytes = match &args.file {
        Some(path) => input::file(path)?,
        None => input::bytes(None, stdin)?,
    };
    let (signatures, body) = match &args.signature {
        Some(signature) => (vec![signature.as_bytes()], &bytes[..]),
        None => parse(&bytes)?,
    };
    let now = args.at.is_none();
    let at = args
        .at
        .or_else(|| SystemClock.now())
        .ok_or("the system's clock cannot tell the time; give --at")?;
    Ok(explain(ring, &signatures, body, at, now))
}

fn explain(ring: &KeyRing, signatures: &[&[u8]], body: &[u8], at: u64, now: bool) -> Report {
    let verdict = Verifier::new(ring.clone())
        .clock(At(at))
        .verify(signatures.iter().copied(), body);
    let rejection = match verdict {
        Ok((authentic, _)) => {
            let verified = authentic.verified();
            return proof(Report::new(true).line("verdict", "verified"), verified)
                .line("signed at", verified.signed_at())
                .meaning("Unix seconds");
        }
        Err(rejection) => rejection,
    };
    let keys = ring.snapshot();
    let report = Report::new(false)
        .line("verdict", "rejected")
        .line("kind", rejection.kind().as_str())
        .line("status", rejection.kind().status())
        .line("reason", rejection.to_string());
    let report = if now {
        let meaning = "now; give the time at which the request came, in Unix seconds, with --at";
        report.line("checked at", at).meaning(meaning)
    } else {
        report.line("checked at", at).meaning("Unix seconds")
    };
    let [Ok(signature)] = signatures
        .iter()
        .map(|header| Signature::parse(header))
        .collect::<Vec<_>>()[..]
    else {
        return report.line("what to do", what_to_do(rejection.kind()));
    };
    let report = report
        .line("signed at", signature.signed_at())
        .meaning("Unix seconds")
        .line("age in seconds", rejection.age());
    // At its own time no signature is stale: is it genuine otherwise?
    let at = signature.signed_at();
    match verify(body, &signature, &keys, at, Tolerance::default()) {
        Ok(authentic) => {
            let report = report
                .line("signature", "genuine")
                .meaning("apart from its time: a configured key made it, for this body");
            let what_to_do = match rejection.kind() {
                RejectionKind::Stale if now => Some(
                    "give --at, or the request is judged by the present time; if it was stale \
                     when it came, compare the clocks",
                ),
                kind => what_to_do(kind),
            };
            proof(report, authentic.verified()).line("what to do", what_to_do)
        }
        Err(_) => diagnosis(report, body, &signature, &keys),
    }
}

fn proof(report: Report, verified: Verified) -> Report {
    let meaning = match verified.form() {
        Form::Raw => "the bytes of the body were signed as they are",
        Form::Canonical => "the canonical form of the body was signed, not its bytes",
    };
    report
        .line("key", verified.key().as_str())
        .line("form", verified.form().as_str())
        .meaning(meaning)
}

fn diagnosis(report: Report, body: &[u8], signature: &Signature, keys: &Keys) -> Report {
    let tried: Vec<_> = [Some(keys.current()), keys.fallback()]
        .into_iter()
        .flatten()
        .map(|key| key.fingerprint().to_string())
        .collect();
    let report = report
        .line("signature", "wrong")
        .meaning("no configured key made it for this body and time")
        .line("keys tried", tried.join(" "))
        .meaning("fingerprints; `inngest-auth fingerprint` prints that of the sender's key, too");
    let Some(cause) = diagnose(body, signature, keys) else {
        return report.line("cause", "unknown").line(
            "what to do",
            "compare the fingerprint of the sender's key; if it is the same, something changed the \
             body on its way, or the file is not exactly what was received",
        );
    };
    report
        .line("cause", cause.as_str())
        .line("proved", cause.is_proved())
        .meaning(if cause.is_proved() {
            "an HMAC matches under this assumption, so a holder of the key made the signature"
        } else {
            "it looks so, but anyone can send such a request"
        })
        .line("what to do", cause.to_string())
}

/// Says what to do about a rejection, if the signature itself does not say it.
fn what_to_do(kind: RejectionKind) -> Option<&'static str> {
    Some(match kind {
        RejectionKind::Missing => {
            "Inngest signs its calls: look for what drops the header on the way; a dev server does \
             not sign, and neither does a sync with curl"
        }
        RejectionKind::Doubled => {
            "look for the proxy that adds a second header, or joins two into one"
        }
        RejectionKind::Malformed => {
            "Inngest sends no such header: look for the script or the proxy that makes it"
        }
        RejectionKind::Stale => {
            "compare the clocks; look for a queue before the app; a captured request that is sent \
             again looks the same"
        }
        RejectionKind::Future => "compare the clocks",
        RejectionKind::BodyTooLarge => "Inngest sends up to 4 MiB: look for who sends more",
        _ => return None,
    })
}

/// Takes a captured request apart: all values of its signature header, and its body.
fn parse(request: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    let read = head
        .parse(request)
        .map_err(|error| format!("the file is no HTTP/1 request: {error}"))?;
    let httparse::Status::Complete(length) = read else {
        return Err("the request's head is not complete: an empty line must follow it".into());
    };
    let body = &request[length..];
    let value = |name: &str| {
        let name = name.to_owned();
        let named = head
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(&name));
        named.map(|header| header.value)
    };
    if value("transfer-encoding").next().is_some() {
        return Err(
            "the body is in chunks: give the body alone, and --signature with its header".into(),
        );
    }
    let announced = value("content-length")
        .next()
        .and_then(|text| str::from_utf8(text).ok()?.trim().parse().ok());
    let body = match announced {
        // What is more was added later, by an editor perhaps.
        Some(length) => body
            .get(..length)
            .ok_or("the body is shorter than its Content-Length")?,
        None => body,
    };
    Ok((value(SIGNATURE_HEADER).collect(), body))
}
