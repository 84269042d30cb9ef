//! The directory of an org: who its users are, with which devices, and which
//! role they have where. One append-only, hash-chained, signed log; its state
//! is what replaying the log gives.
//!
//! [`decide`] turns a command into changes or refuses it, [`State::apply`]
//! takes one event in; both are pure. [`DirectoryLog`] and [`DirectoryWriter`]
//! keep the log in JetStream, [`snapshot`] shortens the way to its end, and
//! [`export`] takes it to where it can be checked without a server.
//! What holds whoever asks is a [`Rule`], kept by the state; who may ask for
//! what stands in [`crate::policy`].

mod chain;
mod command;
mod event;
pub mod export;
mod log;
#[cfg(test)]
mod properties;
mod rule;
mod state;
mod terms;
mod wire;

pub use chain::{ChainError, Head};
pub use command::{CHANGES_MAX, COMMANDS_MAX, Command, Refusal, decide};
pub use event::{Change, Event, InviteHash};
pub use log::{AppendError, Appended, DirectoryLog, DirectoryWriter, Known, LogError};
pub use rule::Rule;
pub use state::snapshot;
pub use state::{
    Departure, Device, Group, Invite, Project, RevokedDevice, Room, State, User, UserStatus,
};
pub use terms::{
    Actor, By, ExternalId, ExternalIdError, Holder, Intervention, Role, Scope, Status, Titled,
};
pub use wire::Malformed;
