//! Bodies, bounded in bytes, in time and in memory.

pub(super) mod backlog;
pub(super) mod budget;
pub(super) mod buffer;
pub(super) mod read;
