//! Plays Sotto through from outside: starts the real programs, types what
//! people type, kills processes, listens in, and compares.
//!
//! Everything goes through the `sotto` binary, or through the library that it
//! is made of ([`session`]), and the server's public ports. Only [`tap`] and [`stranger`] speak NATS themselves, because what they do
//! is what the product must not help anybody to do.

pub mod case;
pub mod chaos;
pub mod cluster;
pub mod consul;
pub mod conversation;
pub mod crowd;
pub mod garbage;
pub mod links;
pub mod machines;
pub mod markers;
pub mod mounts;
mod namespace;
pub mod network;
pub mod person;
pub mod process;
pub mod programs;
pub mod qr;
pub mod releases;
pub mod report;
pub mod server;
pub mod session;
pub mod stranger;
pub mod tap;
pub mod traffic;
