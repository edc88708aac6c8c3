//! `inngest-auth sign`: prints a curl command that sends a signed body.

use inngest_auth::{Clock, Config, SIGNATURE_HEADER, SystemClock};

use crate::input::{self, Stdin};
use crate::report::{Failure, Report};

/// The maximum size of a body in the printed command, in bytes. Systems limit a command's length.
const PRINTABLE: usize = 64 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The URL to send the body to.
    #[arg(
        long,
        default_value = "http://127.0.0.1:3000/api/inngest?fnId=demo&stepId=step"
    )]
    url: String,
    /// The request's method, which is not signed.
    #[arg(long, default_value = "POST")]
    method: String,
    /// Sign with the fallback key.
    #[arg(long)]
    fallback: bool,
    /// The signature's time, in Unix seconds (default: now).
    #[arg(long)]
    at: Option<u64>,
    /// The body, or @FILE (default: standard input).
    body: Option<String>,
}

pub(crate) fn run(args: &Args, config: &Config, stdin: Stdin) -> Result<Report, Failure> {
    let keys = config
        .keys()
        .ok_or("INNGEST_DEV is set, so no key is read; unset it")?
        .snapshot();
    let key = if args.fallback {
        keys.fallback()
            .ok_or("there is no fallback key; set INNGEST_SIGNING_KEY_FALLBACK")?
    } else {
        keys.current()
    };
    let body = input::bytes(args.body.as_deref(), stdin)?;
    let at = args
        .at
        .or_else(|| SystemClock.now())
        .ok_or("failed to read the system's clock; give the time with --at")?;
    let signature = key.sign(&body, at).to_string();
    let data = match (&args.body, str::from_utf8(&body)) {
        (Some(argument), _) => argument,
        (None, Ok(text)) if fits_a_command_line(text) => text,
        // The body came from standard input and does not fit: pipe it into curl too.
        (None, _) => "@-",
    };
    let method = if args.method == "POST" {
        String::new()
    } else {
        format!(" -X {}", quoted(&args.method))
    };
    let command = format!(
        "curl -i{method} {} -H {} -H 'Content-Type: application/json' --data-binary {}",
        quoted(&args.url),
        quoted(&format!("{SIGNATURE_HEADER}: {signature}")),
        quoted(data),
    );
    Ok(Report::new(true)
        .line("curl", command.clone())
        .line("signature", signature)
        .line("key", key.fingerprint().to_string())
        .text(command))
}

/// Returns `true` if a shell and curl pass the text on unchanged. curl reads a file if the text
/// begins with `@`, and an argument cannot contain a NUL.
fn fits_a_command_line(text: &str) -> bool {
    text.len() <= PRINTABLE && !text.starts_with('@') && !text.contains('\0')
}

/// Quotes a text as one word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
