//! The nodes of a cluster: who is one, where each is reached, and the
//! certificates by which they know each other.
//!
//! A server that was never bootstrapped or joined has none of this: it is one
//! machine, and nats-server runs alone. What is here is the same on every
//! node but for `node.json` and the node's own key; it decides nothing and
//! must never hold a seed.

mod authority;
mod member;

use crate::Layout;
use crate::private_files::{self, FileError};
use serde::{Deserialize, Serialize};

pub use authority::{
    AdmittedKey, KEEPER, NODE, NodeKey, admit, authority_fingerprint, client_config,
    create_authority, fingerprint, issue_own, joining_config, server_config,
};
pub use member::{Endpoint, Member, Members, NameError, NodeName};

/// Most nodes of a cluster: beyond five, each write waits for more disks and
/// no more failures are survived than by adding streams.
pub const NODES_MAX: usize = 5;
/// From so many nodes on everything is kept on [`REPLICAS`] of them.
pub const REPLICAS_FROM: usize = 3;
/// Copies of every stream in a cluster of [`REPLICAS_FROM`] or more.
pub const REPLICAS: usize = 3;
/// Where nats-servers listen for each other by custom, and relays by ours.
pub const ROUTES_PORT: u16 = 6222;
/// See above.
pub const ADMISSION_PORT: u16 = 6223;
/// Longest file read here, in bytes.
const FILE_MAX: u64 = 256 * 1024;

/// What this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, which is also nats-server's.
    pub name: NodeName,
    /// Where nats-server listens for the other nodes.
    pub routes_listen: std::net::SocketAddr,
    /// Where the relay listens for them, and for nodes that join.
    pub admission_listen: std::net::SocketAddr,
}

/// The cluster as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// This node.
    pub node: Node,
    /// All nodes, this one among them.
    pub members: Members,
}

/// Why the cluster's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error(
        "{path} does not read ({problem}): restore the folder `cluster` from a backup, or join again"
    )]
    Damaged {
        /// Which one.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// This node is not among the members.
    #[error("this node, {0}, is not in the cluster any more: join again into a new directory")]
    Removed(NodeName),
}

sotto_log::log_safe!(ClusterError);

impl Cluster {
    /// What is on disk; nothing when this server is no node of a cluster.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn load(layout: &Layout) -> Result<Option<Self>, ClusterError> {
        let path = layout.cluster_node();
        if !path.is_file() {
            return Ok(None);
        }
        let node: Node = read(&path)?;
        let members = Members::load(layout)?;
        if members.get(&node.name).is_none() {
            return Err(ClusterError::Removed(node.name));
        }
        Ok(Some(Self { node, members }))
    }

    /// On how many nodes a server keeps everything: what is new is kept on as
    /// many from its first message on.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn copies(layout: &Layout) -> Result<usize, ClusterError> {
        let cluster = Self::load(layout)?;
        Ok(cluster.map_or(1, |cluster| cluster.members.replicas()))
    }

    /// The other nodes.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        let own = &self.node.name;
        self.members
            .nodes
            .iter()
            .filter(move |node| node.name != *own)
    }
}

impl Node {
    /// Writes `node.json`, durably: from then on the server is a node.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<(), ClusterError> {
        write(&layout.cluster_node(), self)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, ClusterError> {
    let text = private_files::read_text(path, FILE_MAX)?;
    serde_json::from_str(&text).map_err(|error| ClusterError::Damaged {
        path: path.display().to_string(),
        problem: error.to_string(),
    })
}

fn write(path: &std::path::Path, value: &impl Serialize) -> Result<(), ClusterError> {
    let json = serde_json::to_vec_pretty(value);
    let json = json.map_err(|error| FileError::new("write", path, error.into()))?;
    Ok(private_files::write(path, &json)?)
}
