//! The tour that `serve` gives if nothing is configured: it sends itself five requests and prints
//! the responses.
//!
//! It generates keys. An example may do that; the library never does.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use inngest_auth::{Clock, Config, ConfigError, SigningKey, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TARGET: &str = "/api/inngest?fnId=demo&stepId=step";
const BODY: &str = r#"{"event":{"name":"demo/hello"}}"#;
const TAMPERED: &str = r#"{"event":{"name":"demo/hullo"}}"#;

const GREEN: u8 = 32;
const RED: u8 = 31;

/// The two generated keys of a tour.
pub(crate) struct Tour {
    current: String,
    fallback: String,
}

impl Tour {
    /// Returns `None` if any `INNGEST_…` variable is set, even a misspelt one.
    pub(crate) fn if_unconfigured() -> Option<Self> {
        let configured =
            std::env::vars_os().any(|(name, _)| name.to_string_lossy().contains("INNGEST_"));
        if configured {
            return None;
        }
        Some(Self {
            current: generate_key(),
            fallback: generate_key(),
        })
    }

    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        Config::from_vars([
            ("INNGEST_SIGNING_KEY", &self.current),
            ("INNGEST_SIGNING_KEY_FALLBACK", &self.fallback),
        ])
    }

    /// Calls this server over its socket, and prints the responses and what to try next.
    pub(crate) async fn show(self, server: SocketAddr, urls: String, log: HeldLog) {
        match self.verdicts(server).await {
            Ok(table) => println!("{table}"),
            Err(error) => println!("the tour failed to call its own server: {error}"),
        }
        log.release();
        println!("\n{urls}\n{}", self.what_next(server));
    }

    async fn verdicts(&self, server: SocketAddr) -> io::Result<String> {
        let now = now();
        let signed = |key: &str, at| Some(sign(key, at));
        let (current, fallback) = (signed(&self.current, now), signed(&self.fallback, now));
        let calls = [
            (
                "genuine",
                "signed with the current key",
                BODY,
                current.clone(),
            ),
            ("fallback", "signed with the fallback key", BODY, fallback),
            ("tampered", "changed after it was signed", TAMPERED, current),
            (
                "stale",
                "signed ten minutes ago",
                BODY,
                signed(&self.current, now.saturating_sub(600)),
            ),
            ("unsigned", "no X-Inngest-Signature", BODY, None),
        ];
        let mut lines = vec![
            "This run uses two generated keys. Five calls to this server, over its socket:\n"
                .to_owned(),
        ];
        for (name, what, body, signature) in calls {
            let reply = call(server, body, signature.as_deref()).await?;
            lines.push(format!("  {name:<8}  {what:<40}  {}", reply.verdict()));
        }
        lines.push(
            "\nThe last three must be rejected. Their client learns only the 401; the log says \
             why:\n"
                .into(),
        );
        Ok(lines.join("\n"))
    }

    fn what_next(&self, server: SocketAddr) -> String {
        let signature = sign(&self.current, now());
        format!(
            "\
Try it yourself. This call is valid for five minutes. If you change its body, it is rejected:

  curl -i 'http://{}{TARGET}' -H 'X-Inngest-Signature: {signature}' --data-binary '{BODY}'

With your own key, and calls that you sign (in another terminal, with the same key):

  INNGEST_SIGNING_KEY=signkey-test-12345678 cargo run --example serve
  INNGEST_SIGNING_KEY=signkey-test-12345678 \\
    cargo run --manifest-path cli/Cargo.toml -- sign '{{\"hello\":\"world\"}}'

INNGEST_DEV=1 instead of a key accepts every request, for use with the dev server. Ctrl-C stops.",
            reachable(server)
        )
    }
}

/// Generates a key of 128 random bits from the standard library's hash seeds. This is good enough
/// for a demonstration only.
fn generate_key() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("signkey-demo-{:016x}{:016x}", random(), random())
}

fn sign(key: &str, at: u64) -> String {
    let key: Result<SigningKey, _> = key.parse();
    key.map_or_else(
        |error| error.to_string(),
        |key| key.sign(BODY.as_bytes(), at).to_string(),
    )
}

fn now() -> u64 {
    SystemClock.now().unwrap_or_default()
}

/// Replaces an unspecified address (`0.0.0.0`), which is for listening only, by loopback.
pub(crate) fn reachable(mut server: SocketAddr) -> SocketAddr {
    if server.ip().is_unspecified() {
        server.set_ip(match server.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    server
}

/// A response, as far as the tour reads it.
struct Reply {
    status: String,
    body: String,
}

impl Reply {
    /// Returns the status, and the key or the message in the body.
    fn verdict(&self) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let (colour, word) = match json["key"].as_str() {
            Some(key) => (GREEN, format!("verified with the {key} key")),
            None => (RED, json["message"].as_str().unwrap_or("?").to_owned()),
        };
        let status = &self.status;
        if io::stdout().is_terminal() {
            format!("\x1b[{colour}m{status}\x1b[0m {word}")
        } else {
            format!("{status} {word}")
        }
    }
}

/// Sends a request and reads the response until the server closes the connection.
async fn call(server: SocketAddr, body: &str, signature: Option<&str>) -> io::Result<Reply> {
    let signature = signature.map_or_else(String::new, |value| {
        format!("X-Inngest-Signature: {value}\r\n")
    });
    let request = format!(
        "POST {TARGET} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Length: {}\r\n{signature}\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(reachable(server)).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await?;
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Reply {
        status: status.into(),
        body: body.into(),
    })
}

/// A writer to standard error that holds its lines until they are released.
#[derive(Clone)]
pub(crate) struct HeldLog(Arc<Mutex<Option<Vec<u8>>>>);

impl HeldLog {
    pub(crate) fn new(held: bool) -> Self {
        Self(Arc::new(Mutex::new(held.then(Vec::new))))
    }

    /// Writes the lines held so far. Later lines are written at once.
    pub(crate) fn release(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // If this fails, there is nowhere to report it.
        let _ = io::stderr().write_all(&held.unwrap_or_default());
    }
}

impl Write for HeldLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => held.extend_from_slice(line),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
