//! An HTTP client behind the outbound layer must be `Clone`.

use compile_fail::prelude::*;

#[cfg_attr(not(feature = "broken"), derive(Clone))]
struct Connection;

fn main() {
    let held = Connection;
    let client = service_fn(move |_: Request<Body>| {
        let _ = &held;
        done()
    });
    InngestApiAuth::from_env().layer(client); //~ Connection, Clone
}
