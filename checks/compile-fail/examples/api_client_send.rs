//! An HTTP client behind the outbound layer must be `Send`.

use compile_fail::prelude::*;

fn main() {
    let held = Shared::new(());
    let client = service_fn(move |_: Request<Body>| {
        let _ = &held;
        done()
    });
    InngestApiAuth::from_env().layer(client); //~ Rc<()>, Send
}
