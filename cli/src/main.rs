//! Signs requests as Inngest does, and explains why one was rejected.

mod check;
mod explain;
mod fingerprint;
mod input;
mod report;
mod sign;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inngest_auth::Config;

use input::Stdin;
use report::{Failure, Report};

/// Signs requests as Inngest does, and explains why one was rejected.
///
/// Reads keys from INNGEST_SIGNING_KEY and INNGEST_SIGNING_KEY_FALLBACK, from the files named by
/// INNGEST_SIGNING_KEY_FILE and INNGEST_SIGNING_KEY_FALLBACK_FILE, or from standard input. Never
/// prints a key. Exits with 0 for yes, 1 for no, and 2 on a usage or input error.
#[expect(clippy::doc_markdown, reason = "clap would print backticks")]
#[derive(Parser)]
#[command(name = "inngest-auth", version)]
struct Cli {
    /// Print the result as one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// Read the keys from standard input instead of the environment: the current key on the first
    /// line, the fallback key on the second.
    #[arg(long, global = true)]
    keys_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the environment's configuration.
    Check,
    /// Print the fingerprints of the keys.
    Fingerprint,
    /// Sign a body, and print a curl command that sends it.
    Sign(sign::Args),
    /// Verify a captured request, and explain why it is rejected.
    Explain(explain::Args),
}

fn main() -> ExitCode {
    // Shows the configuration's warnings.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) => report.print(cli.json),
        Err(Failure(problem)) => Report::new(false).line("error", problem).fail(cli.json),
    }
}

fn run(cli: &Cli) -> Result<Report, Failure> {
    let (config, stdin) = if cli.keys_stdin {
        (input::config()?, Stdin::Keys)
    } else {
        (Config::from_env(), Stdin::Body)
    };
    match &cli.command {
        Command::Check => Ok(check::run(config)),
        Command::Fingerprint => fingerprint::run(&config?),
        Command::Sign(args) => sign::run(args, &config?, stdin),
        Command::Explain(args) => explain::run(args, &config?, stdin),
    }
}
