//! What nats-server says of JetStream (its `JSZ`): who of the nodes is there,
//! and where each stream is led and kept. Read here and nowhere else; what is
//! said of it is for whoever asks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Asks for all that is read here.
pub const QUESTION: &str = r#"{"accounts":true,"streams":true,"config":true}"#;
/// A node that has not answered the leader for so long is away: it is asked
/// every second.
const SILENCE: Duration = Duration::from_secs(15);
/// Characters of a node's id (nats-server, `getHash` in `events.go`).
const ID: usize = 8;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// By what nats-servers know the one of this name in their group. It is what
/// remains of a node when every server was started anew since it was lost.
pub fn peer_id(name: &str) -> String {
    let hash = Sha256::digest(name);
    let digits = hash.iter().take(ID).map(|byte| {
        let digit = DIGITS.get(usize::from(*byte) % DIGITS.len());
        char::from(digit.copied().unwrap_or_default())
    });
    digits.collect()
}

/// One server's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Jsz {
    /// What the streams take on its disk, in bytes.
    pub storage: u64,
    meta_cluster: Option<Raft>,
    account_details: Vec<Account>,
}

/// The group of nats-servers that agree on streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name of the node that leads.
    pub leader: String,
    /// The others, as the one that leads sees them: no other knows.
    pub followers: Vec<Follower>,
    /// How many belong to it, there or not.
    pub size: usize,
}

/// A node that does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Peer")]
pub struct Follower {
    /// Its name; a sentence for one of which the leader has never heard: see
    /// [`Self::is`].
    pub name: String,
    /// Its id in the group.
    pub id: String,
    /// Whether it has all that the leader has.
    pub current: bool,
    /// Whether it is away.
    pub offline: bool,
    /// How many entries it is behind.
    pub lag: u64,
}

/// One stream or bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The account's name: the org's.
    pub account: String,
    /// Its own.
    pub name: String,
    /// On how many nodes it is to be kept.
    pub copies: usize,
    /// The node that leads it; none during an election, and on a server alone.
    pub leader: Option<String>,
    /// The other nodes that keep it.
    pub followers: Vec<Follower>,
    /// Whether writes are acknowledged before they are on a disk.
    pub is_asynchronous: bool,
    /// Messages in it.
    pub messages: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The sequence of the last one.
    pub last_sequence: u64,
}

/// Streams by account and name.
pub type Streams = BTreeMap<(String, String), Stream>;

impl Jsz {
    /// The group of servers; nothing when nobody leads it.
    pub fn group(&self) -> Option<Group> {
        let group = self.meta_cluster.as_ref()?;
        (!group.leader.is_empty()).then(|| Group {
            leader: group.leader.clone(),
            followers: group.replicas.clone(),
            size: group.cluster_size,
        })
    }

    /// The streams that this server keeps.
    pub fn streams(self) -> impl Iterator<Item = Stream> {
        self.account_details.into_iter().flat_map(|account| {
            let details = account.stream_detail.into_iter();
            details.map(move |detail| detail.of(account.name.clone()))
        })
    }

    /// Adds what `server` says. The one that leads a stream knows best; without
    /// a leader any other will do.
    pub fn add_to(self, streams: &mut Streams, server: &str) {
        for stream in self.streams() {
            let key = (stream.account.clone(), stream.name.clone());
            let leads = stream.leader.as_deref() == Some(server);
            if leads || !streams.contains_key(&key) {
                streams.insert(key, stream);
            }
        }
    }
}

impl Group {
    /// Whether this node belongs to it, there or not.
    pub fn has(&self, name: &str) -> bool {
        self.leader == name || self.follower(name).is_some()
    }

    /// The node of this name, if it does not lead.
    pub fn follower(&self, name: &str) -> Option<&Follower> {
        self.followers.iter().find(|node| node.is(name))
    }
}

impl Follower {
    /// Whether it has this name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name || self.id == peer_id(name)
    }

    /// Whether it is there and has everything.
    pub fn is_whole(&self) -> bool {
        self.current && !self.offline
    }
}

