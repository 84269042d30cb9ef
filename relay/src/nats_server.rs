//! nats-server as a supervised child process: found, configured, started,
//! watched, restarted, and held to what we demand of it.
//!
//! The relay must never serve while the server could acknowledge a message
//! that is not on disk, and must never start a second server on the same
//! streams.

mod binary;
mod config;
mod demands;
mod disk;
mod health;
mod orphan;
mod supervisor;

pub use binary::NatsBinary;
pub use config::write_config;
pub use health::{Finding, Health};
pub use supervisor::Supervisor;
