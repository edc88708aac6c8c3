//! Two layers on a `MethodRouter` must be one tuple, because the error between them cannot be
//! inferred. The layers of `axum::middleware` fix that error, so they can also be added one by one.

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::any;
use compile_fail::prelude::*;
use tower::util::MapResponseLayer;

fn main() {
    let auth = InngestAuth::from_env();
    let other = MapResponseLayer::new(|response: Response| response);
    #[cfg(not(feature = "broken"))]
    let guarded = any(async || ()).layer((other, auth.clone()));
    #[cfg(feature = "broken")]
    let guarded = any(async || ()).layer(auth.clone()).layer(other); //~ type annotations needed
    let pass = map_response(async |response: Response| response);
    let counted = any(async || ()).layer(auth).layer(pass);
    let _: Router = Router::new().route("/", guarded).route("/b", counted);
}
