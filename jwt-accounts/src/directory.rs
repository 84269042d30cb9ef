//! The directory of an org: who its users are, with which devices, and which
//! role they have where. One append-only, hash-chained, signed log; its state
//! is what replaying the log gives.
//!
//! [`decide`] turns a command into changes or refuses it, [`State::apply`]
//! takes one event in; both are pure. [`DirectoryLog`] and [`DirectoryWriter`]
//! keep the log in JetStream.
//! What holds whoever asks is a [`Rule`], kept by the state; who may ask for
//! what stands in [`crate::policy`].

mod chain;
mod command;
mod event;
mod log;
#[cfg(test)]
mod properties;
mod rule;
mod state;

pub use chain::{ChainError, Head};
pub use command::{Command, Refusal, decide};
pub use event::{Actor, Change, Event, InviteHash, Malformed, Role, Scope};
pub use log::{AppendError, DirectoryLog, DirectoryWriter, Known, LogError};
pub use rule::Rule;
pub use state::{Device, Invite, RevokedDevice, Room, State, User};
