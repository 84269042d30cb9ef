//! Bad networks and bad disks on purpose: a proxy in front of a server that is
//! as slow, as far away and as lossy as it is told to be, and the same every
//! time for the same seed; and a file system that loses what was not synced.
//!
//! It moves bytes and never looks into them, and it must never be part of what
//! is shipped: tests and demos put it between and below the real programs.
//!
//! [`lane`] is the pure model of one direction of a link, [`proxy`] moves
//! bytes by it and counts them, [`door`] lets a process in a network namespace
//! of its own out through proxies only. [`disk`] is the file system. [`ports`]
//! finds addresses for the servers that are put behind all this.

pub mod disk;
pub mod door;
pub mod lane;
pub mod ports;
pub mod proxy;
mod socket;

pub use disk::Disk;
pub use door::Door;
pub use lane::Conditions;
pub use proxy::{Link, Traffic, Way};
pub use socket::Place;
