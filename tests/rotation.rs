//! Keys that change while calls are in flight.
#![cfg(feature = "layer")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::Request;
use common::{CALL, NOW, inngest, key};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use inngest_auth::testing::TestClock;
use inngest_auth::{InngestAuth, KeyRing, SIGNATURE_HEADER, SignResponses, SigningKey};
use tokio::net::TcpStream;
use tokio::sync::RwLock;

const CLIENTS: usize = 8;
const SWAPS: usize = 1000;

fn nth(at: usize) -> SigningKey {
    key(&format!("signkey-test-{at:08x}"))
}

/// Every call is signed with a key that was current or fallback when it was sent. A swap waits for
/// the calls sent before it only as long as a rotation does: a key stays valid over one swap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_reject_nothing() {
    let ring = KeyRing::from(nth(0));
    let auth = InngestAuth::new(ring.clone())
        .clock(TestClock::at(NOW))
        .sign_responses(SignResponses::All);
    let server = common::serve(
        Router::new()
            .fallback(|body: Bytes| async { body })
            .layer(auth),
    )
    .await;
    // The number of the key that the sender signs with. Calls hold the lock shared, a swap
    // exclusively.
    let signs_with = Arc::new(RwLock::new(0));
    let (done, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (signs_with, done, calls) = (
                Arc::clone(&signs_with),
                Arc::clone(&done),
                Arc::clone(&calls),
            );
            tokio::spawn(async move {
                let socket = TokioIo::new(TcpStream::connect(server).await.unwrap());
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(socket).await.unwrap();
                tokio::spawn(connection);
                let mut number = 0;
                while !done.load(Ordering::SeqCst) {
                    number += 1;
                    let body = format!("{{\"client\":{client},\"call\":{number}}}");
                    let at = signs_with.read().await;
                    let key = nth(*at);
                    let request = Request::post(CALL)
                        .header("host", "localhost")
                        .header(SIGNATURE_HEADER, key.sign(body.as_bytes(), NOW).to_string())
                        .body(Full::new(Bytes::from(body.clone())));
                    let response = sender.send_request(request.unwrap()).await.unwrap();
                    drop(at);
                    assert_eq!(response.status(), 200, "call {number} of client {client}");
                    let header = response.headers()[SIGNATURE_HEADER]
                        .to_str()
                        .unwrap()
                        .to_owned();
                    let response = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(
                        (header, &*response),
                        (key.sign(&response, NOW).to_string(), body.as_bytes())
                    );
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for at in 1..=SWAPS {
        // Deploys the new key with the old one as fallback, while calls still use the old key. Then
        // the sender switches.
        ring.rotate(nth(at));
        let before = calls.load(Ordering::SeqCst);
        let stopped = || clients.iter().any(tokio::task::JoinHandle::is_finished);
        while at % 50 == 0 && calls.load(Ordering::SeqCst) < before + CLIENTS && !stopped() {
            tokio::task::yield_now().await;
        }
        *signs_with.write().await = at;
        if at % 2 == 0 {
            ring.retire_fallback();
        }
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(calls.load(Ordering::SeqCst) >= CLIENTS * SWAPS / 50);
}

#[tokio::test]
async fn a_response_is_signed_with_the_key_that_verified_even_if_it_was_removed_meanwhile() {
    let it = inngest();
    let auth = it.auth().sign_responses(SignResponses::All);
    let ring = auth.keys().unwrap().clone();
    let handler = move |body: Bytes| async move {
        ring.replace(key("signkey-test-cc"));
        body
    };
    let app = Router::new().fallback(handler).layer(auth);
    let response = common::ask(&app, it.call_with_fallback(CALL, "{}")).await;
    let expected = key("signkey-test-87654321").sign(b"{}", NOW).to_string();
    assert_eq!(response.header(SIGNATURE_HEADER), Some(&*expected));
    assert_eq!(
        common::ask(&app, it.call(CALL, "{}")).await.status,
        401,
        "the next request sees the change"
    );
}

#[tokio::test]
async fn an_operator_can_find_out_whether_the_old_key_can_be_removed() {
    let it = inngest();
    let auth = it.auth();
    let ring = auth.keys().unwrap().clone();
    let app = common::Seen::default().app(auth);
    for (request, at) in [
        (it.call(CALL, "1"), NOW),
        (it.call_with_fallback(CALL, "2"), NOW + 5),
        (it.call(CALL, "3"), NOW + 9),
        (it.tampered(CALL, "4"), NOW + 9),
        (it.unsigned(CALL, "5"), NOW + 9),
    ] {
        it.clock().set(Some(at));
        common::ask(&app, request).await;
    }
    let usage = ring.usage();
    assert_eq!(
        (usage.current, usage.fallback, usage.fallback_last_used),
        (2, 1, Some(NOW + 5))
    );
}
