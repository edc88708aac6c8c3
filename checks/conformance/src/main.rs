//! Runs the official runner's cases. See `README.md`.

#[path = "../../../examples/serve/app.rs"]
#[expect(dead_code, reason = "the example's own function")]
mod app;
mod bench;
mod cases;
mod condition;
mod functions;
mod pasted;
#[path = "../../../examples/serve/register.rs"]
mod register;
mod server;
#[path = "../../../examples/serve/url.rs"]
mod url;

use std::process::ExitCode;

use inngest_auth::{Config, InngestAuth};

use bench::{Bench, Mode};
use cases::CASES;
use server::Outcome;

const MODES: [(&str, Mode); 3] = [
    ("cloud", Mode::Cloud),
    ("rotation", Mode::Rotation),
    ("dev", Mode::Dev),
];

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => table().await,
        ["--serve"] => serve().await,
        _ => Err("usage: run [--serve]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn table() -> Outcome {
    let mut failures = Vec::new();
    println!(
        "{:<24}{}",
        "case",
        MODES.map(|(name, _)| format!("{name:<10}")).concat()
    );
    for case in CASES {
        print!("{case:<24}");
        for (name, mode) in MODES {
            let verdict = if cases::applies(case, mode) {
                match cases::run(case, &Bench::start(mode).await?).await {
                    Ok(()) => "passed",
                    Err(problem) => {
                        failures.push(format!("{case}, {name}: {problem}"));
                        "FAILED"
                    }
                }
            } else {
                "-"
            };
            print!("{verdict:<10}");
        }
        println!();
    }
    let verdict = match pasted::run().await {
        Ok(()) => "passed",
        Err(problem) => {
            failures.push(format!("the README's app: {problem}"));
            "FAILED"
        }
    };
    println!("{:<24}{verdict}", "the README's app");
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("\n"))
}

/// Serves the app for the official runner, with the environment's configuration.
async fn serve() -> Outcome {
    let config = Config::from_env().map_err(|error| error.to_string())?;
    let (listener, serve) = bench::listen("127.0.0.1:3000")
        .await
        .map_err(|error| error.to_string())?;
    println!("{}", serve.listening);
    let app = bench::router(InngestAuth::from_config(&config), &config, serve);
    axum::serve(listener, app)
        .await
        .map_err(|error| error.to_string())
}
