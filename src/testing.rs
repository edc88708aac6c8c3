//! For the tests of your own service: requests as Inngest signs them, and a clock that the test sets.
//!
//! Give your application its layer (`fn app(auth: InngestAuth) -> Router`), and a test can be Inngest. `oneshot` is of
//! `tower`, feature `util`. The guide's page on [tests](mod@crate::guide::tests) has more.
//!
#![cfg_attr(feature = "layer", doc = "```")]
#![cfg_attr(not(feature = "layer"), doc = "```text")]
//! use axum::{Router, http::StatusCode, routing::any};
//! use inngest_auth::{InngestAuth, testing::TestInngest};
//! use tower::ServiceExt;
//!
//! fn app(auth: InngestAuth) -> Router {
//!     Router::new().route("/api/inngest", any(|body: String| async { body }).layer(auth))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let inngest = TestInngest::new("signkey-test-12345678".parse()?);
//! let app = app(inngest.auth());
//!
//! let answer = app.clone().oneshot(inngest.call("/api/inngest?fnId=hello&stepId=step", "{}")).await?;
//! assert_eq!(answer.status(), StatusCode::OK);
//!
//! let answer = app.oneshot(inngest.tampered("/api/inngest?fnId=hello&stepId=step", "{}")).await?;
//! assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::key::SigningKey;

/// Makes a key of any text: for the tests of verifiers only.
///
/// [`SigningKey`] parses what Inngest issues and nothing else. Published test vectors have other
/// keys, too. This one takes whatever follows the prefix as the HMAC key. Its bearer token and its
/// fingerprint mean nothing.
///
/// ```
/// use inngest_auth::{SigningKey, testing::odd_key};
///
/// assert!("signkey-test-not-hex".parse::<SigningKey>().is_err());
/// let header = odd_key("signkey-test-not-hex").sign(b"{}", 1_700_000_000).to_string();
/// assert!(header.starts_with("t=1700000000&s=5163"));
/// ```
///
/// # Panics
///
/// Panics if nothing follows the prefix.
#[must_use]
pub fn odd_key(text: &str) -> SigningKey {
    SigningKey::odd(text)
}

/// A clock that stands still until it is set. Clones show the same time.
///
/// Setting it forward lets time pass, for [`monotonic`](Clock::monotonic) too. Setting it back
/// is what it is on a machine: a clock that was corrected.
///
/// ```
/// use inngest_auth::{Clock, testing::TestClock};
///
/// let clock = TestClock::at(1_700_000_000);
/// let shown_elsewhere = clock.clone();
/// clock.set(Some(1_700_000_301));
/// assert_eq!(shown_elsewhere.now(), Some(1_700_000_301));
/// assert_eq!(shown_elsewhere.monotonic().as_secs(), 301);
///
/// clock.set(Some(1_700_000_000));
/// assert_eq!(clock.monotonic().as_secs(), 301);
///
/// // A clock that cannot tell the time.
/// clock.set(None);
/// assert_eq!(shown_elsewhere.now(), None);
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<Mutex<Shown>>);

#[derive(Clone, Copy, Debug)]
struct Shown {
    now: Option<u64>,
    monotonic: Duration,
}

impl TestClock {
    /// Shows `unix_seconds` until it is set.
    #[must_use]
    pub fn at(unix_seconds: u64) -> Self {
        Self(Arc::new(Mutex::new(Shown {
            now: Some(unix_seconds),
            monotonic: Duration::ZERO,
        })))
    }

    /// Unix seconds, or `None` for a clock that cannot tell.
    pub fn set(&self, unix_seconds: Option<u64>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(before), Some(after)) = (shown.now, unix_seconds) {
            let passed = Duration::from_secs(after.saturating_sub(before));
            shown.monotonic = shown.monotonic.saturating_add(passed);
        }
        shown.now = unix_seconds;
    }

    fn shown(&self) -> Shown {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Option<u64> {
        self.shown().now
    }

    fn monotonic(&self) -> Duration {
        self.shown().monotonic
    }
}

