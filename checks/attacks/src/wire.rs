//! The attackers' side of the wire: HTTP/1 and HTTP/2 written by hand on blocking sockets, because
//! no client library sends such requests. Every read and write has a time limit.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use inngest_auth::SIGNATURE_HEADER;

use crate::genuine::now;

pub(crate) const PATH: &str = "/api/inngest?fnId=attack&stepId=step";

/// Returns a header with a fresh `t` and a wrong `s`, which is all that a client without a key can
/// make.
pub(crate) fn forged() -> String {
    format!("t={}&s={}", now(), "0".repeat(64))
}

pub(crate) fn stale() -> String {
    format!("t={}&s={}", now() - 1000, "0".repeat(64))
}

pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).expect("the server takes connections");
    socket.set_nodelay(true).expect("an option of the socket");
    socket
        .set_write_timeout(Some(Duration::from_secs(30)))
        .expect("an option of the socket");
    socket
}

/// Returns the head of a `POST` over HTTP/1. `length` is written as given.
pub(crate) fn head(signature: Option<&str>, more: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    if let Some(signature) = signature {
        let _ = write!(head, "{SIGNATURE_HEADER}: {signature}\r\n");
    }
    for (name, value) in more {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// Returns what the peer sends within `patience`, or until the connection ends.
pub(crate) fn hear(socket: &mut TcpStream, patience: Duration) -> (Vec<u8>, End) {
    let deadline = Instant::now() + patience;
    let mut heard = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (heard, End::Open);
        }
        socket
            .set_read_timeout(Some(left))
            .expect("an option of the socket");
        match socket.read(&mut buffer) {
            Ok(0) => return (heard, End::Closed),
            Ok(len) => heard.extend_from_slice(&buffer[..len]),
            Err(error) if is_timeout(&error) => return (heard, End::Open),
            Err(_) => return (heard, End::Reset),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Open,
    Closed,
    Reset,
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends `piece` repeatedly until the peer ends the connection. Returns how long that took, or
/// `limit`.
pub(crate) fn flood(socket: &mut TcpStream, piece: &[u8], limit: Duration) -> Duration {
    let start = Instant::now();
    socket
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("an option of the socket");
    let mut at = 0;
    while start.elapsed() < limit {
        match socket.write(&piece[at..]) {
            Ok(len) => at = (at + len) % piece.len(),
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    start.elapsed()
}

/// An HTTP/2 connection with prior knowledge.
pub(crate) struct Http2 {
    socket: TcpStream,
    input: Vec<u8>,
    window: i64,
    initial: i64,
    streams: HashMap<u32, i64>,
    next: u32,
    /// Whether the peer's settings have arrived.
    greeted: bool,
    /// Whether the peer sent `GOAWAY`, or the connection ended.
    pub(crate) gone: bool,
    /// Whether the connection ended.
    pub(crate) ended: bool,
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// A frame type without a meaning, which the peer must ignore.
pub(crate) const UNKNOWN: u8 = 0xfa;
pub(crate) const FRAME: usize = 16 * 1024;

impl Http2 {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::over(connect(server), 65_535)
    }

    /// Begins HTTP/2 on a connection. The peer may send so many bytes on each stream.
    pub(crate) fn over(mut socket: TcpStream, window: u32) -> Self {
        socket.write_all(PREFACE).expect("a preface");
        let mut this = Self {
            socket,
            input: Vec::new(),
            window: 65_535,
            initial: 65_535,
            streams: HashMap::new(),
            next: 1,
            greeted: false,
            gone: false,
            ended: false,
        };
        // SETTINGS_INITIAL_WINDOW_SIZE
        let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
        this.frame(SETTINGS, 0, 0, &setting);
        let start = Instant::now();
        while !this.greeted && !this.gone && start.elapsed() < Duration::from_secs(5) {
            this.pump(Duration::from_millis(1));
        }
        this
    }

    /// Writes a frame, regardless of flow-control windows.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a frame");
        let mut frame = len.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        if self.socket.write_all(&frame).is_err() {
            self.gone = true;
        }
    }

    /// Opens a stream for a `POST` whose body follows.
    pub(crate) fn open(&mut self, signature: &str) -> u32 {
        self.open_with(&Block::post(Some(signature)))
    }

    /// Opens a stream with this header block. The body follows.
    pub(crate) fn open_with(&mut self, block: &Block) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.frame(HEADERS, END_HEADERS, stream, &block.0);
        self.streams.insert(stream, self.initial);
        stream
    }

    /// Sends the last bytes of each stream's body, whatever any window says.
    pub(crate) fn end(&mut self, streams: &[u32], last: &[u8]) {
        for &stream in streams {
            self.frame(DATA, END_STREAM, stream, last);
        }
    }

    /// Resets a stream, with the code `CANCEL`.
    pub(crate) fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        self.streams.remove(&stream);
    }

    /// Sends data as far as the windows allow, within `patience`. Returns how many bytes were sent.
    pub(crate) fn data(&mut self, stream: u32, mut data: &[u8], patience: Duration) -> usize {
        let (start, len) = (Instant::now(), data.len());
        while !data.is_empty() && !self.gone && start.elapsed() < patience {
            let Some(&window) = self.streams.get(&stream) else {
                break;
            };
            let room = usize::try_from(window.min(self.window)).unwrap_or(0);
            let size = room.min(FRAME).min(data.len());
            if size == 0 {
                self.pump(Duration::from_millis(5));
                continue;
            }
            self.frame(DATA, 0, stream, &data[..size]);
            data = &data[size..];
            self.window -= i64::try_from(size).expect("a frame");
            if let Some(window) = self.streams.get_mut(&stream) {
                *window -= i64::try_from(size).expect("a frame");
            }
            if self.readable() {
                self.pump(Duration::ZERO);
            }
        }
        len - data.len()
    }

    pub(crate) fn is_open(&self, stream: u32) -> bool {
        !self.gone && self.streams.contains_key(&stream)
    }

    fn readable(&mut self) -> bool {
        self.socket
            .set_nonblocking(true)
            .expect("an option of the socket");
        let readable = self.socket.peek(&mut [0]).is_ok();
        self.socket
            .set_nonblocking(false)
            .expect("an option of the socket");
        readable
    }

    /// Reads and obeys what the peer sends, for this long. Zero means only what has already
    /// arrived.
    pub(crate) fn pump(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 16 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("an option of the socket");
            match self.socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(len) => {
                    self.input.extend_from_slice(&buffer[..len]);
                    self.obey();
                }
                Err(error) if is_timeout(&error) => return,
                Err(_) => self.ended = true,
            }
            self.gone |= self.ended;
            if self.gone || left.is_zero() {
                return;
            }
        }
    }

    fn obey(&mut self) {
        while let Some((header, rest)) = self.input.split_at_checked(9) {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags) = (header[3], header[4]);
            let stream = number(&header[5..9]) & 0x7fff_ffff;
            let Some(payload) = rest.get(..len).map(<[u8]>::to_vec) else {
                return;
            };
            self.input.drain(..9 + len);
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    for setting in payload.chunks_exact(6) {
                        // SETTINGS_INITIAL_WINDOW_SIZE
                        if setting[..2] == [0, 4] {
                            self.initial = i64::from(number(&setting[2..]));
                        }
                    }
                    self.frame(SETTINGS, ACK, 0, &[]);
                    self.greeted = true;
                }
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload),
                WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(&payload)),
                WINDOW_UPDATE => {
                    if let Some(window) = self.streams.get_mut(&stream) {
                        *window += i64::from(number(&payload));
                    }
                }
                RST_STREAM => {
                    self.streams.remove(&stream);
                }
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    self.streams.remove(&stream);
                }
                GOAWAY => self.gone = true,
                _ => {}
            }
        }
    }
}

