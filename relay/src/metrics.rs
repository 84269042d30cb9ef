//! What a relay shows to whoever watches it (`sotto_service::watch`): what it
//! counts, with nats-server's own monitoring folded in.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `counters` | what the relay counts of itself | none |
//! | `nats` | what nats-server says of itself | NATS |
//! | `figures` | both, and how many rooms there are | none |
//!
//! No label names a user, a room or a device.

mod counters;
mod figures;
mod nats;

pub use counters::Metrics;
pub use figures::RelayFigures;
