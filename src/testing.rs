//! Tools for testing your own service: requests signed as Inngest signs them, and a clock that the
//! test sets.
//!
//! Write your application as a function of its layer, `fn app(auth: InngestAuth) -> Router`. Then a
//! test can play Inngest. `oneshot` is from `tower`, feature `util`. The guide's page on
//! [tests](mod@crate::guide::tests) has more.
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
//! let url = "/api/inngest?fnId=hello&stepId=step";
//! let response = app.clone().oneshot(inngest.call(url, "{}")).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//!
//! let response = app.oneshot(inngest.tampered(url, "{}")).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::key::SigningKey;
use crate::keyring::Keys;
use crate::signature::SIGNATURE_HEADER;
use crate::verifier::Verifier;

/// Creates a key from any text, only for tests of verifiers.
///
/// [`SigningKey`] accepts only what Inngest issues, but published test vectors also use other keys.
/// This function uses whatever follows the prefix as the HMAC key. The key's bearer token and
/// fingerprint are meaningless.
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

/// A clock that shows the same time until it is set. Clones show the same time.
///
/// Setting it forward lets time pass, also for [`monotonic`](Clock::monotonic). Setting it back is
/// like correcting the clock of a machine: the monotonic time stays.
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
/// clock.set(Some(1_700_000_010));
/// assert_eq!(clock.monotonic().as_secs(), 311);
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<Mutex<Shown>>);

#[derive(Clone, Copy, Debug)]
struct Shown {
    now: Option<u64>,
    /// The time that it showed last, even if it cannot tell the time now.
    last: u64,
    monotonic: Duration,
}

impl TestClock {
    /// Creates a clock that shows `unix_seconds`.
    #[must_use]
    pub fn at(unix_seconds: u64) -> Self {
        Self(Arc::new(Mutex::new(Shown {
            now: Some(unix_seconds),
            last: unix_seconds,
            monotonic: Duration::ZERO,
        })))
    }

    /// Sets the clock to Unix seconds, or to `None` for a clock that cannot tell the time.
    pub fn set(&self, unix_seconds: Option<u64>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(after) = unix_seconds {
            let passed = Duration::from_secs(after.saturating_sub(shown.last));
            shown.monotonic = shown.monotonic.saturating_add(passed);
            shown.last = after;
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

/// Plays Inngest: signs requests with the time of its clock, which begins at 1700000000.
///
/// For a framework whose requests are not `http::Request`, sign with [`sign`](Self::sign) and check
/// with [`verifier`](Self::verifier):
///
/// ```
/// use inngest_auth::testing::TestInngest;
///
/// let inngest = TestInngest::default();
/// let (name, value) = inngest.sign(b"{}");
/// assert_eq!(name, "x-inngest-signature");
///
/// let verifier = inngest.verifier();
/// assert!(verifier.verify([value.as_bytes()], b"{}").is_ok());
/// assert!(verifier.verify([value.as_bytes()], b"[}").is_err());
/// ```
#[derive(Clone, Debug)]
pub struct TestInngest {
    current: SigningKey,
    fallback: Option<SigningKey>,
    clock: TestClock,
}

impl TestInngest {
    /// Creates an Inngest that signs with `current`.
    #[must_use]
    pub fn new(current: SigningKey) -> Self {
        Self {
            current,
            fallback: None,
            clock: TestClock::at(1_700_000_000),
        }
    }

    /// Sets a fallback key, which verifiers and layers accept too.
    ///
    /// ```
    /// use inngest_auth::{KeyRole, testing::TestInngest};
    ///
    /// let inngest = TestInngest::default().fallback("signkey-test-87654321".parse()?);
    /// let (_, header) = inngest.sign_with_fallback(b"{}");
    /// let (authentic, _) = inngest.verifier().verify([header.as_bytes()], b"{}").unwrap();
    /// assert_eq!(authentic.verified().key(), KeyRole::Fallback);
    /// # Ok::<(), inngest_auth::KeyError>(())
    /// ```
    #[must_use]
    pub fn fallback(mut self, fallback: SigningKey) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Returns the clock that signs and checks requests.
    #[must_use]
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Returns a verifier with the same keys and the same clock.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.keys()).clock(self.clock.clone())
    }

    /// Returns the name and value of the header that signs a body.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> (&'static str, String) {
        (
            SIGNATURE_HEADER,
            self.current.sign(body, self.now()).to_string(),
        )
    }

    /// Returns the name and value of the header that signs a body with the fallback key, or with
    /// the current key if there is no fallback key.
    #[must_use]
    pub fn sign_with_fallback(&self, body: &[u8]) -> (&'static str, String) {
        let key = self.fallback.as_ref().unwrap_or(&self.current);
        (SIGNATURE_HEADER, key.sign(body, self.now()).to_string())
    }

    fn keys(&self) -> Keys {
        Keys::new(self.current.clone(), self.fallback.clone())
    }

