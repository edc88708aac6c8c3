//! The inner service's future must be `Send`.

use compile_fail::prelude::*;

fn main() {
    let inner = service_fn(|_: Request<Body>| async {
        let held = Shared::new(());
        let response = done().await;
        drop(held);
        response
    });
    InngestAuth::from_env().layer(inner); //~ Rc<()>, Send
}
