//! The body of a request must be `Send`. Its type is known where the request is sent.

use compile_fail::prelude::*;

fn main() {
    let service = InngestAuth::from_env().layer(service_fn(|_: Request<Body>| done()));
    let held = Shared::new(());
    let body = Empty::<Bytes>::new().map_frame(move |frame| {
        let _ = &held;
        frame
    });
    drop(service.oneshot(Request::new(body))); //~ Rc<()>, Send
}
