//! What every server binary shares and none of them owns: where things are on
//! disk, the configuration, TLS, logging, stopping, and the connection to NATS.
//!
//! Nothing here knows what a relay or a gateway does, holds a key of the
//! directory or of an account, or decides who may do what.

pub mod awaiting_leaders;
pub mod cause;
pub mod cluster;
pub mod config;
pub mod consul;
pub mod exit;
pub mod handover;
pub mod layout;
mod limits;
pub mod listeners;
pub mod logging;
pub mod nats;
pub mod network;
pub mod private_files;
pub mod readiness;
pub mod replicas;
pub mod shutdown;
pub mod tls;
pub mod unit;
pub mod watch;

pub use config::{OrgConfig, ServerArgs, ServerConfig, SmsConfig};
pub use layout::Layout;
