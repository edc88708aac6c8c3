//! The guide's statements about what may surround the layer, checked with Axum.
#![cfg(feature = "layer")]

mod common;

use std::convert::Infallible;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, any, get, post};
use common::{ask, inngest};
use tower::Layer;

async fn length(body: Bytes) -> String {
    body.len().to_string()
}

fn app(route: MethodRouter<(), Infallible>) -> Router {
    Router::new().route("/api/inngest", route)
}

/// The guide's page on placement warns of the first three.
#[tokio::test]
async fn only_handlers_added_before_the_layer_are_guarded() {
    let it = inngest();
    for (route, status) in [
        (get(length).layer(it.auth()).post(length), 200),
        (get(length).layer(it.auth()).fallback(length), 200),
        (get(length).layer(it.auth()).merge(post(length)), 200),
        (get(length).post(length).layer(it.auth()), 401),
        (get(length).fallback(length).layer(it.auth()), 401),
        (get(length).merge(post(length)).layer(it.auth()), 401),
        (any(length).layer(it.auth()), 401),
    ] {
        let response = ask(&app(route), it.unsigned("/api/inngest", "{}")).await;
        assert_eq!(response.status, status);
    }
}

#[test]
fn the_inner_service_can_be_reached_through_the_layer() {
    let mut service = inngest().auth().layer(Router::new());
    assert!(!service.get_ref().has_routes());
    *service.get_mut() = app(get(length));
    assert!(service.get_ref().has_routes());
    let shown = format!("{service:?}");
    assert!(
        shown.contains("signkey-test-…") && !shown.contains("12345678"),
        "{shown}"
    );
    assert!(service.clone().into_inner().has_routes());
}

/// Axum's own limit is 2 MB, but calls are up to 4 MiB.
#[tokio::test]
async fn the_layer_lifts_axums_body_limit_but_an_inner_limit_still_applies() {
    let it = inngest();
    let call = "x".repeat(3_000_000);
    let limit = || DefaultBodyLimit::max(1000);
    for (route, status) in [
        (any(length).layer(it.auth()), 200),
        (any(length).layer((limit(), it.auth())), 200),
        (any(length).layer((it.auth(), limit())), 413),
    ] {
        let response = ask(&app(route), it.call("/api/inngest", call.clone())).await;
        assert_eq!(response.status, status);
    }
}
