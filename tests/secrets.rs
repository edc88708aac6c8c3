//! Searches all of the process's memory for remains of a key.
//!
//! This is a separate test program with a single test, so that nothing else holds a key.
#![cfg(all(target_os = "linux", target_endian = "little"))]
#![allow(
    unsafe_code,
    reason = "an allocator that keeps everything; the crate itself forbids unsafe code"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::fs::{File, read_to_string};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use inngest_auth::{Config, KeyRing, Keys, SigningKey, Tolerance, verify};
use zeroize::{Zeroize, Zeroizing};

/// An allocator that frees nothing. So what was not wiped is found, even if its memory would have
/// been reused.
struct Keeps;

#[global_allocator]
static ALLOCATOR: Keeps = Keeps;

// SAFETY: all memory comes from the system's allocator, and stays valid for ever.
unsafe impl GlobalAlloc for Keeps {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// The patterns to search for are stored with each byte XOR this, so that the search does not find
/// them.
const MASK: u8 = 0x5a;
const PREFIX: &str = "signkey-prod-";
/// The text after the prefix: 64 hex digits.
const TEXT: &str = "3b6e396b6869386b6c6b683e3e686d683e6b696d6b396b6d6b6e633e6e69636f\
                    696c3869686b6c3c3e3b3f3f38636d6f6d68633c3b3f6368693e6f3b6e3c3e6b";
/// The SHA-256 of the bytes that the text spells.
const HASH: &str = "df749ee6570b2d1626d20b5ec6052dab6aa4e2d5aa394de5f631994017d856bb";
/// SHA-256's state after the text XOR HMAC's `ipad`, computed elsewhere.
const INNER: &str = "c75b95389c8fe89c0dec4f5466bbdfbeb992100a7dcf78d71e61f7f64537960f";
/// The same with `opad`.
const OUTER: &str = "427336324b918abab1328440c30d05bf2163e1335ec9ca5e8ebbdf74cff07e29";

/// A secret that must not be found, as masked fragments.
struct Secret {
    name: &'static str,
    fragments: Vec<[u8; 8]>,
}

fn masked(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Returns every eight-byte fragment of a secret from `from` on. For states, each pair of words is
/// in either order, because a copy made by SIMD instructions has them swapped.
fn secret(name: &'static str, bytes: &[u8], from: usize, words: bool) -> Secret {
    let mut fragments = Vec::new();
    for at in (from..=bytes.len() - 8).step_by(if words { 4 } else { 1 }) {
        let fragment: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        fragments.push(fragment);
        if words {
            let mut turned = fragment;
            turned.rotate_left(4);
            fragments.push(turned);
        }
    }
    Secret { name, fragments }
}

fn secrets() -> Vec<Secret> {
    let hash = masked(HASH);
    // The bearer's digits, masked one by one.
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)] ^ MASK;
    let digits: Vec<_> = hash
        .iter()
        .flat_map(|byte| [digit((byte ^ MASK) >> 4), digit((byte ^ MASK) & 0xf)])
        .collect();
    let text = masked(TEXT);
    let value = |digit: u8| u8::from_str_radix(&char::from(digit ^ MASK).to_string(), 16).unwrap();
    let decoded: Vec<_> = text
        .chunks(2)
        .map(|it| (value(it[0]) << 4 | value(it[1])) ^ MASK)
        .collect();
    vec![
        secret("the text", &text, 0, false),
        secret("the decoded text", &decoded, 0, false),
        // The fingerprint is public: its 6 bytes, or 12 digits.
        secret("the hash", &hash, 6, false),
        secret("the hash", &hash, 0, true),
        secret("the bearer", &digits, 12, false),
        secret("the inner state", &masked(INNER), 0, true),
        secret("the outer state", &masked(OUTER), 0, true),
    ]
}

/// Where secrets are: places at most 64 bytes apart are one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    stack: usize,
    /// Outside the stack, more than half of a state's 32 bytes.
    elsewhere: usize,
    /// Outside the stack, less. The rest of a state cannot be guessed.
    fragments: usize,
}

struct Scan {
    secrets: Vec<Secret>,
    /// Whether a fragment begins with these two bytes, masked.
    begins: Vec<bool>,
    buffer: Vec<u8>,
}

impl Scan {
    fn new() -> Self {
        let secrets = secrets();
        let mut begins = vec![false; 1 << 16];
        for [first, second, ..] in secrets.iter().flat_map(|secret| &secret.fragments) {
            begins[usize::from(u16::from_be_bytes([*first, *second]))] = true;
        }
        let buffer = Vec::with_capacity(1 << 20);
        Self {
            secrets,
            begins,
            buffer,
        }
    }

