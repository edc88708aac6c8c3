//! Bodies, bounded in size, time and memory.

pub(super) mod backlog;
pub(super) mod budget;
pub(super) mod buffer;
pub(super) mod read;
