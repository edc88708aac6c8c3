//! The inner service must be `Send`.

use compile_fail::prelude::*;

fn main() {
    let held = Shared::new(());
    let inner = service_fn(move |_: Request<Body>| {
        let _ = &held;
        done()
    });
    InngestAuth::from_env().layer(inner); //~ Rc<()>, Send
}
