//! `inngest-auth explain`: verifies a captured request, and explains why it is rejected.

use inngest_auth::{
    Clock, Config, Form, KeyRing, Keys, RejectionKind, SIGNATURE_HEADER, Signature, SystemClock,
    Tolerance, Verified, Verifier, diagnose, verify,
};

use crate::input::{self, Stdin};
use crate::report::{Failure, Report};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// When the request was received, in Unix seconds (default: now).
    #[arg(long)]
    at: Option<u64>,
    /// The value of the request's X-Inngest-Signature header. The file then contains the body only.
    #[arg(long)]
    signature: Option<String>,
    /// The file with the request as it was received: head, empty line, body (default: standard
    /// input).
    file: Option<String>,
}

/// A clock that shows the time at which the request was received.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Option<u64> {
        Some(self.0)
    }
}

pub(crate) fn run(args: &Args, config: &Config, stdin: Stdin) -> Result<Report, Failure> {
    let ring = config
        .keys()
        .ok_or("INNGEST_DEV is set, so no key is read; unset it")?;
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
        .ok_or("failed to read the system's clock; give the time with --at")?;
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
        let meaning = "now; if the request is older, give the time at which it was received, in \
                       Unix seconds, with --at";
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
    // Verify at the signature's own time, to find out whether everything else is genuine.
    let at = signature.signed_at();
    match verify(body, &signature, &keys, at, Tolerance::default()) {
        Ok(authentic) => {
            let report = report
                .line("signature", "genuine")
                .meaning("except for its time: a configured key made it for this body");
            let what_to_do = match rejection.kind() {
                RejectionKind::Stale if now => Some(
                    "give --at: without it, the request is checked against the present time; if it \
                     was stale when it was received, compare the clocks",
                ),
                kind => what_to_do(kind),
            };
            proof(report, authentic.verified()).line("what to do", what_to_do)
        }
        Err(_) => diagnosis(report, body, &signature, &keys),
    }
}

/// Adds which key verified the request, and in which form.
fn proof(report: Report, verified: Verified) -> Report {
    let meaning = match verified.form() {
        Form::Raw => "the bytes of the body were signed",
        Form::Canonical => "the canonical form of the body was signed, not its bytes",
    };
    report
        .line("key", verified.key().as_str())
        .line("form", verified.form().as_str())
        .meaning(meaning)
}

/// Adds the cause of a wrong signature.
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
        .meaning("fingerprints; `inngest-auth fingerprint` prints the sender's, given its key");
    let Some(cause) = diagnose(body, signature, keys) else {
        return report.line("cause", "unknown").line(
            "what to do",
            "compare the fingerprint of the sender's key; if it is the same, a proxy changed the \
             body, or the file does not contain exactly what was received",
        );
    };
    report
        .line("cause", cause.as_str())
        .line("proved", cause.is_proved())
        .meaning(if cause.is_proved() {
            "an HMAC matches under this assumption, so a holder of the key made the signature"
        } else {
            "suspected only: anyone can send a request that looks like this"
        })
        .line("what to do", cause.to_string())
}

/// Returns what to do about a rejection whose cause is not a wrong signature.
fn what_to_do(kind: RejectionKind) -> Option<&'static str> {
    Some(match kind {
        RejectionKind::Missing => {
            "look for a proxy that removes the header: Inngest signs its calls; a dev server does \
             not, and neither does a sync by curl"
        }
        RejectionKind::Doubled => {
            "look for a proxy that adds a second header, or joins two headers into one"
        }
        RejectionKind::Malformed => {
            "look for a script or a proxy that makes this header: Inngest does not send one like it"
        }
        RejectionKind::Stale => {
            "compare the clocks; look for a queue in front of the app; a replayed request looks \
             the same"
        }
        RejectionKind::Future => "compare the clocks",
        RejectionKind::BodyTooLarge => {
            "check the client: Inngest sends at most 4 MiB, which is below the default limit"
        }
        _ => return None,
    })
}

/// Parses a captured request. Returns all values of its signature header, and its body.
fn parse(request: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    let read = head
        .parse(request)
        .map_err(|error| format!("not an HTTP/1 request: {error}"))?;
    let httparse::Status::Complete(length) = read else {
        return Err("incomplete request: expected an empty line after the headers".into());
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
            "the body is in chunks: give the decoded body only, and its signature with --signature"
                .into(),
        );
    }
    let announced = value("content-length")
        .next()
        .and_then(|text| str::from_utf8(text).ok()?.trim().parse().ok());
    let body = match announced {
        // An editor may have added bytes after the body.
        Some(length) => body
            .get(..length)
            .ok_or("the body is shorter than its Content-Length")?,
        None => body,
    };
    Ok((value(SIGNATURE_HEADER).collect(), body))
}
