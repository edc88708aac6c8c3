//! The guide: one page per subject, each with an example that runs as a test.
//!
//! | page | question |
//! |---|---|
//! | [`adoption`] | How do I put the layer in front of an existing app? |
//! | [`handlers`] | What can a handler rely on, and what not? |
//! | [`placement`] | Where must the layer not be placed? |
//! | [`dev_mode`] | What do I set for the dev server, or for a self-hosted server? |
//! | [`rotation`] | How do I change keys without rejecting a call? |
//! | [`tests`](mod@tests) | How do I test my own router? |
//! | [`metrics`] | What do I count, and what should page someone? |
//! | [`troubleshooting`] | I see this message: what do I do? |
//! | [`outside_axum`] | How do I use it with hyper, on Lambda, or on bytes alone? |
//! | [`official_sdk`] | Does it work with the crate `inngest`? |

// Each page also reads well as plain Markdown: at its end it defines its links as paths to files.
// `links.txt` defines the same links as items. It comes first, and the first definition counts, so
// rustdoc links to the items, and checks that they exist.
#![allow(unused_imports, reason = "the pages link to exported items by name")]

use crate::replay::{MemoryReplayStore, ReplayStore};
use crate::testing::{TestClock, TestInngest};
use crate::*;

#[doc = include_str!("links.txt")]
#[doc = include_str!("adoption.md")]
pub mod adoption {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("dev_mode.md")]
pub mod dev_mode {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("handlers.md")]
pub mod handlers {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("metrics.md")]
pub mod metrics {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("official_sdk.md")]
pub mod official_sdk {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("outside_axum.md")]
pub mod outside_axum {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("placement.md")]
pub mod placement {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("rotation.md")]
pub mod rotation {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("tests.md")]
pub mod tests {}
#[doc = include_str!("links.txt")]
#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}
