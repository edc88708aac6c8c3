//! Tests whether the time of a rejection reveals how it came about. For each pair of inputs that
//! differ in something secret, it mixes a million samples of both kinds and applies Welch's t-test
//! to their times (Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?").

use std::hint::black_box;
use std::sync::LazyLock;

use dudect_bencher::rand::RngExt;
use dudect_bencher::{BenchRng, Class, CtRunner, ctbench_main};
use inngest_auth::{Keys, Signature, SigningKey, Tolerance, VerifyError, verify};

const SAMPLES: usize = 1_000_000;
const NOW: u64 = 1_700_000_000;
/// Not JSON, so it has no canonical form.
const PLAIN: &[u8] = b"a body";
/// JSON that is not in canonical form.
const JSON: &[u8] = br#"{"b":1, "a":2}"#;
const CANONICAL: &[u8] = br#"{"a":2,"b":1}"#;

static CURRENT: LazyLock<SigningKey> = LazyLock::new(|| "signkey-test-12345678".parse().unwrap());
static FALLBACK: LazyLock<SigningKey> = LazyLock::new(|| "signkey-test-87654321".parse().unwrap());
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new(CURRENT.clone(), Some(FALLBACK.clone())));

ctbench_main!(
    differs_in_first_or_last_byte,
    matches_nothing_or_nearly_the_fallback,
    nearly_the_current_key_or_nearly_the_fallback,
    matches_nothing_or_nearly_the_canonical_form,
    self_check_leaks
);

/// The header's value, as text to be edited: `t=`, ten digits, `&s=`, 64 digits.
type Header = [u8; 79];
const MAC: usize = 15;

fn signed(key: &SigningKey, body: &[u8], time: u64) -> Header {
    let header = key.sign(body, time).to_string();
    header.into_bytes().try_into().unwrap()
}

/// Changes the digit, so that 1 to 4 bits of the MAC are wrong.
fn spoil(header: &mut Header, digit: usize, rng: &mut BenchRng) {
    let digit = &mut header[MAC + digit];
    let value = (*digit as char).to_digit(16).unwrap() ^ rng.random_range(1..16);
    *digit = u8::try_from(char::from_digit(value, 16).unwrap()).unwrap();
}

fn any_mac(rng: &mut BenchRng) -> Header {
    let mut header = signed(&CURRENT, PLAIN, any_time(rng));
    for digit in 0..64 {
        spoil(&mut header, digit, rng);
    }
    header
}

fn any_time(rng: &mut BenchRng) -> u64 {
    NOW + rng.random_range(0..300)
}

fn parsed(header: &Header) -> Signature {
    Signature::parse(header).unwrap()
}

fn rejected(body: &[u8], signature: &Signature) -> VerifyError {
    verify(body, signature, &KEYS, NOW, Tolerance::default()).unwrap_err()
}

/// Times both kinds, mixed at random, from the same memory, which holds only the input while it is
/// timed.
fn compare<I: Copy, T>(
    runner: &mut CtRunner,
    rng: &mut BenchRng,
    mut left: impl FnMut(&mut BenchRng) -> I,
    mut right: impl FnMut(&mut BenchRng) -> I,
    work: impl Fn(&I) -> T,
) {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        // Both are made, so that making one leaves the same traces as making the other.
        let both = [(Class::Left, left(rng)), (Class::Right, right(rng))];
        samples.push(both[usize::from(rng.random::<bool>())]);
    }
    let mut place = samples[0].1;
    // Warms up all caches.
    for (_, input) in &samples[..SAMPLES / 100] {
        place = *input;
        black_box(work(black_box(&place)));
    }
    for (class, input) in &samples {
        place = *input;
        runner.run_one(*class, || work(black_box(&place)));
    }
    black_box(place);
}

fn differs_in_first_or_last_byte(runner: &mut CtRunner, rng: &mut BenchRng) {
    let differs = |digits: [usize; 2]| {
        move |rng: &mut BenchRng| {
            let mut header = signed(&CURRENT, PLAIN, any_time(rng));
            for digit in digits {
                spoil(&mut header, digit, rng);
            }
            parsed(&header)
        }
    };
    compare(
        runner,
        rng,
        differs([0, 1]),
        differs([62, 63]),
        |signature| rejected(PLAIN, signature),
    );
}

/// Returns a signature that is right except for its last digit.
fn nearly(key: &SigningKey, body: &[u8], rng: &mut BenchRng) -> Signature {
    let mut header = signed(key, body, any_time(rng));
    spoil(&mut header, 63, rng);
    parsed(&header)
}

fn matches_nothing_or_nearly_the_fallback(runner: &mut CtRunner, rng: &mut BenchRng) {
    let nothing = |rng: &mut BenchRng| parsed(&any_mac(rng));
    let near = |rng: &mut BenchRng| nearly(&FALLBACK, PLAIN, rng);
    compare(runner, rng, nothing, near, |signature| {
        rejected(PLAIN, signature)
    });
}

fn nearly_the_current_key_or_nearly_the_fallback(runner: &mut CtRunner, rng: &mut BenchRng) {
    let current = |rng: &mut BenchRng| nearly(&CURRENT, PLAIN, rng);
    let fallback = |rng: &mut BenchRng| nearly(&FALLBACK, PLAIN, rng);
    compare(runner, rng, current, fallback, |signature| {
        rejected(PLAIN, signature)
    });
}

fn matches_nothing_or_nearly_the_canonical_form(runner: &mut CtRunner, rng: &mut BenchRng) {
    let nothing = |rng: &mut BenchRng| parsed(&any_mac(rng));
    let near = |rng: &mut BenchRng| nearly(&CURRENT, CANONICAL, rng);
    compare(runner, rng, nothing, near, |signature| {
        rejected(JSON, signature)
    });
}

/// Times what `differs_in_first_or_last_byte` times, followed by a comparison of 32 bytes that
/// stops at the first difference. This leak must be detected.
fn self_check_leaks(runner: &mut CtRunner, rng: &mut BenchRng) {
    let differs = |at: usize| {
        move |rng: &mut BenchRng| {
            let mut bytes = [0; 32];
            bytes[at] = rng.random_range(1..=u8::MAX);
            bytes
        }
    };
    let signature = parsed(&any_mac(rng));
    compare(runner, rng, differs(0), differs(31), |bytes| {
        let rejection = rejected(PLAIN, black_box(&signature));
        (rejection, bytes.iter().all(|byte| black_box(*byte) == 0))
    });
}
