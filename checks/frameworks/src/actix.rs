//! actix-web: its own types, its own runtime, and a thread for each worker.

use std::net::{SocketAddr, TcpListener};

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use inngest_auth::{SIGNATURE_HEADER, Verifier};

use crate::by_hand::{admit, signature};
use crate::{PATH, SYNC_KIND, Setup};

async fn inngest(
    request: HttpRequest,
    body: web::Payload,
    verifier: web::Data<Option<Verifier>>,
) -> HttpResponse {
    let (verifier, headers) = (Option::as_ref(&verifier), request.headers());
    let signatures = headers.get_all(SIGNATURE_HEADER).map(HeaderValue::as_bytes);
    let announced = headers.get("content-length");
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    let admitted = match admit(verifier, signatures, announced, body).await {
        Ok(admitted) => admitted,
        Err(rejection) => {
            let status = StatusCode::from_u16(rejection.kind().status()).expect("a valid status");
            return HttpResponse::build(status).finish();
        }
    };
    let in_band = request.method() == "PUT";
    let mut response = HttpResponse::Ok();
    if in_band {
        response.insert_header((SYNC_KIND, "in_band"));
    }
    if let Some(signature) = signature(verifier, &admitted, in_band, &admitted.body) {
        response.insert_header((SIGNATURE_HEADER, signature));
    }
    response.body(admitted.body)
}

pub(crate) fn start(setup: &Setup) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let verifier = web::Data::new(setup.verifier());
    std::thread::spawn(move || {
        let app = move || {
            App::new()
                .app_data(verifier.clone())
                .route(PATH, web::to(inngest))
        };
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .listen(listener);
        actix_web::rt::System::new().block_on(server.expect("it listens").run())
    });
    address
}
