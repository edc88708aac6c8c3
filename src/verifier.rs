//! The check of a request, from its signature header to the last byte of its body, without HTTP
//! types or async.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::key::Mac;
use crate::keyring::{Generation, KeyRing, Keys};
use crate::rejection::{Rejection, RejectionKind};
use crate::signature::Signature;
use crate::verify::{self, Authentic, Tolerance, Verified, check_fresh};

/// The default body limit, in bytes.
pub(crate) const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// Verifies requests in any HTTP stack. It holds the keys, the clock, the tolerance and the body
/// limit.
///
/// [`InngestAuth`](crate::InngestAuth) is built on it. Clones share the keys.
///
/// ```
/// use inngest_auth::{RejectionKind, SigningKey, Verifier, testing::TestClock};
///
/// let key: SigningKey = "signkey-test-12345678".parse()?;
/// let header = key.sign(b"{}", 1_700_000_000).to_string();
/// let verifier = Verifier::new(key).clock(TestClock::at(1_700_000_000));
///
/// // Give it all values of `X-Inngest-Signature`: there must be exactly one.
/// let (authentic, _) = verifier.verify([header.as_bytes()], b"{}")?;
/// assert_eq!(&*authentic.into_bytes(), b"{}");
///
/// let rejection = verifier.verify([header.as_bytes()], b"[]").unwrap_err();
/// assert_eq!(rejection.kind(), RejectionKind::WrongSignature);
/// assert_eq!(rejection.kind().status(), 401);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    keys: KeyRing,
    clock: Arc<dyn Clock>,
    tolerance: Tolerance,
    body_limit: usize,
}

impl Verifier {
    /// Creates a verifier with these keys, the system clock, a tolerance of 300 s and a body limit
    /// of 8 MiB.
    pub fn new(keys: impl Into<KeyRing>) -> Self {
        Self {
            keys: keys.into(),
            clock: Arc::new(SystemClock),
            tolerance: Tolerance::default(),
            body_limit: BODY_LIMIT,
        }
    }

    /// Sets how far a signature's time may differ from the clock, in the past and in the future
    /// (default: 300 s).
    ///
    /// ```
    /// use inngest_auth::{RejectionKind, SigningKey, Verifier, testing::TestClock};
    /// use std::time::Duration;
    ///
    /// let key: SigningKey = "signkey-test-12345678".parse()?;
    /// let header = key.sign(b"{}", 1_700_000_000).to_string();
    /// let clock = TestClock::at(1_700_000_060);
    /// let verifier = Verifier::new(key).clock(clock.clone()).tolerance(Duration::from_secs(60));
    /// assert!(verifier.verify([header.as_bytes()], b"{}").is_ok());
    ///
    /// clock.set(Some(1_700_000_061));
    /// let rejection = verifier.verify([header.as_bytes()], b"{}").unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::Stale);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tolerance(mut self, tolerance: impl Into<Tolerance>) -> Self {
        self.tolerance = tolerance.into();
        self
    }

    /// Sets the maximum body size in bytes (default: 8 MiB).
    ///
    /// ```
    /// use inngest_auth::{RejectionKind, testing::TestInngest};
    ///
    /// let inngest = TestInngest::default();
    /// let verifier = inngest.verifier().body_limit(2);
    /// let (_, header) = inngest.sign(b"{}");
    /// assert!(verifier.verify([header.as_bytes()], b"{}").is_ok());
    ///
    /// let (_, header) = inngest.sign(b"{ }");
    /// let rejection = verifier.verify([header.as_bytes()], b"{ }").unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::BodyTooLarge);
    /// ```
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Sets the clock (default: [`SystemClock`]).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the ring that requests are verified with. A change of the ring applies from the next
    /// request on.
    #[must_use]
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Verifies a request whose body is in memory. `signatures` are all values of its
    /// `X-Inngest-Signature` header.
    ///
    /// Returns the bytes that were authenticated, and a signer for the response.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`]. Its kind has the status to respond with.
    pub fn verify<'header, 'body>(
        &self,
        signatures: impl IntoIterator<Item = &'header [u8]>,
        body: &'body [u8],
    ) -> Result<(Authentic<'body>, ResponseSigner), Rejection> {
        let (check, mut running) = self.check_header(signatures)?;
        running.update(body)?;
        let proof = check.finish(&running, [body])?;
        self.check_fresh(&proof.signature)?;
        let signer = proof.signer();
        let authentic = Authentic::new(proof.verified, body, proof.canonical);
        Ok((authentic, signer))
    }

    /// Checks the header of a request before its body is read. If it is rejected, the body need not
    /// be read.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if there is not exactly one signature, if it does not match the
    /// grammar, or if it lies outside the tolerance.
    pub fn start<'header>(
        &self,
        signatures: impl IntoIterator<Item = &'header [u8]>,
    ) -> Result<BodyVerifier<'_>, Rejection> {
        let (check, running) = self.check_header(signatures)?;
        Ok(BodyVerifier {
            verifier: self,
            check,
            running,
            body: Vec::new(),
        })
    }

    /// Signs the response to a verified request, as [`ResponseSigner`] describes.
    ///
    /// It signs any body, and a signed response is a valid signature of its bytes. Sign only what
    /// Inngest requires: the constant `{}` in response to a trust probe, and a 200 response to an
    /// in-band sync that contains only configuration.
    ///
    /// Returns `None` if the response is empty or later than the tolerance. Such a response must be
    /// sent unsigned.
    #[must_use]
    pub fn sign_response(&self, signer: &ResponseSigner, body: &[u8]) -> Option<Signature> {
        let signature = signer.sign([body])?;
        self.check_fresh(&signature).ok()?;
        Some(signature)
    }

    pub(crate) fn check_header<'header>(
        &self,
        signatures: impl IntoIterator<Item = &'header [u8]>,
    ) -> Result<(Check, Running), Rejection> {
        let mut signatures = signatures.into_iter();
        let signature = match (signatures.next(), signatures.next()) {
            // A server without a key sends an empty header.
            (None | Some([]), None) => return Err(RejectionKind::Missing.into()),
            (Some(signature), None) => Signature::parse(signature)?,
            // Whatever reads the request later might choose the other one.
            _ => return Err(RejectionKind::Doubled.into()),
        };
        let checked_at = self.check_fresh(&signature)?;
        // One snapshot for the whole request, so that keys that change meanwhile never mix.
        let keys = self.keys.generation();
        let running = Running {
            mac: keys.keys().current().mac(),
            left: self.body_limit,
            body_limit: self.body_limit,
        };
        let check = Check {
            keys,
            signature,
            checked_at,
        };
        Ok((check, running))
    }

    /// Returns the current time if the signature lies within the window.
    pub(crate) fn check_fresh(&self, signature: &Signature) -> Result<u64, Rejection> {
        let now = self.clock.now().ok_or(RejectionKind::NoTime)?;
        check_fresh(signature, now, self.tolerance)?;
        Ok(now)
    }

    #[cfg(feature = "layer")]
    pub(crate) fn window(&self) -> Tolerance {
        self.tolerance
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &*self.keys.snapshot())
            .field("tolerance", &self.tolerance)
            .field("body_limit", &self.body_limit)
            .finish_non_exhaustive()
    }
}

