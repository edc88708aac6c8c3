//! The error of a request's body must convert into a boxed error. Its type is known where the
//! request is sent.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Failure = std::io::Error;
#[cfg(feature = "broken")]
type Failure = std::time::Duration;

fn main() {
    let service = InngestAuth::from_env().layer(service_fn(|_: Request<Body>| done()));
    let body = Empty::<Bytes>::new().map_err(|never| -> Failure { match never {} });
    drop(service.oneshot(Request::new(body))); //~ Error, From<Duration>
}
