//! What every kind of client can do on a real cluster of three nodes, cell by
//! cell against the policy; what happens to those who try other things; and
//! how soon whoever is revoked is out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test, with functions of its own"
)]

mod hostile;
mod matrix;
mod org;
mod revocation;
#[path = "../server/mod.rs"]
mod server;
