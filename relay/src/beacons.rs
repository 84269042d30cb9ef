//! What devices say of themselves on `beacon.<device>`: that they are there,
//! and how far they have come.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `confirmed` | what every device of a room has, from what each has said | none |
//! | `presence` | whom a beacon is told to, and how often | none |
//! | `service` | beacons in, presence out, and the janitor's deletions | NATS |
//!
//! The janitor deletes messages of a room that every one of its devices has
//! said to have. All of it is in memory: a relay that has just started deletes
//! nothing until the devices have said their cursors again. Handshakes are
//! never deleted, nor is a room's newest message.

mod confirmed;
mod presence;
mod service;

pub use service::BeaconService;
