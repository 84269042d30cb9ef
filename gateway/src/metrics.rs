//! What a gateway shows to whoever watches it (`sotto_service::watch`).
//!
//! | part | what |
//! |---|---|
//! | `counters` | what the gateway counts, and the names of it |
//! | `count` | each request of the API on its way through |
//! | `figures` | both, and how its connections to NATS are |
//!
//! No label names a user, a room, a device or an address: paths are those of
//! the API, by their subject, and reasons are kinds of refusals.

mod count;
mod counters;
mod figures;

pub use count::{count, marked};
pub use counters::Metrics;
pub use figures::GatewayFigures;
