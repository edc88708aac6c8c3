//! actix-web: its own types, its own runtime, a thread for each worker.

use std::net::{SocketAddr, TcpListener};

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderValue;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use inngest_auth::{SIGNATURE_HEADER, Verifier};

use crate::by_hand::{Admitted, admit, signature};
use crate::{SYNC_KIND, Setup};

/// The endpoint: all that actix-web itself takes.
async fn inngest(
    request: HttpRequest,
    body: web::Payload,
    verifier: web::Data<Option<Verifier>>,
) -> HttpResponse {
    let Some(verifier) = verifier.get_ref() else {
        let body = body.to_bytes().await.unwrap_or_default().to_vec();
        return respond(&request, &Admitted { body, signer: None }, |_| None);
    };
    let headers = request.headers();
    let signatures = headers.get_all(SIGNATURE_HEADER).map(HeaderValue::as_bytes);
    let announced = headers
        .get("content-length")
        .and_then(|it| it.to_str().ok()?.parse().ok());
    match admit(verifier, signatures, announced, body).await {
        Ok(admitted) => respond(&request, &admitted, |body| {
            signature(verifier, &admitted, request.method() == "PUT", body)
        }),
        Err(rejection) => {
            let status = StatusCode::from_u16(rejection.kind().status()).expect("it is a status");
            HttpResponse::build(status).finish()
        }
    }
}

fn respond(
    request: &HttpRequest,
    admitted: &Admitted,
    sign: impl FnOnce(&[u8]) -> Option<String>,
) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if request.method() == "PUT" {
        response.insert_header((SYNC_KIND, "in_band"));
    }
    if let Some(signature) = sign(&admitted.body) {
        response.insert_header((SIGNATURE_HEADER, signature));
    }
    response.body(admitted.body.clone())
}

pub(crate) fn start(setup: &Setup) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let verifier = web::Data::new(setup.verifier());
    std::thread::spawn(move || {
        let app = move || {
            App::new()
                .app_data(verifier.clone())
                .default_service(web::to(inngest))
        };
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .listen(listener);
        actix_web::rt::System::new().block_on(server.expect("it listens").run())
    });
    address
}