    /// If the clock cannot tell the time, signs at time 0, which is rejected, as it must be.
    fn now(&self) -> u64 {
        self.clock.now().unwrap_or_default()
    }
}

/// Uses the key `signkey-test-12345678` and no fallback key.
impl Default for TestInngest {
    fn default() -> Self {
        Self::new("signkey-test-12345678".parse().expect("it is a key"))
    }
}

#[cfg(feature = "layer")]
mod requests {
    use axum_core::body::Body;
    use bytes::Bytes;
    use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
    use http::{HeaderValue, Method, Request};
    use serde::Serialize;

    use super::TestInngest;
    use crate::canonical::canonicalize;
    use crate::key::SigningKey;
    use crate::layer::InngestAuth;
    use crate::signature::SIGNATURE_HEADER;
    use crate::verify::Tolerance;

    /// Makes whole requests, for Tower services. Each method panics if `uri` is not a URI.
    impl TestInngest {
        /// Returns a layer with the same keys and the same clock.
        pub fn auth(&self) -> InngestAuth {
            InngestAuth::new(self.keys()).clock(self.clock.clone())
        }

        /// Makes a genuine call.
        #[must_use]
        pub fn call(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            self.post(uri, &self.current, &body.clone(), body)
        }

        /// Makes a genuine call whose body is JSON as Inngest writes it, in canonical form.
        ///
        /// # Panics
        ///
        /// Panics if `body` cannot be written as JSON.
        #[must_use]
        pub fn call_json(&self, uri: &str, body: &impl Serialize) -> Request<Body> {
            self.call(uri, canonical_json(body))
        }

        /// Makes a genuine call signed with the fallback key, or with the current key if there is
        /// no fallback key.
        #[must_use]
        pub fn call_with_fallback(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let key = self.fallback.as_ref().unwrap_or(&self.current);
            self.post(uri, key, &body.clone(), body)
        }

        /// Makes a genuine call that is signed only over its canonical form (RFC 8785): the body
        /// sent has a space before it. A body that is not JSON has no canonical form, so its
        /// signature is wrong.
        #[must_use]
        pub fn call_in_canonical_form(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = [b" ", &*body.into()].concat();
            let signed = canonicalize(&body).unwrap_or_default();
            self.post(uri, &self.current, &signed, body.into())
        }

        /// Makes the `PUT` with which Inngest asks the app at `app_url` to register itself. Like
        /// the server, it sends `&`, `<` and `>` escaped, and signs the canonical form.
        ///
        /// # Panics
        ///
        /// Panics if `uri` is not a URI, like every method here.
        #[must_use]
        pub fn sync(&self, uri: &str, app_url: &str) -> Request<Body> {
            let signed = canonical_json(&serde_json::json!({ "url": app_url }));
            let mut sent = String::from_utf8(signed.clone()).expect("JSON is text");
            for (character, escaped) in [('&', "\\u0026"), ('<', "\\u003c"), ('>', "\\u003e")] {
                sent = sent.replace(character, escaped);
            }
            with_method(
                Method::PUT,
                self.post(uri, &self.current, &signed, sent.into()),
            )
        }

        /// Makes a sync whose response must contain the functions and be signed.
        #[must_use]
        pub fn in_band_sync(&self, uri: &str, app_url: &str) -> Request<Body> {
            let mut request = self.sync(uri, app_url);
            let in_band = HeaderValue::from_static("in_band");
            request
                .headers_mut()
                .insert(HeaderName::from_static("x-inngest-sync-kind"), in_band);
            request
        }

        /// Makes the `GET` with which Inngest asks for a description of the app.
        #[must_use]
        pub fn introspect(&self, uri: &str) -> Request<Body> {
            with_method(Method::GET, self.call(uri, Bytes::new()))
        }

        /// Makes a trust probe, to which the layer itself responds.
        #[must_use]
        pub fn probe(&self, uri: &str) -> Request<Body> {
            let mark = if uri.contains('?') { '&' } else { '?' };
            self.call(&format!("{uri}{mark}probe=trust"), Bytes::new())
        }

        /// Makes a genuine call that is one second older than the longest possible tolerance.
        #[must_use]
        pub fn stale(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let longest = Tolerance::from_secs(u64::MAX).as_secs();
            let at = self.now().saturating_sub(longest + 1);
            request(uri, &self.current.sign(&body, at).to_string(), body)
        }

        /// Makes a call whose body was changed after it was signed: `!` was appended.
        #[must_use]
        pub fn tampered(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let body = body.into();
            let sent = [&*body, b"!"].concat();
            self.post(uri, &self.current, &body, sent.into())
        }

        /// Makes a call without a signature.
        #[must_use]
        pub fn unsigned(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let mut request = self.call(uri, body);
            request.headers_mut().remove(SIGNATURE_HEADER);
            request
        }

