//! Signs a body as Inngest does, and prints the `curl` command that sends it.
//!
//! ```text
//! export INNGEST_SIGNING_KEY=signkey-test-12345678        # the key that the server has
//! cargo run --example sign -- '{"hello":"world"}'         # a body
//! cargo run --example sign -- @body.json                  # a file
//! cargo run --example sign < body.json                    # standard input
//! cargo run --example sign -- --url http://127.0.0.1:3001/api/inngest --fallback '{}'
//! ```
//!
//! Run the printed command: 200. Change a byte of the body and run it again: 401. The signature is
//! valid for five minutes.

use std::error::Error;
use std::io::Read;
use std::process::ExitCode;

use inngest_auth::{Clock, Config, SIGNATURE_HEADER, SystemClock};

const USAGE: &str =
    "usage: sign [--url URL] [--fallback] [BODY | @FILE]    (neither: standard input)";
/// Bodies of up to this many bytes are printed. Shells and systems limit the length of a command.
const PRINTABLE: usize = 64 * 1024;

fn main() -> ExitCode {
    match command(std::env::args().skip(1)) {
        Ok(command) => {
            println!("{command}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: impl Iterator<Item = String>) -> Result<String, Box<dyn Error>> {
    let args = Args::parse(args)?;
    let config = Config::from_env()?;
    let keys = config
        .keys()
        .ok_or("INNGEST_DEV is set: there is nothing to sign with. Unset it")?
        .snapshot();
    let key = if args.fallback {
        keys.fallback()
            .ok_or("There is no fallback: set INNGEST_SIGNING_KEY_FALLBACK to another key than INNGEST_SIGNING_KEY")?
    } else {
        keys.current()
    };
    let (body, sent_from) = args.body()?;
    let now = SystemClock
        .now()
        .ok_or("The system's clock cannot tell the time")?;
    Ok(format!(
        "curl -i {} -H {} -H 'Content-Type: application/json' --data-binary {}",
        quoted(&args.url),
        quoted(&format!("{SIGNATURE_HEADER}: {}", key.sign(&body, now))),
        quoted(&sent_from),
    ))
}

struct Args {
    url: String,
    fallback: bool,
    body: Option<String>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, &'static str> {
        let mut parsed = Self {
            url: "http://127.0.0.1:3000/api/inngest?fnId=demo&stepId=step".into(),
            fallback: false,
            body: None,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--url" => parsed.url = args.next().ok_or(USAGE)?,
                "--fallback" => parsed.fallback = true,
                option if option.starts_with("--") => return Err(USAGE),
                _ if parsed.body.is_some() => return Err(USAGE),
                _ => parsed.body = Some(arg),
            }
        }
        Ok(parsed)
    }

    /// Returns the bytes to sign, and the argument with which `curl` sends them.
    fn body(&self) -> Result<(Vec<u8>, String), Box<dyn Error>> {
        let Some(body) = &self.body else {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            return Ok(match str::from_utf8(&body) {
                Ok(text) if fits_a_command_line(text) => (body.clone(), text.to_owned()),
                _ => {
                    eprintln!(
                        "This body fits no command line: give `curl` the same standard input again."
                    );
                    (body, "@-".into())
                }
            });
        };
        match body.strip_prefix('@') {
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
                Ok((bytes, body.clone()))
            }
            None => Ok((body.clone().into(), body.clone())),
        }
    }
}

/// Returns `false` if the text begins with `@`, which makes `curl` read a file, or contains a NUL,
/// which ends a command line.
fn fits_a_command_line(text: &str) -> bool {
    text.len() <= PRINTABLE && !text.starts_with('@') && !text.contains('\0')
}

/// Quotes the text as one word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
