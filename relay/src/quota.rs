//! How much an org, a room and a device may store, and how fast a device may
//! send: `[limits]` of server.toml.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `bucket` | so much at once, refilled with time: rates, and a device's day | none |
//! | `usage` | what an org and its rooms have stored | none |
//! | `ledger` | all of it together: taken in, or which limit is in the way | none |
//! | `count` | what streams say that they keep | NATS |
//!
//! Nothing here is written down: what streams keep is asked of them, and what
//! a device has sent is forgotten when the relay stops. Which device sent a
//! stored message is nowhere on the server's disk, so a device's quota is what
//! it may send in a day, at each relay.

mod bucket;
mod count;
mod ledger;
mod usage;

pub use bucket::{Bucket, Buckets};
pub use count::{Counter, ROOMS};
pub use ledger::Ledger;
pub use usage::Counted;
