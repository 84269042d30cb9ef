//! Bad networks on purpose: a proxy in front of a server that is as slow, as
//! far away and as lossy as it is told to be, and the same every time for the
//! same seed.
//!
//! It moves bytes and never looks into them, and it must never be part of what
//! is shipped: tests and demos put it between the real programs.
//!
//! [`lane`] is the pure model of one direction of a link, [`proxy`] moves
//! bytes by it and counts them, [`door`] lets a process in a network namespace
//! of its own out through proxies only.

pub mod door;
pub mod lane;
pub mod proxy;
mod socket;

pub use lane::Conditions;
pub use proxy::{Link, Traffic};
pub use socket::Place;
