//! What the fuzz targets compare the crate with: each rule again, written in a slow and obvious
//! way. Nothing is shared with the crate but the libraries for SHA-256 and HMAC.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arbitrary::{Arbitrary, Unstructured};

pub mod framing;
pub mod header;
pub mod json;
pub mod key;
pub mod request;

/// The time of the clocks.
pub const NOW: u64 = 1_700_000_000;
/// The test keys, each with its HMAC key.
pub const CURRENT: (&str, &str) = ("signkey-test-12345678", "12345678");
pub const FALLBACK: (&str, &str) = ("signkey-test-87654321", "87654321");

/// Splits an input into a plan and the bytes that the plan applies to.
#[must_use]
pub fn planned<'a, P: Arbitrary<'a>>(input: &'a [u8]) -> Option<(P, &'a [u8])> {
    let mut input = Unstructured::new(input);
    Some((P::arbitrary(&mut input).ok()?, input.take_rest()))
}

/// Returns the input for these bytes with a plan of zeros, which is always the plainest plan.
///
/// # Panics
///
/// Panics if the plan has no end.
#[must_use]
pub fn as_planned<P: for<'a> Arbitrary<'a>>(bytes: &[u8]) -> Vec<u8> {
    let input = |zeros, rest: &[u8]| [&*vec![0; zeros], rest].concat();
    let fits =
        |zeros: &usize| planned::<P>(&input(*zeros, b"?")).is_some_and(|(_, rest)| rest == b"?");
    input((0..100).find(fits).unwrap(), bytes)
}

/// Runs a future that waits for nothing. The layer yields once before it canonicalizes a large body.
///
/// # Panics
///
/// Panics if the future is not ready after two polls.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut cx) {
            return ready;
        }
    }
    panic!("it waits, and all that it needs is there")
}
