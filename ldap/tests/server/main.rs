//! Imports from, and exports to, real LDAP servers on this machine.

mod export;
mod fetch;
mod import;
mod lies;
mod slapd;
