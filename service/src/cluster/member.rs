//! The list of nodes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ClusterError, REPLICAS, REPLICAS_FROM, read, write};
use crate::Layout;

/// Longest name of a node, in characters.
const NAME_MAX: usize = 32;

/// The name of a node: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

sotto_log::log_safe!(NodeName);

/// Where a node is reached: `host:port`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// Why a text is no name of a node, or no address of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a node's name.
    #[error("a node's name has 1 to {NAME_MAX} of the characters a-z, 0-9 and -: choose another")]
    Node,
    /// Not `host:port`.
    #[error("`{0}` is not an address: write HOST:PORT, with an IPv6 address in brackets")]
    Endpoint(String),
}

/// One node, as all know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Where clients reach its nats-server.
    pub nats_url: String,
    /// Where the other nodes reach its nats-server.
    pub routes: Endpoint,
    /// Where they reach its relay, as do nodes that join.
    pub admission: Endpoint,
    /// SHA-256 of its key's SubjectPublicKeyInfo, 64 hexadecimal digits: what
    /// the routes of the others accept.
    pub key: String,
    /// SHA-256 of its certificate, the same way.
    pub certificate: String,
    /// Whether it has the key store and the authorities' keys, so that it can
    /// be a gateway and admit others.
    pub keeps_keys: bool,
}

/// All nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// Grows with each change: of two lists the one with the larger counts.
    pub serial: u64,
    /// By the order of their joining.
    pub nodes: Vec<Member>,
    /// Lost nodes for which others were let in: they are none any more, and
    /// nats-server's group of servers is still to forget them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<NodeName>,
}

impl Members {
    /// The list on disk.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn load(layout: &Layout) -> Result<Self, ClusterError> {
        read(&layout.cluster_members())
    }

    /// Writes the list, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<(), ClusterError> {
        write(&layout.cluster_members(), self)
    }

    /// The node of this name.
    pub fn get(&self, name: &NodeName) -> Option<&Member> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The list with one more node.
    #[must_use]
    pub fn with(mut self, node: Member) -> Self {
        self.nodes.retain(|other| other.name != node.name);
        self.nodes.push(node);
        self.serial = self.serial.saturating_add(1);
        self
    }

    /// The list without one node.
    #[must_use]
    pub fn without(mut self, name: &NodeName) -> Self {
        self.nodes.retain(|node| node.name != *name);
        self.serial = self.serial.saturating_add(1);
        self
    }

    /// The list with one node in the place of another.
    #[must_use]
    pub fn with_in_place_of(self, node: Member, lost: &NodeName) -> Self {
        let mut members = self.without(lost).with(node);
        members.replaced.push(lost.clone());
        members
    }

    /// The list when the group of servers has forgotten a replaced node.
    #[must_use]
    pub fn with_forgotten(mut self, name: &NodeName) -> Self {
        self.replaced.retain(|replaced| replaced != name);
        self.serial = self.serial.saturating_add(1);
        self
    }

    /// On how many nodes everything is to be kept.
    pub fn replicas(&self) -> usize {
        if self.nodes.len() >= REPLICAS_FROM {
            REPLICAS
        } else {
            1
        }
    }
}

impl NodeName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Endpoint {
    /// An endpoint at this host, which may be an IPv6 address.
    ///
    /// # Errors
    /// [`NameError::Endpoint`].
    pub fn new(host: &str, port: u16) -> Result<Self, NameError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let fits = (1..=253).contains(&host.len())
            && port != 0
            && host
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"-.:".contains(&c));
        match fits {
            true => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            false => Err(NameError::Endpoint(format!("{host}:{port}"))),
        }
    }

    /// The host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, which is not 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=NAME_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(NameError::Node),
        }
    }
}

impl FromStr for Endpoint {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let unreadable = || NameError::Endpoint(text.chars().take(80).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(unreadable)?;
        let port = port.parse().map_err(|_| unreadable())?;
        let bare = host.starts_with('[') || !host.contains(':');
        match bare {
            true => Self::new(host, port).map_err(|_| unreadable()),
            false => Err(unreadable()),
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member {
            name: name.parse().unwrap(),
            nats_url: "tls://127.0.0.1:4222".to_owned(),
            routes: "127.0.0.1:6222".parse().unwrap(),
            admission: "[::1]:6223".parse().unwrap(),
            key: String::new(),
            certificate: String::new(),
            keeps_keys: false,
        }
    }

    #[test]
    fn names_and_addresses_that_could_break_a_configuration_are_refused() {
        for bad in ["", "A", "a b", "a\"", "a.b", &"x".repeat(33)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for bad in [
            "", "a", "a:", ":1", "a:0", "a:99999", "::1:5", "a b:1", "a\":1",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
        for good in ["node-1.example:6222", "127.0.0.1:1", "[::1]:6222"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn every_change_of_the_list_has_a_larger_serial_and_a_name_is_there_once() {
        let one = Members {
            serial: 1,
            nodes: vec![member("a")],
            replaced: Vec::new(),
        };
        let two = one.clone().with(member("b"));
        assert!(two.serial > one.serial);
        let again = two.clone().with(member("b"));
        assert_eq!(again.nodes.len(), 2);
        assert_eq!(again.without(&"a".parse().unwrap()).nodes.len(), 1);
    }

    #[test]
    fn three_nodes_keep_three_copies_and_two_keep_one() {
        let mut members = Members {
            serial: 0,
            nodes: Vec::new(),
            replaced: Vec::new(),
        };
        for (name, replicas) in [("a", 1), ("b", 1), ("c", 3), ("d", 3), ("e", 3)] {
            members = members.with(member(name));
            assert_eq!(members.replicas(), replicas, "{name}");
        }
    }

    #[test]
    fn a_lost_node_is_none_from_when_another_is_in_its_place() {
        let [a, b] = ["a", "b"].map(|name| name.parse().unwrap());
        let before = Members {
            serial: 7,
            nodes: vec![member("a"), member("b"), member("c")],
            replaced: Vec::new(),
        };
        let members = before.clone().with_in_place_of(member("d"), &a);
        assert!(members.serial > before.serial);
        assert_eq!(members.replicas(), 3);
        assert!(members.get(&a).is_none());
        assert_eq!(members.replaced, std::slice::from_ref(&a));
        let members = members.with_in_place_of(member("e"), &b);
        let forgotten = members.clone().with_forgotten(&a);
        assert!(forgotten.serial > members.serial);
        assert_eq!(forgotten.replaced, [b]);
    }

    #[test]
    fn a_list_without_replaced_nodes_reads_as_it_did_before_there_were_any() {
        let list = Members {
            serial: 7,
            nodes: Vec::new(),
            replaced: Vec::new(),
        };
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(json, r#"{"serial":7,"nodes":[]}"#);
        assert_eq!(serde_json::from_str::<Members>(&json).unwrap(), list);
    }

    #[test]
    fn the_list_comes_back_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        crate::private_files::create_dir(&layout.cluster()).unwrap();
        let members = Members {
            serial: 7,
            nodes: vec![member("a"), member("b")],
            replaced: Vec::new(),
        };
        members.save(&layout).unwrap();
        assert_eq!(Members::load(&layout).unwrap(), members);
    }
}
