//! poem: `http`'s types, and a body of its own. It takes Tower services too, if their response
//! bodies are `Sync`.

use std::net::SocketAddr;

use axum::body::Body;
use inngest_auth::{SIGNATURE_HEADER, Verifier};
use poem::endpoint::TowerCompatExt;
use poem::http::{HeaderValue, StatusCode};
use poem::listener::{Acceptor, Listener, TcpListener};
use poem::{Endpoint, Request, Response, Server};
use tower::ServiceBuilder;

use crate::by_hand::{Admitted, admit, signature};
use crate::sync_body::SyncBody;
use crate::{SYNC_KIND, Setup, layered};

/// The endpoint: all that poem itself takes.
async fn inngest(verifier: Option<Verifier>, mut request: Request) -> Response {
    let in_band = request.method() == "PUT";
    let body = request.take_body();
    let Some(verifier) = verifier else {
        let body = body.into_vec().await.unwrap_or_default();
        return respond(in_band, Admitted { body, signer: None }, None);
    };
    let headers = request.headers();
    let signatures = headers
        .get_all(SIGNATURE_HEADER)
        .iter()
        .map(HeaderValue::as_bytes);
    let announced = headers
        .get("content-length")
        .and_then(|it| it.to_str().ok()?.parse().ok());
    match admit(&verifier, signatures, announced, body.into_bytes_stream()).await {
        Ok(admitted) => {
            let signature = signature(&verifier, &admitted, in_band, &admitted.body);
            respond(in_band, admitted, signature)
        }
        Err(rejection) => {
            let status = StatusCode::from_u16(rejection.kind().status()).expect("it is a status");
            Response::builder().status(status).finish()
        }
    }
}

fn respond(in_band: bool, admitted: Admitted, signature: Option<String>) -> Response {
    let mut response = Response::builder();
    if in_band {
        response = response.header(SYNC_KIND, "in_band");
    }
    if let Some(signature) = signature {
        response = response.header(SIGNATURE_HEADER, signature);
    }
    response.body(admitted.body)
}

/// By `Verifier`.
pub(crate) async fn start(setup: &Setup) -> SocketAddr {
    let verifier = setup.verifier();
    let endpoint = poem::endpoint::make(move |request| {
        let verifier = verifier.clone();
        async move { Ok::<_, poem::Error>(inngest(verifier, request).await) }
    });
    serve(endpoint).await
}

/// By the layer.
pub(crate) async fn start_tower(setup: &Setup) -> SocketAddr {
    let service = ServiceBuilder::new()
        .map_response(|response: http::Response<Body>| response.map(SyncBody::new))
        .layer(setup.auth())
        .service_fn(layered::functions);
    serve(service.compat()).await
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
