//! The loop against a real server that knows one of the keys, and a second host that must receive
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use inngest_auth::{KeyRing, Keys, SigningKey};
use reqwest::{Method, Request};
use sdk_interop::{call, client};

fn key(text: &str) -> SigningKey {
    text.parse().unwrap()
}

async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    address
}

fn to(address: SocketAddr) -> Request {
    let mut request = Request::new(
        Method::POST,
        format!("http://{address}/fn/register").parse().unwrap(),
    );
    *request.body_mut() = Some("{}".into());
    request
}

#[tokio::test]
async fn one_request_where_the_current_key_is_known_two_where_only_the_fallback_is() {
    let keys = KeyRing::from(Keys::new(
        key("signkey-prod-11"),
        Some(key("signkey-prod-22")),
    ));
    for (known, status, requests) in [
        ("signkey-prod-11", 200, 1),
        ("signkey-prod-22", 200, 2),
        ("signkey-prod-33", 401, 2),
    ] {
        let bearer = format!("Bearer {}", key(known).bearer().as_str());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let app = Router::new().fallback(move |headers: HeaderMap, body: String| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            assert_eq!(body, "{}");
            if headers["authorization"] == bearer {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            }
        });
        let response = call(&client().unwrap(), &keys, &to(serve(app).await))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), count.load(Ordering::SeqCst)),
            (status, requests),
            "{known}"
        );
    }
}

#[tokio::test]
async fn a_redirect_takes_no_token_to_a_second_host() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let elsewhere = serve(Router::new().fallback(move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
    }))
    .await;
    let location = format!("http://{elsewhere}/");
    let api = Router::new().fallback(move || async move {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, location)],
        )
    });
    let keys = KeyRing::from(key("signkey-prod-11"));
    let response = call(&client().unwrap(), &keys, &to(serve(api).await))
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), seen.load(Ordering::SeqCst)),
        (307, 0)
    );
}