        /// Makes a genuine call whose signature header is present twice.
        #[must_use]
        pub fn doubled(&self, uri: &str, body: impl Into<Bytes>) -> Request<Body> {
            let mut request = self.call(uri, body);
            let signature = request.headers()[SIGNATURE_HEADER].clone();
            request.headers_mut().append(SIGNATURE_HEADER, signature);
            request
        }

        /// Makes the same genuine call twice, as if someone captured and replayed it.
        #[must_use]
        pub fn replayed(&self, uri: &str, body: impl Into<Bytes>) -> [Request<Body>; 2] {
            let body = body.into();
            [self.call(uri, body.clone()), self.call(uri, body)]
        }

        fn post(&self, uri: &str, key: &SigningKey, signed: &[u8], sent: Bytes) -> Request<Body> {
            request(uri, &key.sign(signed, self.now()).to_string(), sent)
        }
    }

    fn canonical_json(body: &impl Serialize) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(body)
            .unwrap_or_else(|error| panic!("the body is no JSON: {error}"))
    }

    fn with_method(method: Method, mut request: Request<Body>) -> Request<Body> {
        *request.method_mut() = method;
        request
    }

    fn request(uri: &str, signature: &str, sent: Bytes) -> Request<Body> {
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, sent.len())
            .header(SIGNATURE_HEADER, signature)
            .body(Body::from(sent));
        request.unwrap_or_else(|error| panic!("{uri:?} is no URI: {error}"))
    }

    #[cfg(test)]
    mod tests {
        use axum::Router;
        use axum::response::Response;
        use axum::routing::any;
        use http::StatusCode;
        use tower::ServiceExt;

        use super::*;
        use crate::replay::MemoryReplayStore;

        const URI: &str = "/api/inngest";

        /// Returns the response's status, and the method and body that the handler received.
        async fn outcome(auth: InngestAuth, request: Request<Body>) -> (u16, String) {
            let echo = |method: Method, body: String| async move {
                let kind = [("x-inngest-sync-kind", "in_band")];
                (kind, format!("{method} {body}"))
            };
            let app = Router::new().route(URI, any(echo).layer(auth));
            let response: Response = app.oneshot(request).await.unwrap();
            let status = response.status();
            let signed = response.headers().contains_key(SIGNATURE_HEADER);
            let body = axum::body::to_bytes(response.into_body(), 1000)
                .await
                .unwrap();
            let text = String::from_utf8(body.into()).unwrap();
            (
                status.as_u16(),
                if signed {
                    format!("signed {text}")
                } else {
                    text
                },
            )
        }

        #[tokio::test]
        async fn each_method_makes_the_request_that_its_name_says() {
            let inngest = TestInngest::default().fallback("signkey-test-87654321".parse().unwrap());
            let app_url = "https://app.example/?a=1&b=<2>";
            let canonical = r#"{"url":"https://app.example/?a=1&b=<2>"}"#;
            let unauthorized = r#"{"message":"Unauthorized"}"#;
            for (request, status, handed_on) in [
                (inngest.call(URI, "[1]"), 200, "POST [1]"),
                (
                    inngest.call_json(URI, &serde_json::json!({"b": 1.0, "a": "é"})),
                    200,
                    r#"POST {"a":"é","b":1}"#,
                ),
                (inngest.call_with_fallback(URI, "[1]"), 200, "POST [1]"),
                (inngest.call_in_canonical_form(URI, "[1]"), 200, "POST [1]"),
                (
                    inngest.sync(URI, app_url),
                    200,
                    &*format!("signed PUT {canonical}"),
                ),
                (
                    inngest.in_band_sync(URI, app_url),
                    200,
                    &*format!("signed PUT {canonical}"),
                ),
                (inngest.introspect(URI), 200, "GET "),
                (inngest.probe(URI), 200, "signed {}"),
                (inngest.probe("/api/inngest?a=1"), 200, "signed {}"),
                (inngest.stale(URI, "[1]"), 401, unauthorized),
                (inngest.tampered(URI, "[1]"), 401, unauthorized),
                (inngest.unsigned(URI, "[1]"), 401, unauthorized),
                (inngest.doubled(URI, "[1]"), 401, unauthorized),
            ] {
                let what = format!("{request:?}");
                assert_eq!(
                    outcome(inngest.auth(), request).await,
                    (status, handed_on.into()),
                    "{what}"
                );
            }
        }

        #[tokio::test]
        async fn a_replayed_call_is_rejected_the_second_time() {
            let inngest = TestInngest::default();
            let store = MemoryReplayStore::new(10, inngest.clock())
                .insecure_accept_signed_before_start(true);
            let auth = inngest.auth().replay_guard(store);
            let app = Router::new().route(URI, any(|| async {}).layer(auth));
            for (request, status) in inngest.replayed(URI, "{}").into_iter().zip([200, 401]) {
                let response = app.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::from_u16(status).unwrap());
            }
        }
    }
}
