//! Imports from, and exports to, real LDAP servers on this machine.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod export;
mod fetch;
mod import;
mod lies;
mod slapd;
