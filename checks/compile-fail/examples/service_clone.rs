//! The inner service must be `Clone`.

use compile_fail::prelude::*;

#[cfg_attr(not(feature = "broken"), derive(Clone))]
struct Connection;

fn main() {
    let held = Connection;
    let inner = service_fn(move |_: Request<Body>| {
        let _ = &held;
        done()
    });
    InngestAuth::from_env().layer(inner); //~ Connection, Clone
}