#[cfg(feature = "layer")]
pub use inngest::TestInngest;

#[cfg(feature = "layer")]
mod inngest {
    use axum_core::body::Body;
    use bytes::Bytes;
    use http::Request;

    use super::TestClock;
    use crate::canonical::canonicalize;
    use crate::clock::Clock;
    use crate::key::SigningKey;
    use crate::keyring::Keys;
    use crate::layer::InngestAuth;
    use crate::signature::SIGNATURE_HEADER;
    use crate::verify::Tolerance;

    /// Stands for Inngest: signs whole requests, at the time that its clock shows.
    ///
    /// Each method makes a `POST` to `uri` with `body`, and panics where `uri` is no URI. The clock begins at
    /// 1700000000.
    #[derive(Clone, Debug)]
    pub struct TestInngest {
        current: SigningKey,
        fallback: Option<SigningKey>,
        clock: TestClock,
    }

    impl TestInngest {
        /// Signs with `current`.
        #[must_use]
        pub fn new(current: SigningKey) -> Self {
            Self {
                current,
                fallback: None,
                clock: TestClock::at(1_700_000_000),
            }
        }

        /// Gives the layer a fallback key, for [`call_with_fallback`](Self::call_with_fallback).
        #[must_use]
        pub fn fallback(mut self, fallback: SigningKey) -> Self {
            self.fallback = Some(fallback);
            self
        }

        /// A layer that holds the same keys and the same clock.
        pub fn auth(&self) -> InngestAuth {
            InngestAuth::new(Keys::new(self.current.clone(), self.fallback.clone())).clock(self.clock.clone())
        }

        /// The clock that requests are signed by, and that [`auth`](Self::auth) judges by.
        #[must_use]
        pub fn clock(&self) -> &TestClock {
            &self.clock
        }

        /// A genuine call.
        #[must_use]
        pub fn call(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            request(uri, &self.current, &body.clone(), body, self.now())
        }

        /// A genuine call signed with the fallback; with the current key where there is none.
        #[must_use]
        pub fn call_with_fallback(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let key = self.fallback.as_ref().unwrap_or(&self.current);
            request(uri, key, &body.clone(), body, self.now())
        }

        /// A genuine call of which only the RFC 8785 form is signed: a space stands before the body. One that is
        /// not JSON has no such form, and its signature is wrong.
        #[must_use]
        pub fn call_in_canonical_form(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = [b" ", &*body.into()].concat();
            let signed = canonicalize(&body).unwrap_or_default();
            request(uri, &self.current, &signed, body.into(), self.now())
        }

        /// A genuine call, one second older than the longest tolerance that can be set.
        #[must_use]
        pub fn stale(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let longest = Tolerance::from_secs(u64::MAX).as_secs();
            request(
                uri,
                &self.current,
                &body.clone(),
                body,
                self.now().saturating_sub(longest + 1),
            )
        }

        /// A call whose body was changed behind the signature: an `!` stands after it.
        #[must_use]
        pub fn tampered(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let sent = [&*body, b"!"].concat();
            request(uri, &self.current, &body, sent.into(), self.now())
        }

        /// A call that nobody signed.
        #[must_use]
        pub fn unsigned(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let mut request = self.call(uri, body);
            request.headers_mut().remove(SIGNATURE_HEADER);
            request
        }

        /// A stopped clock signs at the beginning of time: refused, as it must be.
        fn now(&self) -> u64 {
            self.clock.now().unwrap_or_default()
        }
    }

    fn request(uri: &str, key: &SigningKey, signed: &[u8], sent: Bytes, at: u64) -> Request<Body> {
        let signature = key.sign(signed, at).to_string();
        let request = Request::post(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::CONTENT_LENGTH, sent.len())
            .header(SIGNATURE_HEADER, signature)
            .body(Body::from(sent));
        request.unwrap_or_else(|error| panic!("{uri:?} is no URI: {error}"))
    }
}
