//! Whether every node of a cluster is there and has what the others have.

use std::time::Duration;

use serde::Deserialize;

use super::streams::Jsz;
use crate::finding::{Check, Finding};
use crate::system::Reply;

/// A node that has not answered the leader for so long is away: it is asked
/// every second.
const SILENCE: Duration = Duration::from_secs(15);

/// The group of servers, as one of them sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    /// The name of who leads; empty when nobody does.
    pub leader: String,
    /// The others; only the one that leads knows how they are.
    pub replicas: Vec<Peer>,
}

/// One that does not lead.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    /// Its name.
    pub name: String,
    current: bool,
    offline: bool,
    /// How long it has not answered the leader, in ns.
    active: u64,
    lag: u64,
}

impl Peer {
    /// Whether it does not answer. nats-server itself calls one that was killed
    /// offline only after minutes.
    pub fn is_away(&self) -> bool {
        self.offline || Duration::from_nanos(self.active) > SILENCE
    }

    /// Whether it has all that the leader has.
    pub fn is_current(&self) -> bool {
        self.current && !self.is_away()
    }
}

/// The group as its leader sees it; nothing when nobody leads.
pub(crate) fn group(replies: &[Reply<Jsz>]) -> Option<Group> {
    let led = |reply: &&Reply<Jsz>| {
        let group = reply.data.meta_cluster.as_ref();
        group.is_some_and(|group| group.leader == reply.server.name)
    };
    replies.iter().find(led)?.data.meta_cluster.clone()
}

/// What to say of the nodes.
pub(crate) fn judge(members: &[&str], group: Option<&Group>) -> Vec<Finding> {
    let Some(group) = group else {
        return vec![Finding::problem(
            Check::Nats,
            format!(
                "none of the {} nodes leads: too few are there to agree on anything",
                members.len()
            ),
            "start the nodes that are stopped, and see that they reach each other on their ports for routes",
        )];
    };
    let mut findings: Vec<Finding> = members
        .iter()
        .filter(|name| **name != group.leader)
        .filter_map(|name| judge_node(name, group))
        .collect();
    if findings.is_empty() {
        let what = format!(
            "all {} nodes are there and have everything; {} leads",
            members.len(),
            group.leader
        );
        findings.push(Finding::ok(Check::Nats, what));
    }
    findings
}

fn judge_node(name: &str, group: &Group) -> Option<Finding> {
    match group.replicas.iter().find(|peer| peer.name == name) {
        None => Some(Finding::problem(
            Check::Nats,
            format!("the node {name} was let in and has not come"),
            format!("start {name}, or take it out with `sotto-relay cluster remove {name}`"),
        )),
        Some(peer) if peer.is_away() => Some(Finding::problem(
            Check::Nats,
            format!("the node {name} does not answer"),
            format!(
                "start {name} again and see that it is reached on its port for routes; if its machine is lost, `sotto-relay cluster remove {name}` and let another one join"
            ),
        )),
        Some(peer) if !peer.is_current() => Some(Finding::warning(
            Check::Nats,
            format!("the node {name} is behind by {} entries", peer.lag),
            format!("wait until {name} has caught up, and stop no other node before that"),
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn peer(name: &str, current: bool, seconds: u64) -> Peer {
        Peer {
            name: name.to_owned(),
            current,
            offline: false,
            active: seconds * 1_000_000_000,
            lag: 4,
        }
    }

    fn levels(replicas: Vec<Peer>) -> Vec<Level> {
        let group = Group {
            leader: "n1".to_owned(),
            replicas,
        };
        let findings = judge(&["n1", "n2", "n3"], Some(&group));
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn every_node_must_be_there_and_current() {
        let fine = || peer("n2", true, 1);
        assert_eq!(levels(vec![fine(), peer("n3", true, 1)]), [Level::Ok]);
        assert_eq!(levels(vec![fine(), peer("n3", false, 1)]), [Level::Warning]);
        assert_eq!(levels(vec![fine(), peer("n3", true, 16)]), [Level::Problem]);
        assert_eq!(levels(vec![fine()]), [Level::Problem]);
        assert_eq!(levels(Vec::new()), [Level::Problem, Level::Problem]);
    }

    #[test]
    fn without_a_leader_nothing_works() {
        let [finding] = &judge(&["n1", "n2"], None)[..] else {
            panic!()
        };
        assert_eq!(finding.level, Level::Problem);
    }
}
