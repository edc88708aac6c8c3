//! The error of the response's body must convert into a boxed error.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Failure = std::io::Error;
#[cfg(feature = "broken")]
type Failure = std::time::Duration;

fn main() {
    let body = || Empty::<Bytes>::new().map_err(|never| -> Failure { match never {} });
    let inner = service_fn(move |_: Request<Body>| async move { result(Response::new(body())) });
    InngestAuth::from_env().layer(inner); //~ Error, From<Duration>
}