/// A request whose header was accepted, while its body arrives in pieces.
///
/// ```
/// # use inngest_auth::{SigningKey, Verifier, testing::TestClock};
/// # let key: SigningKey = "signkey-test-12345678".parse()?;
/// # let header = key.sign(b"{}", 1_700_000_000).to_string();
/// # let verifier = Verifier::new(key).clock(TestClock::at(1_700_000_000));
/// let mut body = verifier.start([header.as_bytes()])?;
/// for piece in [b"{", b"}"] {
///     body.push(piece)?;
/// }
/// let (authentic, _) = body.finish()?;
/// assert_eq!(&*authentic.into_bytes(), b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the body is verified only by `finish`"]
pub struct BodyVerifier<'verifier> {
    verifier: &'verifier Verifier,
    check: Check,
    running: Running,
    body: Vec<u8>,
}

impl BodyVerifier<'_> {
    /// Checks the length that `Content-Length` announces, in bytes. A smaller length is not
    /// trusted.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if the length exceeds the limit.
    pub fn expect(&self, announced: u64) -> Result<(), Rejection> {
        self.running.expect(announced)
    }

    /// Adds the next piece of the body. The piece is copied.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if the body exceeds the limit.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Rejection> {
        self.running.update(piece)?;
        self.body.extend_from_slice(piece);
        Ok(())
    }

    /// Verifies the body after its last piece.
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if no key signed these bytes, or if the signature has left the
    /// window in the meantime.
    pub fn finish(self) -> Result<(Authentic<'static>, ResponseSigner), Rejection> {
        let proof = self.check.finish(&self.running, [&*self.body])?;
        self.verifier.check_fresh(&proof.signature)?;
        let signer = proof.signer();
        let bytes = proof.canonical.unwrap_or(self.body);
        let authentic = Authentic::new(proof.verified, &[], Some(bytes));
        Ok((authentic, signer))
    }
}

/// The current key's MAC of a body, computed as the body arrives.
///
/// It is borrowed, and never moved once it runs. A MAC that moves leaves a copy of its state behind,
/// and a client decides how long its request stays in memory.
pub(crate) struct Running {
    mac: Mac,
    /// How many bytes the body may still have.
    left: usize,
    body_limit: usize,
}

impl Running {
    pub(crate) fn expect(&self, announced: u64) -> Result<(), Rejection> {
        if announced > self.body_limit as u64 {
            return Err(RejectionKind::BodyTooLarge.into());
        }
        Ok(())
    }

