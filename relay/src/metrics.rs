//! What a relay counts, with nats-server's own monitoring folded in, as
//! OpenMetrics text on a loopback address: `[relay] metrics` of server.toml.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `counters` | what the relay counts of itself | none |
//! | `page` | names, labels and values become text | none |
//! | `nats` | what nats-server says of itself | NATS |
//! | `server` | `GET /metrics` | HTTP |
//!
//! No label names a user, a room or a device.

mod counters;
mod nats;
mod page;
mod server;

pub use counters::Metrics;
pub use server::MetricsServer;