    /// Searches every readable page of the process, except the buffer that the search reads into.
    fn run(&mut self) -> Vec<(&'static str, Found)> {
        let own = self.buffer.as_ptr_range();
        let own = own.start as u64..own.start as u64 + self.buffer.capacity() as u64;
        let here = std::ptr::from_ref(&own) as u64;
        let memory = File::open("/proc/self/mem").unwrap();
        let mut places: Vec<(&'static str, u64, bool)> = Vec::new();
        let mut read = 0;
        for line in read_to_string("/proc/self/maps").unwrap().lines() {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).unwrap());
            if !fields.next().unwrap().starts_with('r') || line.ends_with("[vvar]") {
                continue;
            }
            for piece in without(start..end, &own) {
                read += self.search(&memory, piece, (start..end).contains(&here), &mut places);
            }
        }
        assert!(read > 1 << 20, "only {read} bytes of memory could be read");
        let mut names: Vec<_> = self.secrets.iter().map(|secret| secret.name).collect();
        names.dedup();
        let found = names.into_iter().map(|name| {
            let places = places.iter().filter(|(it, ..)| *it == name);
            let places: Vec<_> = places.map(|(_, at, stack)| (*at, *stack)).collect();
            let mut found = Found::default();
            for place in places.chunk_by(|(one, _), (next, _)| next - one <= 64) {
                let ((first, stack), (last, _)) = (place[0], place[place.len() - 1]);
                *(match (stack, last + 8 - first) {
                    (true, _) => &mut found.stack,
                    (false, ..=16) => &mut found.fragments,
                    (false, _) => &mut found.elsewhere,
                }) += 1;
            }
            (name, found)
        });
        found.collect()
    }

    fn search(
        &mut self,
        memory: &File,
        range: Range<u64>,
        stack: bool,
        places: &mut Vec<(&'static str, u64, bool)>,
    ) -> u64 {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at)
                .unwrap()
                .min(self.buffer.capacity());
            self.buffer.resize(len, 0);
            let Ok(len) = memory.read_at(&mut self.buffer, at) else {
                break;
            };
            self.buffer.truncate(len);
            for (offset, window) in self.buffer.windows(8).enumerate() {
                let begin = u16::from_be_bytes([window[0] ^ MASK, window[1] ^ MASK]);
                if !self.begins[usize::from(begin)] {
                    continue;
                }
                for secret in &self.secrets {
                    let is = |it: &[u8; 8]| it.iter().zip(window).all(|(a, b)| *a == b ^ MASK);
                    if secret.fragments.iter().any(is) {
                        places.push((secret.name, at + offset as u64, stack));
                    }
                }
            }
            // Reads overlap, so that no fragment is cut in two.
            at += (len as u64).max(8) - if len as u64 == range.end - at { 0 } else { 7 };
        }
        self.buffer.zeroize();
        at - range.start
    }
}

fn without(range: Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    let before = range.start..range.end.min(hole.start).max(range.start);
    let after = range.start.max(hole.end).min(range.end)..range.end;
    if hole.end <= range.start || range.end <= hole.start {
        return [range, 0..0];
    }
    [before, after]
}

/// Returns the key's text, which is wiped when dropped.
fn text() -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(100));
    text.push_str(PREFIX);
    text.extend(masked(TEXT).into_iter().map(|byte| char::from(byte ^ MASK)));
    text
}

/// What is found after each step, as a table for the report of a failure.
struct Steps {
    scan: Scan,
    table: String,
    /// Whether requests have left running HMACs on the stack. The future of a later request takes
    /// along, in its unused bytes, what it finds there when it is moved to the heap. What that is
    /// depends on how this test is compiled.
    requests_ran: bool,
}

impl Steps {
    /// Checks that outside the stack each secret has exactly the given number of copies: the text,
    /// decoded or not, the hash, the bearer, and the states.
    fn check(&mut self, step: &str, expected: [usize; 6]) -> [usize; 6] {
        let found = self.scan.run();
        write!(self.table, "{step:<44}").unwrap();
        for (name, it) in &found {
            let Found {
                stack,
                elsewhere,
                fragments,
            } = it;
            write!(
                self.table,
                " {name}: {elsewhere} (stack {stack}, fragments {fragments})"
            )
            .unwrap();
        }
        self.table.push('\n');
        let is_state = |name: &str| name.ends_with("state");
        let stray = |name: &str| usize::from(is_state(name) && self.requests_ran);
        let as_expected = found.iter().zip(expected).all(|((name, it), expected)| {
            (expected..=expected + stray(name)).contains(&it.elsewhere)
                && it.fragments <= usize::from(is_state(name))
        });
        assert!(as_expected, "{expected:?}, but\n{}", self.table);
        std::array::from_fn(|at| found[at].1.stack)
    }
}

