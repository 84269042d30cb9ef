//! Whether every node of a cluster is there and has what the others have.

use sotto_service::nats::jetstream::{Group, Jsz};

use crate::finding::{Check, Finding};
use crate::system::Reply;

/// The group as its leader sees it; nothing when nobody leads.
pub(crate) fn group(replies: &[Reply<Jsz>]) -> Option<Group> {
    replies.iter().find_map(|reply| {
        let group = reply.data.group();
        group.filter(|group| group.leader == reply.server.name)
    })
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
    match group.follower(name) {
        None => Some(Finding::problem(
            Check::Nats,
            format!("the node {name} was let in and has not come"),
            format!(
                "start {name}; if it never will, let another machine in for it with `sotto-relay cluster token --replaces {name}`"
            ),
        )),
        Some(peer) if peer.offline => Some(Finding::problem(
            Check::Nats,
            format!("the node {name} does not answer"),
            format!(
                "start {name} again and see that it is reached on its port for routes; if its machine is lost, let another one in for it with `sotto-relay cluster token --replaces {name}`"
            ),
        )),
        Some(peer) if !peer.is_whole() => Some(Finding::warning(
            Check::Nats,
            format!("the node {name} is behind by {} entries", peer.lag),
            format!("wait until {name} has caught up, and stop no other node before that"),
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use sotto_service::nats::jetstream::Follower;

    use super::*;
    use crate::finding::Level;

    fn peer(name: &str, current: bool, offline: bool) -> Follower {
        Follower {
            name: name.to_owned(),
            id: String::new(),
            current,
            offline,
            lag: 4,
        }
    }

    fn levels(followers: Vec<Follower>) -> Vec<Level> {
        let group = Group {
            leader: "n1".to_owned(),
            size: followers.len() + 1,
            followers,
        };
        let findings = judge(&["n1", "n2", "n3"], Some(&group));
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn every_node_must_be_there_and_current() {
        let fine = || peer("n2", true, false);
        assert_eq!(levels(vec![fine(), peer("n3", true, false)]), [Level::Ok]);
        assert_eq!(
            levels(vec![fine(), peer("n3", false, false)]),
            [Level::Warning]
        );
        assert_eq!(
            levels(vec![fine(), peer("n3", true, true)]),
            [Level::Problem]
        );
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
