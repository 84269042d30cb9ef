//! The client without its surroundings: identity and devices, rooms (one MLS
//! group each), outbox, history and files.
//!
//! Nothing here opens a socket or a file, reads a clock or starts a task:
//! inputs, the time and a random generator come in as arguments, outputs are
//! drained in order. See [`engine`] for the rules that a shell must keep.

pub mod account;
mod commits;
pub mod engine;
pub mod files;
mod group;
pub mod history;
mod holes;
mod identity_backup;
pub mod io;
mod leaf;
pub mod link;
pub mod login;
mod mls;
mod orders;
pub mod pace;
mod records;
mod resend;
mod room;
mod rules;
pub mod signup;
pub mod store;
pub mod vault;
mod wiped;

pub use records::RecordsError;
pub use wiped::Wiped;
