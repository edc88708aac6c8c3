//! The store is in `examples/replay_cluster.rs`, its test in `tests`.
