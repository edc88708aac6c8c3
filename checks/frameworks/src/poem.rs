//! poem: the types of `http` and its own body. It also takes Tower services whose response bodies
//! are `Sync`.

use std::net::SocketAddr;

use axum::body::Body;
use futures_util::TryStreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use inngest_auth::{InngestAuth, SIGNATURE_HEADER, Verifier};
use poem::endpoint::TowerCompatExt;
use poem::http::{HeaderValue, StatusCode};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Endpoint, Request, Response, Server};
use sync_wrapper::SyncStream;
use tower::ServiceBuilder;

use crate::by_hand::{admit, signature};
use crate::layered::functions;
use crate::{SYNC_KIND, Setup};

async fn inngest(verifier: Option<&Verifier>, mut request: Request) -> Response {
    let body = request.take_body().into_bytes_stream();
    let headers = request.headers();
    let signatures = headers.get_all(SIGNATURE_HEADER).iter();
    let signatures = signatures.map(HeaderValue::as_bytes);
    let announced = headers.get("content-length");
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let admitted = match admit(verifier, signatures, announced, body).await {
        Ok(admitted) => admitted,
        Err(rejection) => {
            let status = StatusCode::from_u16(rejection.kind().status()).expect("a valid status");
            return Response::builder().status(status).finish();
        }
    };
    let in_band = request.method() == "PUT";
    let mut response = Response::builder();
    if in_band {
        response = response.header(SYNC_KIND, "in_band");
    }
    if let Some(signature) = signature(verifier, &admitted, in_band, &admitted.body) {
        response = response.header(SIGNATURE_HEADER, signature);
    }
    response.body(admitted.body)
}

/// Starts a server with a `Verifier`.
pub(crate) async fn start(setup: &Setup) -> SocketAddr {
    let verifier = setup.verifier();
    let endpoint = poem::endpoint::make(move |request| {
        let verifier = verifier.clone();
        async move { Ok::<_, poem::Error>(inngest(verifier.as_ref(), request).await) }
    });
    serve(endpoint).await
}

/// Starts a server with the layer.
pub(crate) async fn start_tower(setup: &Setup) -> SocketAddr {
    serve(guarded(setup.auth())).await
}

fn guarded(auth: InngestAuth) -> impl Endpoint {
    let sync_body = |body: Body| {
        let pieces = SyncStream::new(body.into_data_stream());
        StreamBody::new(pieces.map_ok(Frame::data))
    };
    let service = ServiceBuilder::new()
        .map_response(move |response: http::Response<Body>| response.map(sync_body))
        .layer(auth)
        .service_fn(functions);
    service.compat()
}

async fn serve(endpoint: impl Endpoint + 'static) -> SocketAddr {
    let acceptor = TcpListener::bind("127.0.0.1:0")
        .into_acceptor()
        .await
        .expect("loopback has a free port");
    let address = *acceptor.local_addr()[0]
        .as_socket_addr()
        .expect("it is a TCP listener");
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint));
    address
}
