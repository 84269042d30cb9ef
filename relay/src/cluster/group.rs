//! Who of the nodes is there now, as nats-server's own group of servers sees
//! it: asked of the node that leads the group, through the system account.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How often the group is asked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A node that has not answered the leader for so long is away: it is asked
/// every second.
const SILENCE: Duration = Duration::from_secs(15);

/// The group of nats-servers that agree on streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name of the node that leads.
    pub leader: String,
    /// The others.
    pub followers: Vec<Follower>,
    /// How many belong to it, there or not.
    pub size: usize,
}

/// A node that does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Peer")]
pub struct Follower {
    /// Its name.
    pub name: String,
    /// Whether it has all that the leader has.
    pub current: bool,
    /// Whether it is away.
    pub offline: bool,
    /// How many entries it is behind.
    pub lag: u64,
}

/// What nats-server says of one, or another relay.
#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    /// How long it has not answered the leader, in ns.
    #[serde(default)]
    active: u64,
    #[serde(default)]
    lag: u64,
}

impl From<Peer> for Follower {
    fn from(peer: Peer) -> Self {
        // nats-server itself calls one that was killed offline after minutes.
        let silent = Duration::from_nanos(peer.active) > SILENCE;
        Self {
            name: peer.name,
            current: peer.current && !silent,
            offline: peer.offline || silent,
            lag: peer.lag,
        }
    }
}

impl Group {
    /// Why membership must not change now, or nothing.
    pub fn unsettled(&self, members: usize) -> Option<String> {
        if self.size != members {
            return Some(format!(
                "{} of {members} nodes have come so far",
                self.size.min(members)
            ));
        }
        let behind = self
            .followers
            .iter()
            .find(|node| node.offline || !node.current);
        behind.map(|node| match node.offline {
            true => format!("the node {} is away", node.name),
            false => format!("the node {} is behind by {}", node.name, node.lag),
        })
    }
}

/// Asks after the group; nothing when nobody leads it.
pub async fn ask(system: &Client) -> Option<Group> {
    let question = r#"{"leader_only":true}"#;
    let asked = system.request("$SYS.REQ.SERVER.PING.JSZ", question.into());
    let answer = tokio::time::timeout(TIMEOUT, asked).await.ok()?.ok()?;
    let answer: Answer = serde_json::from_slice(&answer.payload).ok()?;
    let group = answer.data?.meta_cluster?;
    Some(Group {
        leader: Some(group.leader).filter(|leader| !leader.is_empty())?,
        followers: group.replicas,
        size: group.cluster_size,
    })
}

/// Keeps `group` as it is, until nobody wants to know.
pub async fn follow(system: Client, group: Arc<watch::Sender<Option<Group>>>) {
    loop {
        let now = ask(&system).await;
        group.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Jsz>,
}

#[derive(Deserialize)]
struct Jsz {
    meta_cluster: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Follower>,
    #[serde(default)]
    cluster_size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_silent_for_long_is_away() {
        let follower = |active: u64| -> Follower {
            let json = format!(r#"{{"name":"b","current":true,"active":{active},"lag":4}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert!(!follower(1_500_000_000).offline);
        assert!(follower(15_000_000_001).offline);
        assert!(!follower(15_000_000_001).current);
    }

    #[test]
    fn membership_waits_for_whoever_is_away_or_behind() {
        let follower = |current, offline| Follower {
            name: "b".to_owned(),
            current,
            offline,
            lag: 4,
        };
        let group = |followers: &[Follower], size| Group {
            leader: "a".to_owned(),
            followers: followers.to_vec(),
            size,
        };
        assert_eq!(group(&[follower(true, false)], 2).unsettled(2), None);
        assert_eq!(group(&[], 1).unsettled(1), None);
        for unsettled in [
            group(&[follower(true, true)], 2),
            group(&[follower(false, false)], 2),
            group(&[], 1),
        ] {
            assert!(unsettled.unsettled(2).is_some(), "{unsettled:?}");
        }
    }
}
