//! nats-server as a supervised child process: found, configured, started,
//! watched, restarted, and held to what we demand of it.
//!
//! The relay must never serve while the server could acknowledge a message
//! that is not on disk, and must never start a second server on the same
//! streams.

mod accounts;
mod binary;
mod carried;
mod config;
pub mod disk;
mod health;
mod orphan;
pub mod peer_state;
mod process;
mod supervisor;

pub use accounts::NatsAccounts;
pub use binary::NatsBinary;
pub use config::{ConfigFile, write_witness};
pub use health::{Finding, Health};
pub use supervisor::{Adopted, Supervisor};
