//! An org's users and groups from an LDAP server, and its tree as LDIF.
//!
//! [`import::fetch`] reads what a [`Mapping`] asks for; [`plan`](plan::plan)
//! compares it with the directory and says which commands are missing. Nothing
//! here changes the directory: whoever holds a plan has a gateway decide it.
//! What a server sends is believed only as far as it was asked for, bounded in
//! size and time, and never taken for complete when it is not.

pub mod import;
pub mod ldif;
pub mod plan;

mod connection;
mod dn;
mod mapping;
pub mod messages;
mod names;

pub use dn::{BadDn, Dn};
pub use mapping::{Attribute, BadMapping, Filter, Mapping};