/// A header block (RFC 7541).
#[derive(Clone)]
pub(crate) struct Block(Vec<u8>);

impl Block {
    /// Returns the block of a `POST`.
    pub(crate) fn post(signature: Option<&str>) -> Self {
        let mut block = Self(Vec::new());
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "127.0.0.1"),
            (":path", PATH),
        ] {
            block.literal(NOT_INDEXED, name, value);
        }
        if let Some(signature) = signature {
            block.literal(NOT_INDEXED, SIGNATURE_HEADER, signature);
        }
        block
    }

    /// Adds fields that the peer remembers. Later blocks can repeat them: the last one is at 0, the
    /// one before it at 1.
    pub(crate) fn remember<'a>(&mut self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in fields {
            self.literal(INDEXED, name, value);
        }
    }

    /// Adds a field that the peer remembers, in one byte or two (section 6.1).
    pub(crate) fn repeat(&mut self, at: u8) {
        // After the static table, an integer with a prefix of seven bits.
        match 62 + at {
            index @ ..127 => self.0.push(0x80 | index),
            index => self.0.extend([0xff, index - 127]),
        }
    }

    fn literal(&mut self, kind: u8, name: &str, value: &str) {
        self.0.push(kind);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte holds the length");
            self.0.push(u8::try_from(text.len()).expect("a short text"));
            self.0.extend(text.as_bytes());
        }
    }
}

/// The first byte of a literal of a new name, which the peer does not remember (RFC 7541, section
/// 6.2.2), or does (section 6.2.1).
const NOT_INDEXED: u8 = 0;
const INDEXED: u8 = 0x40;

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
