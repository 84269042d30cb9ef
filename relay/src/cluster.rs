//! A relay as a node of a cluster: how the first begins one, how others join
//! it, how all learn who belongs to it, and how what is stored comes to be on
//! enough of them.
//!
//! A node that keeps the keys admits others and tells all who the nodes are;
//! nats-server does the rest. No seed of the operator or an account leaves a
//! machine through here, but for the sealed key store, which only a machine
//! gets that joins as a gateway.

mod admission;
pub mod adoption;
mod bootstrap;
mod bundle;
mod commands;
mod exchange;
mod group;
mod growth;
pub mod hold_back;
mod join;
mod lock;
mod membership;
mod remove;
mod status;
mod streams;
mod sync;
mod tokens;
mod turn;

pub use bootstrap::{BootstrapArgs, bootstrap};
pub use commands::{ClusterArgs, run};
pub use growth::Growth;
pub use join::{JoinArgs, join};
pub use lock::Held;
pub use membership::Membership;
pub use turn::{Turn, TurnArgs};