impl Stream {
    /// Nodes that have not got everything, or are away.
    pub fn behind(&self) -> impl Iterator<Item = &str> {
        let behind = self.followers.iter().filter(|node| !node.is_whole());
        behind.map(|node| node.name.as_str())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raft {
    leader: String,
    replicas: Vec<Follower>,
    cluster_size: usize,
}

/// What nats-server says of a follower, or another relay.
#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    peer: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    /// How long it has not answered the leader, in ns; 0 when it never has.
    #[serde(default)]
    active: Option<u64>,
    #[serde(default)]
    lag: u64,
}

impl From<Peer> for Follower {
    fn from(peer: Peer) -> Self {
        // nats-server itself calls one that was killed offline after minutes.
        let silent = |active| active == 0 || Duration::from_nanos(active) > SILENCE;
        let silent = peer.active.is_some_and(silent);
        Self {
            name: peer.name,
            id: peer.peer,
            current: peer.current && !silent,
            offline: peer.offline || silent,
            lag: peer.lag,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    name: String,
    stream_detail: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    name: String,
    cluster: Option<Raft>,
    config: Config,
    state: State,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    num_replicas: usize,
    persist_mode: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_replicas: 1,
            persist_mode: String::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    messages: u64,
    bytes: u64,
    last_seq: u64,
}

impl Detail {
    fn of(self, account: String) -> Stream {
        let group = self.cluster.unwrap_or_default();
        Stream {
            account,
            name: self.name,
            copies: self.config.num_replicas,
            leader: Some(group.leader).filter(|leader| !leader.is_empty()),
            followers: group.replicas,
            is_asynchronous: self.config.persist_mode == "async",
            messages: self.state.messages,
            bytes: self.state.bytes,
            last_sequence: self.state.last_seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(leader: &str, current: bool) -> Jsz {
        let text = json!({
            "meta_cluster": {"leader": leader, "cluster_size": 2, "replicas": [{"name": "b"}]},
            "account_details": [{"name": "acme", "stream_detail": [{
                "name": "MAIL-0", "config": {"num_replicas": 3, "persist_mode": "async"},
                "state": {"messages": 7, "bytes": 70, "last_seq": 9},
                "cluster": {"leader": leader, "replicas": [{"name": "b", "current": current}]},
            }]}],
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_the_leader_says_counts_whoever_answers_first() {
        for answers in [[("b", true), ("a", false)], [("a", false), ("b", true)]] {
            let mut streams = Streams::new();
            for (server, current) in answers {
                answer("a", current).add_to(&mut streams, server);
            }
            let stream = streams.into_values().next().unwrap();
            assert_eq!(stream.behind().collect::<Vec<_>>(), ["b"]);
            assert_eq!((stream.copies, stream.is_asynchronous), (3, true));
            let figures = (stream.messages, stream.bytes, stream.last_sequence);
            assert_eq!(figures, (7, 70, 9));
        }
    }

    #[test]
    fn there_is_no_group_that_nobody_leads() {
        assert_eq!(answer("", true).group(), None);
        assert_eq!(Jsz::default().group(), None);
        let group = answer("a", true).group().unwrap();
        assert_eq!((group.leader.as_str(), group.size), ("a", 2));
    }

    #[test]
    fn a_server_alone_keeps_everything_once() {
        let text = r#"{"account_details":[{"name":"acme","stream_detail":[{"name":"INBOX"}]}]}"#;
        let alone: Jsz = serde_json::from_str(text).unwrap();
        let stream = alone.streams().next().unwrap();
        assert_eq!((stream.copies, stream.leader), (1, None));
        assert!(!stream.is_asynchronous);
    }

    #[test]
    fn who_has_been_silent_for_long_is_away() {
        let follower = |active: u64| -> Follower {
            let json = format!(r#"{{"name":"b","current":true,"active":{active},"lag":4}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert!(follower(1_500_000_000).is_whole());
        assert!(follower(15_000_000_001).offline);
        assert!(!follower(15_000_000_001).current);
        // One that led until it was lost has never answered its successor.
        assert!(follower(0).offline);
    }

    #[test]
    fn ids_are_those_that_nats_server_shows() {
        for (name, id) in [("n1", "fjFyEjc1"), ("n2", "44jzkV9D"), ("n3", "BXScrY9i")] {
            assert_eq!(peer_id(name), id);
        }
    }

    /// As the leader says when all were started anew since it was lost.
    #[test]
    fn who_was_lost_before_the_leader_started_is_away_and_has_its_name() {
        let json = r#"{"name":"Server name unknown at this time (peerID: BXScrY9i)",
            "peer":"BXScrY9i","active":0}"#;
        let lost: Follower = serde_json::from_str(json).unwrap();
        assert!(lost.is("n3") && !lost.is("n2"));
        assert!(lost.offline);
    }
}
