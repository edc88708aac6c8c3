//! Only its benches count: see `run`.
