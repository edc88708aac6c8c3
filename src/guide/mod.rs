//! The guide: one page a subject, each with an example that runs.
//!
//! | page | what it answers |
//! |---|---|
//! | [`adoption`] | how does it get in front of an app that is there already? |
//! | [`handlers`] | what can a handler rely on, and what not? |
//! | [`placement`] | where must it not stand? |
//! | [`dev_mode`] | what do I set beside the dev server, and on a server of my own? |
//! | [`rotation`] | how do keys change without a refused call? |
//! | [`tests`](mod@tests) | how do I test my own router? |
//! | [`metrics`] | what do I count, and what should wake somebody? |
//! | [`troubleshooting`] | I see this message: what now? |
//! | [`outside_axum`] | how do I use it with hyper, on Lambda, or on bytes alone? |
//! | [`official_sdk`] | how does it go with the crate `inngest`? |
#![allow(
    unused_imports,
    reason = "the pages link to what the crate exports by its name"
)]

use crate::replay::{MemoryReplayStore, ReplayStore};
use crate::testing::{TestClock, TestInngest};
use crate::*;

#[doc = include_str!("adoption.md")]
pub mod adoption {}
#[doc = include_str!("dev_mode.md")]
pub mod dev_mode {}
#[doc = include_str!("handlers.md")]
pub mod handlers {}
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[doc = include_str!("official_sdk.md")]
pub mod official_sdk {}
#[doc = include_str!("outside_axum.md")]
pub mod outside_axum {}
#[doc = include_str!("placement.md")]
pub mod placement {}
#[doc = include_str!("rotation.md")]
pub mod rotation {}
#[doc = include_str!("tests.md")]
pub mod tests {}
#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}
