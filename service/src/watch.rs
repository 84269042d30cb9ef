//! How a server program is watched: three paths on a loopback address.
//!
//! | path | answer |
//! |---|---|
//! | `GET /healthz` | `ok`: the process is there, and its event loop turns |
//! | `GET /readyz` | `ready`; or 503 and what the program waits for; a line each, and one for what else should be known |
//! | `GET /metrics` | what is counted, as OpenMetrics text |
//!
//! Everybody on this machine may ask, in clear, as often as they like. So no
//! answer names a user, a room or a device, nothing can be changed, what a
//! client may take is bounded, and no address is listened on but a loopback one.

mod connections;
mod figures;
mod loopback;
mod readiness;
mod router;
mod server;

pub use connections::{Connections, is_connected};
pub use figures::{Figures, OfOrg};
pub use loopback::{Loopback, LoopbackError};
pub use readiness::{NO_NATS, Readiness};
pub use server::{Watch, WatchError};
