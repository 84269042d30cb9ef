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
mod replacement;
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

#[cfg(test)]
mod tests {
    use sotto_service::cluster::{Member, Members, NodeName};
    use sotto_service::nats::jetstream::{Follower, Group, peer_id};

    pub fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// A list of nodes that all keep the keys.
    pub fn members(names: &[&str]) -> Members {
        let member = |node: &&str| Member {
            name: name(node),
            nats_url: "tls://127.0.0.1:4222".to_owned(),
            routes: "127.0.0.1:6222".parse().unwrap(),
            admission: "127.0.0.1:6223".parse().unwrap(),
            key: String::new(),
            certificate: String::new(),
            keeps_keys: true,
        };
        Members {
            serial: 1,
            nodes: names.iter().map(member).collect(),
            replaced: Vec::new(),
        }
    }

    /// Led by `a`, with these others and whether each is there.
    pub fn group(others: &[(&str, bool)]) -> Group {
        let follower = |(name, there): &(&str, bool)| Follower {
            name: (*name).to_owned(),
            id: peer_id(name),
            current: *there,
            offline: !there,
            lag: 0,
        };
        Group {
            leader: "a".to_owned(),
            followers: others.iter().map(follower).collect(),
            size: others.len() + 1,
        }
    }
}