#[test]
fn a_key_is_in_one_place_while_it_is_held_and_nowhere_after() {
    const NOW: u64 = 1_700_000_000;
    let mut steps = Steps {
        scan: Scan::new(),
        table: String::new(),
        requests_ran: false,
    };
    let (nowhere, one_place) = ([0; 6], [0, 0, 1, 0, 1, 1]);
    steps.check("before", nowhere);

    // The search must find secrets that exist.
    for (at, hex) in [(0, TEXT), (2, HASH), (4, INNER), (5, OUTER)] {
        let mut bytes = masked(hex);
        for byte in &mut bytes {
            *byte ^= MASK;
        }
        steps.check("a control", std::array::from_fn(|it| usize::from(it == at)));
        bytes.zeroize();
    }

    let key: SigningKey = text().parse().unwrap();
    let stack = steps.check("parsed", one_place);
    assert_eq!(stack, [0; 6], "on the stack");

    let moved = Box::new((key.clone(), Some(key)));
    let (current, fallback) = *moved;
    let ring = KeyRing::from((current, fallback));
    ring.rotate("11111111".parse().unwrap());
    let kept: Vec<Keys> = (0..10).map(|_| (*ring.snapshot()).clone()).collect();
    let sent = std::thread::spawn(move || kept).join().unwrap();
    let stack = steps.check("cloned, moved, compared, rotated", one_place);
    assert_eq!(stack, [0; 6], "on the stack");

    let config = Config::from_vars([("INNGEST_SIGNING_KEY", &**text())]).unwrap();
    let stack = steps.check("configured with it, too", [0, 0, 2, 0, 2, 2]);
    assert_eq!(stack, [0; 6], "on the stack");
    drop(config);

    let path = std::env::temp_dir().join(format!("inngest-auth-secrets-{}", std::process::id()));
    std::fs::write(&path, text().as_bytes()).unwrap();
    let config = Config::from_vars([("INNGEST_SIGNING_KEY_FILE", &path)]).unwrap();
    assert_eq!(config.reload(), Ok(false));
    std::fs::remove_file(&path).unwrap();
    let stack = steps.check("read from a file, twice", [0, 0, 2, 0, 2, 2]);
    assert_eq!(stack, [0; 6], "on the stack");
    drop(config);

    let mut quoted = Zeroizing::new(String::with_capacity(200));
    quoted.extend(["'", &**text(), "' # the key"]);
    assert!(Config::from_vars([("INNGEST_SIGNING_KEY", &**quoted)]).is_err());
    drop(quoted);
    steps.check("rejected with a quotation mark", one_place);

    drop(black_box(sent[0].fallback().unwrap().bearer()));
    #[cfg(feature = "layer")]
    drop(black_box(ring.bearers()));
    black_box(format!("{ring:?}"));
    let stack = steps.check("bearers made and dropped", one_place);
    println!("left on the stack by a bearer: {stack:?}");

    let signature = sent[0].fallback().unwrap().sign(b"{}", NOW);
    assert!(
        verify(
            b"{}",
            &signature,
            &ring.snapshot(),
            NOW,
            Tolerance::default()
        )
        .is_ok()
    );
    assert!(
        verify(
            b"[]",
            &signature,
            &ring.snapshot(),
            NOW,
            Tolerance::default()
        )
        .is_err()
    );
    let stack = steps.check("signed and verified", one_place);
    println!("left on the stack by signing and verifying: {stack:?}");

    #[cfg(feature = "layer")]
    {
        let requests = requests_through_the_layer(&ring, &signature.to_string(), NOW);
        steps.requests_ran = true;
        let stack = steps.check("requests through the layer", one_place);
        println!("left on the stack by {requests} requests: {stack:?}");
    }

    ring.rotate("22222222".parse().unwrap());
    drop(sent);
    steps.check("rotated out and dropped", nowhere);
    drop(ring);
    let stack = steps.check("dropped", nowhere);
    println!("left on the stack at the end: {stack:?}\n{}", steps.table);
}

/// Sends one request that is verified and whose response is signed, one with another body, and one
/// without a signature.
#[cfg(feature = "layer")]
fn requests_through_the_layer(ring: &KeyRing, signature: &str, now: u64) -> usize {
    use axum::{Router, body::Body, http::Request};
    use inngest_auth::testing::TestClock;
    use inngest_auth::{InngestAuth, SIGNATURE_HEADER, SignResponses};
    use tower::ServiceExt;

    let auth = InngestAuth::new(ring.clone())
        .clock(TestClock::at(now))
        .sign_responses(SignResponses::All);
    let app = Router::new()
        .fallback(|body: String| async { body })
        .layer(auth);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let requests = [
        ("{}", Some(signature), 200),
        ("[]", Some(signature), 401),
        ("{}", None, 401),
    ];
    for (body, signature, status) in requests {
        let mut request = Request::post("/");
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        let response = app.clone().oneshot(request.body(Body::from(body)).unwrap());
        assert_eq!(runtime.block_on(response).unwrap().status(), status);
    }
    requests.len()
}
