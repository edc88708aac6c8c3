//! The body of a request must yield `Bytes`. Its type is known where the request is sent.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Data = Bytes;
#[cfg(feature = "broken")]
type Data = &'static [u8];

fn main() {
    let service = InngestAuth::from_env().layer(service_fn(|_: Request<Body>| done()));
    let request = Request::new(Full::<Data>::default());
    drop(service.oneshot(request)); //~ Full<&[u8]>, Data == Bytes
}
