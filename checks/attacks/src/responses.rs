//! What clients without a key learn, and what is logged: `statuses`, `tells`, `logs`.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use inngest_auth::{SIGNATURE_HEADER, SigningKey};
use tokio::time::Sleep;

use crate::Run;
use crate::genuine::{now, runtime};
use crate::memory::MIB;
use crate::process::Server;
use crate::server::{KEY, Options};
use crate::table::{Beside, Limit, Table};
use crate::wire::{End, PATH, connect, forged, head, hear, stale};

/// Checks that a client sees the status of a rejection by headers, over HTTP/2.
pub(crate) fn statuses(run: Run, table: &mut Table) {
    let server = Server::start(Options::default());
    let tries = 30;
    let sizes: &[usize] = if run.short { &[2000] } else { &[2000, 60_000] };
    for &size in sizes {
        for (name, signature) in [("unsigned", None), ("stale", Some(stale()))] {
            for delay in [Duration::ZERO, Duration::from_millis(100)] {
                let what = format!("{name}, body of {size} B after {} ms", delay.as_millis());
                let signature = signature.as_deref();
                let seen = curl(table, server.address(), signature, size, delay, tries);
                let seen = 100.0 * seen as f64 / tries as f64;
                table.row(
                    &format!("curl, {what}: sees 401"),
                    seen,
                    "%",
                    &Limit::AtLeast(100.0),
                );
                let seen = runtime().block_on(async {
                    let mut seen = 0;
                    for _ in 0..tries {
                        let status = hyper(server.address(), signature, size, delay).await;
                        seen += usize::from(status == Some(401));
                    }
                    seen
                });
                let seen = 100.0 * seen as f64 / tries as f64;
                table.row(
                    &format!("hyper, {what}: sees 401"),
                    seen,
                    "%",
                    &Limit::AtLeast(100.0),
                );
            }
        }
    }
}

