//! Properties that hold for every input.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use inngest_auth::testing::TestInngest;
use inngest_auth::{Keys, Signature, SigningKey, Tolerance, verify};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

const NOW: u64 = 1_700_000_000;

fn accepted(body: &[u8], header: &str, key: &SigningKey) -> bool {
    let keys = Keys::from(key.clone());
    let signature = header.parse::<Signature>();
    signature
        .is_ok_and(|signature| verify(body, &signature, &keys, NOW, Tolerance::default()).is_ok())
}

/// Checks the grammar, written in the obvious way.
fn grammatical(header: &str) -> bool {
    let params: Vec<&str> = header.split('&').collect();
    let named = |name: &str| {
        params
            .iter()
            .filter(|it| it.split('=').next() == Some(name) && it.contains('='))
            .count()
    };
    let fits = |param: &&str| {
        let Some((name, value)) = param.split_once('=') else {
            return false;
        };
        match name {
            "t" => {
                value.len() == 10
                    && !value.starts_with('0')
                    && value.chars().all(|it| it.is_ascii_digit())
            }
            "s" => value.len() == 64 && value.chars().all(|it| it.is_ascii_hexdigit()),
            _ => !name.is_empty() && param.chars().all(|it| ('!'..='~').contains(&it)),
        }
    };
    named("t") == 1 && named("s") == 1 && params.iter().all(fits)
}

fn param() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "t=[1-9][0-9]{9}",
        4 => "s=[0-9a-fA-F]{64}",
        2 => "[a-z]{0,3}=[!-~]{0,4}",
        1 => "t=[0-9]{8,12}",
        1 => "s=[0-9a-g]{62,66}",
        1 => "[ -~]{0,4}",
        1 => "[ts]=?\\PC{0,3}",
    ]
}

/// A body in frames of the given sizes, then the rest.
struct Cut(Bytes, std::vec::IntoIter<usize>);

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.1.next().unwrap_or(usize::MAX).min(self.0.len());
        Poll::Ready(Some(Ok(Frame::data(self.0.split_to(size)))))
    }
}

proptest! {
    #[test]
    fn signed_bytes_verify(
        body: Vec<u8>,
        key in "([0-9a-fA-F]{2}){1,40}",
        at in NOW - 300..=NOW + 300,
    ) {
        let key: SigningKey = format!("signkey-test-{key}").parse().unwrap();
        prop_assert!(accepted(&body, &key.sign(&body, at).to_string(), &key));
    }

    #[test]
    fn a_printed_signature_parses_to_the_same(body: Vec<u8>, at: u64) {
        let key: SigningKey = "12345678".parse().unwrap();
        let signature = key.sign(&body, at);
        prop_assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
    }

    #[test]
    fn a_changed_byte_of_the_body_is_rejected(
        mut body in prop::collection::vec(any::<u8>(), 1..200),
        at: prop::sample::Index,
        by in 1..=255u8,
    ) {
        let key: SigningKey = "12345678".parse().unwrap();
        let header = key.sign(&body, NOW).to_string();
        let at = at.index(body.len());
        body[at] ^= by;
        prop_assert!(!accepted(&body, &header, &key));
    }

    #[test]
    fn a_lost_or_added_byte_is_rejected(
        body in prop::collection::vec(any::<u8>(), 1..100),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let key: SigningKey = "12345678".parse().unwrap();
        let header = key.sign(&body, NOW).to_string();
        let at = at.index(body.len());
        let mut lost = body.clone();
        lost.remove(at);
        let mut added = body.clone();
        added.insert(at, byte);
        prop_assert!(!accepted(&lost, &header, &key) && !accepted(&added, &header, &key));
    }

    #[test]
    fn a_changed_digit_of_the_header_is_rejected(at: prop::sample::Index, digit in "[0-9a-f]") {
        let key: SigningKey = "12345678".parse().unwrap();
        let header = key.sign(b"{}", NOW).to_string();
        let at = at.index(header.len());
        let mut changed = header.clone();
        changed.replace_range(at..=at, &digit);
        prop_assume!(changed != header);
        prop_assert!(!accepted(b"{}", &changed, &key), "{}", changed);
    }

    #[test]
    fn another_key_is_rejected(one in "([0-9a-f]{2}){1,40}", other in "([0-9a-f]{2}){1,40}") {
        prop_assume!(one != other);
        let [one, other]: [SigningKey; 2] = [one.parse().unwrap(), other.parse().unwrap()];
        let header = one.sign(b"{}", NOW).to_string();
        prop_assert!(!accepted(b"{}", &header, &other), "{}", header);
    }

    #[test]
    fn the_parser_accepts_exactly_the_grammar(params in prop::collection::vec(param(), 0..5)) {
        let header = params.join("&");
        prop_assert_eq!(header.parse::<Signature>().is_ok(), grammatical(&header), "{}", header);
    }

    #[test]
    fn no_header_panics(header: Vec<u8>) {
        let _ = Signature::parse(&header);
    }

    /// However the bytes are cut into frames, the verdict and the bytes are the same.
    #[test]
    fn framing_changes_nothing(
        len in prop_oneof![0..3000usize, 10_000..200_000usize],
        sizes in prop::collection::vec(
            prop_oneof![0..5usize, 0..3000usize, 15_000..70_000usize],
            0..60,
        ),
        genuine: bool,
    ) {
        let body: Bytes = (0..len).map(|it| u8::try_from(it * 31 % 251).unwrap()).collect();
        let it = TestInngest::new("signkey-test-12345678".parse().unwrap());
        let make = if genuine { TestInngest::call } else { TestInngest::tampered };
        let request = make(&it, "/", body.clone());
        let sent = if genuine { body.clone() } else { [&*body, b"!"].concat().into() };
        let echo = service_fn(|request: axum::http::Request<Body>| async {
            Ok::<_, Infallible>(axum::http::Response::new(request.into_body()))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let request = request.map(|_| Cut(sent, sizes.into_iter()));
        let (status, echoed, exact) = runtime.block_on(async {
            let auth = it.auth().sign_responses(inngest_auth::SignResponses::Never);
            let response = auth.layer(echo).oneshot(request).await.unwrap();
            let exact = http_body::Body::size_hint(response.body()).exact();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes(), exact)
        });
        prop_assert_eq!(status.is_success(), genuine);
        if genuine {
            prop_assert_eq!(exact, Some(len as u64));
            prop_assert_eq!(echoed, body);
        }
    }
}