    pub(crate) fn update(&mut self, piece: &[u8]) -> Result<(), RejectionKind> {
        self.left = self
            .left
            .checked_sub(piece.len())
            .ok_or(RejectionKind::BodyTooLarge)?;
        self.mac.update(piece);
        Ok(())
    }

    #[cfg(feature = "layer")]
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// A request whose header was accepted.
pub(crate) struct Check {
    keys: Arc<Generation>,
    pub(crate) signature: Signature,
    /// In Unix seconds.
    checked_at: u64,
}

impl Check {
    /// Compares the MAC over the whole body, given again in pieces: over its raw bytes, then over
    /// its canonical form.
    pub(crate) fn finish<'body>(
        self,
        running: &Running,
        body: impl IntoIterator<Item = &'body [u8]> + Clone,
    ) -> Result<Proof, Rejection> {
        let body_len = running.body_limit - running.left;
        self.finish_raw(running, body.clone())
            .or_else(|unmatched| unmatched.finish_canonical(body))
            .map_err(|unmatched| unmatched.rejection(body_len))
    }

    /// Compares the MAC over the raw bytes of the whole body, given again in pieces.
    pub(crate) fn finish_raw<'body>(
        self,
        running: &Running,
        body: impl IntoIterator<Item = &'body [u8]>,
    ) -> Result<Proof, Self> {
        let running = running.mac.clone();
        match verify::compare_raw(running, &self.signature, self.keys.keys(), body) {
            Some(verified) => Ok(self.proof(verified, None)),
            None => Err(self),
        }
    }

    /// Compares the MAC over the canonical form of the whole body, given again in pieces. This
    /// takes 40 times as long as the HMAC.
    pub(crate) fn finish_canonical<'body>(
        self,
        body: impl IntoIterator<Item = &'body [u8]>,
    ) -> Result<Proof, Self> {
        match verify::compare_canonical(&self.signature, self.keys.keys(), body) {
            Some((verified, canonical)) => Ok(self.proof(verified, Some(canonical))),
            None => Err(self),
        }
    }

    #[cfg(feature = "layer")]
    pub(crate) fn keys(&self) -> Arc<Keys> {
        Arc::clone(self.keys.keys())
    }

    /// Returns the rejection of a body that no key signed.
    pub(crate) fn rejection(&self, body_len: usize) -> Rejection {
        Rejection::mismatch(self.keys.keys(), self.age(), body_len)
    }

    fn age(&self) -> i64 {
        self.checked_at.cast_signed() - self.signature.signed_at().cast_signed()
    }

    fn proof(self, verified: Verified, canonical: Option<Vec<u8>>) -> Proof {
        self.keys.count(verified.key(), self.checked_at);
        Proof {
            age: self.age(),
            signature: self.signature,
            verified,
            canonical,
            keys: self.keys,
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("signature", &self.signature)
            .finish_non_exhaustive()
    }
}

/// What is known about a verified request.
pub(crate) struct Proof {
    pub(crate) signature: Signature,
    /// In seconds, when the header was checked; negative if the signature lies in the future.
    #[cfg_attr(
        not(feature = "layer"),
        allow(dead_code, reason = "the layer warns of it")
    )]
    pub(crate) age: i64,
    pub(crate) verified: Verified,
    /// The canonical form of the body, if only that was signed.
    pub(crate) canonical: Option<Vec<u8>>,
    keys: Arc<Generation>,
}

impl Proof {
    pub(crate) fn signer(&self) -> ResponseSigner {
        ResponseSigner {
            keys: Arc::clone(self.keys.keys()),
            verified: self.verified,
        }
    }
}

/// Signs the response to one verified request, with the key that verified the request and the
/// request's own `t`.
///
/// A signed response is a valid signature of its bytes. With a later time, anyone who sees
/// responses could send them back as requests, and so keep the window of a captured request open
/// forever.
#[derive(Clone, Debug)]
pub struct ResponseSigner {
    keys: Arc<Keys>,
    verified: Verified,
}

impl ResponseSigner {
    /// Signs the pieces of a body without one trailing newline, which Inngest's own check trims. An
    /// empty response is not signed: its signature would be valid for every empty request.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an iterator is given by value"
    )]
    pub(crate) fn sign<'body>(
        &self,
        body: impl IntoIterator<Item = &'body [u8]> + Clone,
    ) -> Option<Signature> {
        let pieces = || body.clone().into_iter();
        let newline = pieces()
            .filter(|piece| !piece.is_empty())
            .last()?
            .ends_with(b"\n");
        let mut left = pieces().map(<[u8]>::len).sum::<usize>() - usize::from(newline);
        if left == 0 {
            return None;
        }
        let signed = pieces().map(|piece| {
            let piece = &piece[..left.min(piece.len())];
            left -= piece.len();
            piece
        });
        let key = self.keys.in_role(self.verified.key());
        Some(Signature::sign(key, signed, self.verified.signed_at()))
    }
}