/// Returns how many of `tries` runs of curl print 401.
fn curl(
    table: &Table,
    server: SocketAddr,
    signature: Option<&str>,
    size: usize,
    delay: Duration,
    tries: usize,
) -> usize {
    let mut seen = 0;
    for _ in 0..tries {
        let start = Instant::now();
        let mut command = Command::new("curl");
        command.args(["-sS", "--http2-prior-knowledge", "-X", "POST", "-T", "-"]);
        command.args(["-o", "/dev/null", "-w", "%{http_code} %{exitcode}"]);
        command.args(["--max-time", "10", "-H", "Expect:"]);
        if let Some(signature) = signature {
            command.args(["-H", &format!("{SIGNATURE_HEADER}: {signature}")]);
        }
        command.arg(format!("http://{server}{PATH}"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("curl is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::thread::sleep(delay);
        // The command may already have its response and have ended.
        let _ = stdin.write_all(&vec![b'x'; size]);
        drop(stdin);
        let output = child.wait_with_output().expect("curl ends");
        if output.stdout == b"401 0" {
            seen += 1;
        } else {
            let (out, err) = (output.stdout, output.stderr);
            table.note(&format!(
                "curl after {:.1} s: {} {}",
                start.elapsed().as_secs_f64(),
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&err).trim(),
            ));
        }
    }
    seen
}

/// A body that arrives late.
struct Late {
    delay: Pin<Box<Sleep>>,
    data: Option<Bytes>,
}

impl Body for Late {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::ready!(self.delay.as_mut().poll(cx));
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

async fn hyper(
    server: SocketAddr,
    signature: Option<&str>,
    size: usize,
    delay: Duration,
) -> Option<u16> {
    let socket = tokio::net::TcpStream::connect(server).await.ok()?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .ok()?;
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://127.0.0.1{PATH}"));
    if let Some(signature) = signature {
        request = request.header(SIGNATURE_HEADER, signature);
    }
    let body = Late {
        delay: Box::pin(tokio::time::sleep(delay)),
        data: Some(vec![b'x'; size].into()),
    };
    let response = sender
        .send_request(request.body(body).expect("a request"))
        .await
        .ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    Some(status)
}

/// The response on a connection, and whether the connection accepts another request.
#[derive(Debug, PartialEq)]
struct Told {
    response: String,
    goes_on: bool,
}

impl Told {
    /// Returns the lines that `other` does not have.
    fn against(&self, other: &Self) -> String {
        let new = self
            .response
            .lines()
            .filter(|&line| !other.response.lines().any(|l| l == line));
        let new = new.collect::<Vec<_>>().join(", ");
        format!("[{new}], the connection goes on: {}", self.goes_on)
    }
}

/// Returns the head of the response without its date, and its body.
fn response(heard: &[u8]) -> String {
    let text = String::from_utf8_lossy(heard);
    let (fields, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let lines = fields.lines().filter(|line| !line.starts_with("date:"));
    lines.collect::<Vec<_>>().join("\n") + "\n\n" + body
}

fn tell(server: SocketAddr, signatures: &[String], body: &[u8], chunked: bool) -> Told {
    let mut socket = connect(server);
    let length = body.len().to_string();
    let mut more: Vec<_> = signatures
        .iter()
        .map(|s| (SIGNATURE_HEADER, &**s))
        .collect();
    if chunked {
        more.push(("Transfer-Encoding", "chunked"));
    } else {
        more.push(("Content-Length", &length));
    }
    let mut request = head(None, &more);
    if chunked {
        // A chunk of no bytes would be the last one.
        if !body.is_empty() {
            request.extend(format!("{:x}\r\n", body.len()).as_bytes());
            request.extend(body);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
    } else {
        request.extend(body);
    }
    let _ = socket.write_all(&request);
    let (heard, end) = hear(&mut socket, Duration::from_millis(300));
    Told {
        response: response(&heard),
        goes_on: end == End::Open && again(&mut socket),
    }
}

/// Returns `true` if a second request on the connection gets a response.
fn again(socket: &mut TcpStream) -> bool {
    let _ = socket.write_all(&head(None, &[("Content-Length", "0")]));
    hear(socket, Duration::from_millis(300))
        .0
        .starts_with(b"HTTP/1.1 401 ")
}

pub(crate) fn tells(run: Run, table: &mut Table) {
    let server = Server::start(Options::default());
    let kinds = || {
        [
            ("a wrong signature", vec![forged()]),
            ("a stale one", vec![stale()]),
            (
                "one of the future",
                vec![format!("t=9999999999&s={}", "0".repeat(64))],
            ),
            ("none", vec![]),
            ("two", vec![forged(), forged()]),
            ("a malformed one", vec![String::from("lol")]),
        ]
    };
    let sizes = if run.short {
        &[100, MIB][..]
    } else {
        &[0, 100, 70_000, MIB]
    };
    for &size in sizes {
        for chunked in [false, true] {
            let body = vec![b'x'; size];
            let told = kinds().map(|(name, signatures)| {
                (name, tell(server.address(), &signatures, &body, chunked))
            });
            let framing = if chunked {
                "chunked"
            } else {
                "of known length"
            };
            let different: Vec<_> = told
                .iter()
                .filter(|(_, other)| *other != told[0].1)
                .collect();
            table.row(
                &format!("kinds told from a wrong signature, {size} B {framing}"),
                different.len() as f64,
                "",
                &Limit::AtMost(0.0),
            );
            for (name, other) in different {
                table.note(&format!("{name}: {}", other.against(&told[0].1)));
            }
            let closed = told.iter().filter(|(_, told)| !told.goes_on);
            table.row(
                &format!("rejections that end the connection, {size} B {framing}"),
                closed.count() as f64,
                "",
                // A request that was read to its end leaves the connection usable.
                &Limit::AtMost(0.0),
            );
        }
    }
    lengths(&server, table);
}

/// Sends invalid lengths in genuine calls. They must be rejected by the server, or forwarded as the
/// true length.
fn lengths(server: &Server, table: &mut Table) {
    let key: SigningKey = KEY.parse().expect("a key");
    for lengths in [
        &["+2"][..],
        &["2,2"],
        &["2", "2"],
        &[" 2"],
        &["02"],
        &["1,1"],
        &["2", "3"],
    ] {
        let signature = key.sign(b"{}", now()).to_string();
        let mut socket = connect(server.address());
        let more: Vec<_> = lengths
            .iter()
            .map(|length| ("Content-Length", *length))
            .collect();
        let mut request = head(Some(&signature), &more);
        request.extend(b"{}");
        let _ = socket.write_all(&request);
        let heard = response(&hear(&mut socket, Duration::from_millis(300)).0);
        let right = heard.starts_with("HTTP/1.1 400")
            || heard.starts_with("HTTP/1.1 200") && heard.ends_with("\n\n2 2");
        table.row(
            &format!("HTTP/1 Content-Length {lengths:?}, forwarded wrongly"),
            f64::from(u8::from(!right)),
            "",
            &Limit::AtMost(0.0),
        );
        if !right {
            table.note(&format!("{heard:?}"));
        }
    }
}

pub(crate) fn logs(_: Run, table: &mut Table) {
    let server = Server::start(Options::default());
    let send = |signatures: &[String], more: &[(&str, &str)]| {
        let mut socket = connect(server.address());
        let mut all: Vec<_> = signatures
            .iter()
            .map(|s| (SIGNATURE_HEADER, &**s))
            .collect();
        all.extend_from_slice(more);
        let mut request = head(None, &all);
        request.extend(b"{}");
        let _ = socket.write_all(&request);
        hear(&mut socket, Duration::from_secs(5));
    };
    let encoding = "x\u{e9}".repeat(130_000);
    let length = [("Content-Length", "2"), ("Connection", "close")];
    let before = server.log();
    send(
        &[forged()],
        &[&[("Content-Encoding", &*encoding)], &length[..]].concat(),
    );
    let after = server.log();
    table.row(
        "one Content-Encoding of 390 KB: log",
        (after.bytes - before.bytes) as f64 / 1024.0,
        "KiB",
        &Limit::AtMost(2.0),
    );
    // What genuine calls log is included.
    let logged = table.beside("300 of each", &server, Beside::default(), || {
        [
            ("stale", vec![stale()], &length[..]),
            ("wrong", vec![forged()], &length),
            (
                "too large",
                vec![forged()],
                &[("Content-Length", "999999999")],
            ),
            ("malformed", vec![String::from("lol")], &length),
            ("unsigned", vec![], &length),
        ]
        .map(|(name, signatures, more)| {
            let before = server.log();
            for _ in 0..300 {
                send(&signatures, more);
            }
            let after = server.log();
            let (lines, bytes) = (after.lines - before.lines, after.bytes - before.bytes);
            (name, lines, bytes)
        })
    });
    for (name, lines, bytes) in logged {
        table.row(
            &format!("300 {name} requests: log"),
            lines as f64,
            "lines",
            &Limit::AtMost(20.0),
        );
        table.note(&format!("{bytes} bytes"));
    }
}
