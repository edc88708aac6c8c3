//! The body of the inner service's response must yield `Bytes`.

use compile_fail::prelude::*;

#[cfg(not(feature = "broken"))]
type Data = Bytes;
#[cfg(feature = "broken")]
type Data = &'static [u8];

fn main() {
    let inner =
        service_fn(|_: Request<Body>| async { result(Response::new(Full::<Data>::default())) });
    InngestAuth::from_env().layer(inner); //~ Full<&[u8]>, Data == Bytes
}
