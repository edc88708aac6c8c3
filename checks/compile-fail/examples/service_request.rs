//! The inner service must accept a request with Axum's body.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Taken = Body;
#[cfg(feature = "broken")]
type Taken = String;

fn main() {
    let inner = service_fn(|_: Request<Taken>| done());
    InngestAuth::from_env().layer(inner); //~ Request<String>, Body
}
