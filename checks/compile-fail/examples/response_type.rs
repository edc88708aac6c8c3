//! The inner service must return an HTTP response.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Given = Response<Body>;
#[cfg(feature = "broken")]
type Given = String;

fn main() {
    let inner = service_fn(|_: Request<Body>| async { result(Given::default()) });
    InngestAuth::from_env().layer(inner); //~ String, Response<
}
