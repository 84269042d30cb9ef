//! Who may do what in an org, and how nats-server is told so: the directory
//! log, the policy over it, and the NATS JWTs that carry a device's grants.
//!
//! `claims`, `grants`, `policy` and the deciding part of `directory` are pure:
//! no I/O, no clock, no randomness. Around them are four thin shells:
//! [`keystore`] (seeds on disk), [`nsc`] (the same as other NATS tools keep
//! them), [`push_account`] (an account to the server's
//! resolver) and [`directory::DirectoryLog`] (the log in its stream).
//!
//! This crate must never let a device have a `$JS.API` grant, print a seed, or
//! believe a directory event that it does not fully understand.

mod accounts;
pub mod claims;
mod credentials;
pub mod directory;
pub mod grants;
pub mod keystore;
pub mod nsc;
pub mod policy;
mod push;
mod signer;
mod status;

pub use credentials::{Credentials, CredentialsError};
pub use push::{PushError, push_account};
pub use signer::{AccountSigner, DeviceJwt};
pub use status::{
    AccountVersion, HeldAccount, OldConnections, Trust, connections_by, held_accounts,
    trusted_operators,
};
