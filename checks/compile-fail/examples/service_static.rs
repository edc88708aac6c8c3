//! The inner service must own what it holds.

use compile_fail::prelude::*;

fn main() {
    let text = String::new();
    #[cfg(feature = "broken")]
    let text = &text;
    let inner = service_fn(move |_: Request<Body>| {
        let _ = &text;
        done()
    });
    InngestAuth::from_env().layer(inner); //~ text, 'static
}
