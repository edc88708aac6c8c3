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
/// Keys come from `INNGEST_SIGNING_KEY` and `INNGEST_SIGNING_KEY_FALLBACK`, from the files that
/// these names with `_FILE` say, or from standard input, and are never printed. Exit code: 0 for
/// yes, 1 for no, 2 if the question could not be understood.
#[derive(Parser)]
#[command(name = "inngest-auth", version)]
struct Cli {
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
    /// Read the key from standard input, in place of the environment. A second line has the
    /// fallback key.
    #[arg(long, global = true)]
    keys_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says what the environment's configuration is, or what is wrong with it.
    Check,
    /// Prints the fingerprints of the keys.
    Fingerprint,
    /// Signs a body and prints the curl command that sends it.
    Sign(sign::Args),
    /// Says whether a captured request is genuine, and if not, why.
    Explain(explain::Args),
}

fn main() -> ExitCode {
    // What the configuration warns of.
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
        (input::config()?, Stdin::HasKeys)
    } else {
        (Config::from_env(), Stdin::HasBody)
    };
    match &cli.command {
        Command::Check => Ok(check::run(config)),
        Command::Fingerprint => fingerprint::run(&config?),
        Command::Sign(args) => sign::run(args, &config?, stdin),
        Command::Explain(args) => explain::run(args, &config?, stdin),
    }
}
