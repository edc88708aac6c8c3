//! The layer among other middleware. Each place is compiled and run, with an accept and a
//! rejection.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::routing::{any, get};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use inngest_auth::testing::TestInngest;
use inngest_auth::{InngestAuth, Rejection, SIGNATURE_HEADER, SignResponses, SigningKey};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

fn inngest() -> TestInngest {
    TestInngest::new("signkey-test-12345678".parse().unwrap())
}

async fn echo(body: axum::body::Bytes) -> axum::body::Bytes {
    body
}

async fn status(app: &Router, request: Request<Body>) -> StatusCode {
    app.clone().oneshot(request).await.unwrap().status()
}

/// Checks that a genuine call is admitted and a changed one rejected.
async fn guards(app: Router, path: &str) {
    let inngest = inngest();
    let response = app.clone().oneshot(inngest.call(path, "{}")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "{}"
    );
    for request in [
        inngest.tampered(path, "{}"),
        inngest.unsigned(path, "{}"),
        inngest.stale(path, "{}"),
    ] {
        assert_eq!(
            status(&app, request).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
}

#[tokio::test]
async fn on_a_method_router() {
    let app = Router::new()
        .route("/api/inngest", any(echo).layer(inngest().auth()))
        .route("/healthz", get(|| async {}));
    guards(app.clone(), "/api/inngest").await;
    assert_eq!(
        status(&app, Request::get("/healthz").body(Body::empty()).unwrap()).await,
        StatusCode::OK
    );
    assert_eq!(
        status(&app, Request::get("/nowhere").body(Body::empty()).unwrap()).await,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn on_a_router_and_its_unknown_paths() {
    let app = Router::new()
        .route("/api/inngest", any(echo))
        .layer(inngest().auth());
    guards(app.clone(), "/api/inngest").await;
    assert_eq!(
        status(&app, Request::get("/nowhere").body(Body::empty()).unwrap()).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn as_a_route_layer_that_leaves_unknown_paths_alone() {
    let app = Router::new()
        .route("/api/inngest", any(echo))
        .route_layer(inngest().auth());
    guards(app.clone(), "/api/inngest").await;
    assert_eq!(
        status(&app, Request::get("/nowhere").body(Body::empty()).unwrap()).await,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn in_nested_routers() {
    let inner = Router::new()
        .route("/inngest", any(echo))
        .layer(inngest().auth());
    guards(Router::new().nest("/api", inner.clone()), "/api/inngest").await;
    guards(
        Router::new().nest_service("/api", inner.clone()),
        "/api/inngest",
    )
    .await;
    guards(Router::new().merge(inner), "/inngest").await;
}

#[tokio::test]
async fn in_one_service_builder_with_tower_https_layers() {
    let pass =
        from_fn(|request: axum::extract::Request, next: Next| async { next.run(request).await });
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CatchPanicLayer::new())
        .layer(CorsLayer::permissive())
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(5_000_000))
        .layer(RequestDecompressionLayer::new())
        .layer(inngest().auth())
        .layer(pass);
    guards(
        Router::new()
            .route("/api/inngest", any(echo))
            .layer(stack.clone()),
        "/api/inngest",
    )
    .await;
    guards(
        Router::new().route("/api/inngest", any(echo).layer(stack)),
        "/api/inngest",
    )
    .await;
}

#[tokio::test]
async fn a_limit_outside_is_a_413_and_a_panic_inside_is_caught_outside() {
    let it = inngest();
    let app = Router::new()
        .fallback(echo)
        .layer(it.auth())
        .layer(RequestBodyLimitLayer::new(10));
    let mut request = it.call("/", "x".repeat(11));
    // If the length is announced, the outer layer rejects. If not, its error comes from the body.
    request.headers_mut().remove(header::CONTENT_LENGTH);
    assert_eq!(status(&app, request).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        status(&app, it.call("/", "x".repeat(10))).await,
        StatusCode::OK
    );

    let panics = || async { panic!("in the handler") as () };
    let app = Router::new()
        .fallback(panics)
        .layer(it.auth())
        .layer(CatchPanicLayer::new());
    assert_eq!(
        status(&app, it.call("/", "")).await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert_eq!(
        status(&app, it.unsigned("/", "")).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn responses_are_signed_before_compression_and_requests_verified_after_decompression() {
    let it = inngest();
    let app = Router::new()
        .fallback(echo)
        .layer(it.auth().sign_responses(SignResponses::All))
        .layer(CompressionLayer::new())
        .layer(RequestDecompressionLayer::new());
    let body = format!("{{\"long\":\"{}\"}}", "x".repeat(5000));
    let mut request = it.call("/", body.clone()).map(|_| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(body.as_bytes()).unwrap();
        Body::from(gzip.finish().unwrap())
    });
    request
        .headers_mut()
        .insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    request
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, "gzip".parse().unwrap());
    request.headers_mut().remove(header::CONTENT_LENGTH);
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    let key: SigningKey = "signkey-test-12345678".parse().unwrap();
    let signature = response.headers()[SIGNATURE_HEADER]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        signature,
        key.sign(body.as_bytes(), 1_700_000_000).to_string()
    );
    let coded = response.into_body().collect().await.unwrap().to_bytes();
    let mut decoded = String::new();
    flate2::read::GzDecoder::new(&*coded)
        .read_to_string(&mut decoded)
        .unwrap();
    assert_eq!(decoded, body);
}

/// Returns the log of this thread until the guard is dropped.
fn log() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why the guide says to put compression outside.
#[tokio::test]
async fn a_response_compressed_inside_the_layer_is_unsigned_and_the_log_says_why() {
    let it = inngest();
    let (log, _guard) = log();
    let app = Router::new()
        .fallback(echo)
        .layer(CompressionLayer::new())
        .layer(it.auth().sign_responses(SignResponses::All));
    for (accepts, signed) in [("identity", true), ("gzip", false)] {
        let body = format!("{{\"{accepts}\":\"{}\"}}", "x".repeat(5000));
        let mut request = it.call("/", body);
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, accepts.parse().unwrap());
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers().contains_key(SIGNATURE_HEADER),
            signed,
            "{accepts}"
        );
        let line = "WARN inngest_auth::layer::log: the response is sent unsigned: it has a Content-Encoding; \
                    put compression outside the layer";
        let lines = log.text().matches(line).count();
        assert_eq!(lines, usize::from(!signed), "{}", log.text());
    }
}

/// Why the guide says not to put a timeout anywhere: a step may run for two hours.
#[tokio::test]
async fn a_timeout_cuts_off_a_step_with_408_and_without_a_rejection() {
    let it = inngest();
    let (log, _guard) = log();
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(1));
    let step = any(|| async { std::future::pending::<()>().await });
    for (place, app) in [
        ("inside", step.clone().layer((it.auth(), timeout))),
        ("outside", step.layer((timeout, it.auth()))),
    ] {
        let app = Router::new().route("/", app);
        let response = app.oneshot(it.call("/", "{}")).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT, "{place}");
        assert!(
            response.extensions().get::<Rejection>().is_none(),
            "{place}"
        );
        assert!(!log.text().contains("rejected"), "{place}: {}", log.text());
    }
}

/// Without a router: hyper's own server, any body in, and a body that is not Axum's out.
#[tokio::test]
async fn on_a_plain_hyper_server() {
    let it = inngest();
    let inner = service_fn(|request: Request<Body>| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    let service = ServiceBuilder::new().layer(it.auth()).service(inner);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection);
        }
    });
    let client =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    let uri = format!("http://{address}/");
    for (request, status) in [(it.call(&uri, "{}"), 200), (it.tampered(&uri, "{}"), 401)] {
        assert_eq!(client.request(request).await.unwrap().status(), status);
    }
}

/// The layer needs no type parameter, and can be stored, cloned and sent.
#[test]
fn the_layer_is_a_plain_value() {
    fn plain<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    plain(&InngestAuth::insecure_unverified_dev());
}
