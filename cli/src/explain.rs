//! `inngest-auth explain`

use inngest_auth::{
    Clock, Config, KeyRing, Keys, Rejection, SIGNATURE_HEADER, Signature, SystemClock, Tolerance,
    Verified, Verifier, diagnose, verify,
};

use crate::input;
use crate::report::{Failure, Report};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// When the request came, in Unix seconds (default: now).
    #[arg(long)]
    at: Option<u64>,
    /// The request's signature header. The file is then its body alone.
    #[arg(long)]
    signature: Option<String>,
    /// A file with the request as it was received: head, empty line, body (default: standard input).
    file: Option<String>,
}

/// The time that a request is judged by.
struct At(u64);

impl Clock for At {
    fn now(&self) -> Option<u64> {
        Some(self.0)
    }
}

pub(crate) fn run(args: &Args) -> Result<Report, Failure> {
    let config = Config::from_env()?;
    let ring = config
        .keys()
        .ok_or("INNGEST_DEV is set, so nothing is verified; unset it")?;
    let bytes = match &args.file {
        Some(path) => input::file(path)?,
        None => input::bytes(None)?,
    };
    let (signatures, body) = match &args.signature {
        Some(signature) => (vec![signature.as_bytes()], &bytes[..]),
        None => parse(&bytes)?,
    };
    let at = args
        .at
        .or_else(|| SystemClock.now())
        .ok_or("the system's clock cannot tell the time")?;
    Ok(explain(ring, &signatures, body, at))
}

fn explain(ring: &KeyRing, signatures: &[&[u8]], body: &[u8], at: u64) -> Report {
    let verdict = Verifier::new(ring.clone())
        .clock(At(at))
        .verify(signatures.iter().copied(), body);
    let rejection = match verdict {
        Ok((authentic, _)) => {
            return proof(
                Report::new(true).line("verdict", "verified"),
                authentic.verified(),
            );
        }
        Err(rejection) => rejection,
    };
    let keys = ring.snapshot();
    let report = Report::new(false)
        .line("verdict", "rejected")
        .line("kind", rejection.kind().as_str())
        .line("status", rejection.kind().status())
        .line("reason", rejection.to_string())
        .line("age in seconds", rejection.age())
        .line("keys tried", tried(&rejection));
    let [Ok(signature)] = signatures
        .iter()
        .map(|header| Signature::parse(header))
        .collect::<Vec<_>>()[..]
    else {
        return report;
    };
    // At its own time no signature is stale: is it genuine otherwise?
    match verify(
        body,
        &signature,
        &keys,
        signature.signed_at(),
        Tolerance::default(),
    ) {
        Ok(authentic) => proof(report.line("signature", "genuine"), authentic.verified()),
        Err(_) => diagnosis(report.line("signature", "wrong"), body, &signature, &keys),
    }
}

fn proof(report: Report, verified: Verified) -> Report {
    report
        .line("key", verified.key().as_str())
        .line("form", verified.form().as_str())
        .line("signed at", verified.signed_at())
}

fn diagnosis(report: Report, body: &[u8], signature: &Signature, keys: &Keys) -> Report {
    let Some(cause) = diagnose(body, signature, keys) else {
        return report.line(
            "cause",
            "not found: the key is another one, or something changed the body on its way",
        );
    };
    report
        .line("cause", cause.as_str())
        .line("proved", cause.is_proved())
        .line("what to do", cause.to_string())
}

fn tried(rejection: &Rejection) -> Option<String> {
    let tried: Vec<_> = rejection.keys_tried().map(|key| key.to_string()).collect();
    (!tried.is_empty()).then(|| tried.join(" "))
}

/// Takes a captured request apart: all values of its signature header, and its body.
fn parse(request: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    let read = head
        .parse(request)
        .map_err(|error| format!("the file is no HTTP/1 request: {error}"))?;
    let httparse::Status::Complete(length) = read else {
        return Err(
            "the file ends inside of the request's head: an empty line must follow it".into(),
        );
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
