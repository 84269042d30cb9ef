//! The client's shell on a computer: disk, gateway, NATS, files and the one
//! task that moves inputs and outputs of [`sotto_client_core`].
//!
//! Nothing here decides anything about rooms, keys or messages.

mod access;
pub mod clock;
pub mod files;
pub mod gateway;
pub mod home;
pub mod nats;
mod poor_link;
pub mod redb_store;
pub mod security_key;
pub mod session;

pub use sotto_tls as tls;
