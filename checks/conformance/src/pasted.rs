//! Builds the app that the README says to paste, word for word, and drives it to a completed call.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use inngest_auth::testing::TestClock;
use inngest_auth::{Clock, SigningKey, SystemClock};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::server::{Outcome, Sender};

const KEY: &str = "signkey-test-12345678";

pub(crate) async fn run() -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("../../README.md")).map_err(told)?;
    let section = between(&readme, "## Adopt it\n", "\n## ")?;
    // The README's port may be in use.
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .map_err(told)?;
    let source = between(section, "```rust,no_run\n", "\n```")?
        .replace("127.0.0.1:3000", &address.to_string());
    let built = build(root, section, &source).await?;

    let mut app = Command::new(built)
        .env_clear()
        .env("INNGEST_SIGNING_KEY", KEY)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(told)?;
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = app.try_wait().map_err(told)? {
            return Err(format!("it ended with {status}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let now = SystemClock.now().ok_or("no time")?;
    let key: SigningKey = KEY.parse().map_err(told)?;
    let sender = Sender::new(Some(key), TestClock::at(now));
    let url = format!("http://{address}/api/inngest?fnId=my-app-hello&stepId=step");
    let response = sender.send("POST", &url, &[], b"{}").await?;
    if !response.completes() {
        return Err(format!(
            "{} {:?} completes no run",
            response.status, response.headers
        ));
    }
    let response = sender.send_as_is("POST", &url, &[], None, b"{}").await?;
    if response.status != 401 {
        return Err(format!(
            "the response to an unsigned call has status {}",
            response.status
        ));
    }
    Ok(())
}

/// Creates the package with the section's `cargo add` commands.
async fn build(root: &Path, section: &str, source: &str) -> Outcome<PathBuf> {
    let package = root.join("target/pasted");
    fs::create_dir_all(package.join("src")).map_err(told)?;
    let mut manifest = String::from(
        "[package]\nname = \"my-app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n[dependencies]\n",
    );
    for line in section
        .lines()
        .filter_map(|line| line.strip_prefix("cargo add "))
    {
        let line = line.split('#').next().unwrap_or_default();
        let (names, features) = line.split_once("--features").unwrap_or((line, ""));
        let features: Vec<_> = features
            .split(',')
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        for name in names.split_whitespace() {
            let place = if name == "inngest-auth" {
                "path = \"../../../..\""
            } else {
                "version = \"*\""
            };
            writeln!(manifest, "{name} = {{ {place}, features = {features:?} }}")
                .expect("it is text");
        }
    }
    fs::write(package.join("Cargo.toml"), manifest).map_err(told)?;
    fs::write(package.join("src/main.rs"), source).map_err(told)?;
    let target = std::env::current_exe().map_err(told)?;
    let target = target
        .ancestors()
        .nth(2)
        .ok_or("this program is not in a target directory")?;
    // The same versions as here, so that few are built twice.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).map_err(told)?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--target-dir"])
        .arg(target)
        .current_dir(&package)
        .status()
        .await
        .map_err(told)?;
    if !built.success() {
        return Err("it does not build".into());
    }
    Ok(target.join("debug/my-app"))
}

fn between<'text>(text: &'text str, opening: &str, closing: &str) -> Outcome<&'text str> {
    let rest = text.split_once(opening).map(|(_, rest)| rest);
    let found = rest.and_then(|rest| rest.split_once(closing));
    found
        .map(|(found, _)| found)
        .ok_or_else(|| format!("the README has no {opening:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn told(error: impl ToString) -> String {
    error.to_string()
}
