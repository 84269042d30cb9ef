//! The client without its surroundings: identity and devices, rooms (one MLS
//! group each), outbox, history and files.
//!
//! Nothing here opens a socket or a file, reads a clock or starts a task:
//! inputs, the time and a random generator come in as arguments, outputs are
//! drained in order. See [`Engine`] for the rules that a shell must keep.

pub mod io;
pub mod store;
mod mls;
mod records;
pub mod vault;
pub mod account;
pub mod files;
mod group;
pub mod history;
pub mod link;
pub mod login;
mod rules;
pub mod signup;
