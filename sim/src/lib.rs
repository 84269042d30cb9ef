//! A whole org in one thread: the real client engines around a model of relay
//! and gateway, with a seeded generator that decides what is lost, delayed,
//! doubled and killed. The same seed gives the same run of the protocol.
//!
//! The model keeps the promises that the relay makes (one order per stream,
//! compare-and-set on a subject, duplicate window) and none beyond them. It is
//! for the protocol only: what NATS itself does is for tests with NATS.

#![allow(
    clippy::indexing_slicing,
    reason = "a run that names a machine that is not there is a mistake in a test"
)]

mod directory;
mod machine;
mod streams;
mod talk;
mod world;

pub use machine::Machine;
pub use streams::Streams;
pub use world::{Faults, World};
