//! The inner service's error must be `Send`.

use compile_fail::prelude::*;

fn main() {
    let inner = service_fn(|_: Request<Body>| async {
        Ok::<Response<Body>, Shared<()>>(Response::default())
    });
    InngestAuth::from_env().layer(inner); //~ Rc<()>, Send
}
