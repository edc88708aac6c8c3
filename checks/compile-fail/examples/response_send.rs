//! The body of the inner service's response must be `Send`.

use compile_fail::prelude::*;

fn main() {
    let inner = service_fn(|_: Request<Body>| async {
        let held = Shared::new(());
        let body = Empty::<Bytes>::new().map_frame(move |frame| {
            let _ = &held;
            frame
        });
        result(Response::new(body))
    });
    InngestAuth::from_env().layer(inner); //~ Rc<()>, Send
}
