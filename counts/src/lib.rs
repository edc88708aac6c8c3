//! Only its benches count: see `check`.
