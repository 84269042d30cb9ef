//! Who of the nodes is there now, as nats-server's own group of servers sees
//! it: asked of the node that leads the group, through the system account.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use sotto_service::cluster::{Members, NodeName};
use sotto_service::nats::jetstream::{Group, Jsz};
use tokio::sync::watch;

/// How often the group is asked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why membership must not change now, or nothing. Whoever is `lost` is not
/// waited for.
pub fn unsettled(group: &Group, members: &Members, lost: &[NodeName]) -> Option<String> {
    let waited_for = members.nodes.iter().map(|node| &node.name);
    let waited_for: Vec<_> = waited_for.filter(|name| !lost.contains(name)).collect();
    let come = waited_for.iter().filter(|name| group.has(name.as_str()));
    let (come, all) = (come.count(), waited_for.len());
    if come != all {
        return Some(format!("{come} of {all} nodes have come so far"));
    }
    for node in &group.followers {
        let has_name = |name: &&NodeName| node.is(name.as_str());
        if lost.iter().any(|name| has_name(&name)) {
            continue;
        }
        // The servers show some that were lost by a sentence.
        let name = waited_for.iter().find(|name| has_name(name));
        let name = name.map_or(node.name.as_str(), |name| name.as_str());
        if node.offline {
            return Some(format!("the node {name} is away"));
        } else if !node.current {
            return Some(format!("the node {name} is behind by {}", node.lag));
        }
    }
    // Whoever was removed or replaced is not forgotten yet.
    let others = lost.iter().filter(|name| group.has(name.as_str())).count();
    (group.size > all.saturating_add(others)).then(|| {
        format!(
            "the group of servers has {} nodes, and should have {all}",
            group.size
        )
    })
}

/// Whether a node is there, as the one that leads sees it.
pub fn answers(group: &Group, name: &NodeName) -> bool {
    group.leader == name.as_str()
        || group
            .follower(name.as_str())
            .is_some_and(|node| !node.offline)
}

/// Asks after the group; nothing when nobody leads it.
pub async fn ask(system: &Client) -> Option<Group> {
    let question = r#"{"leader_only":true}"#;
    let asked = system.request("$SYS.REQ.SERVER.PING.JSZ", question.into());
    let answer = tokio::time::timeout(TIMEOUT, asked).await.ok()?.ok()?;
    let answer: Answer = serde_json::from_slice(&answer.payload).ok()?;
    answer.data?.group()
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

#[cfg(test)]
mod tests {
    use sotto_service::nats::jetstream::{Follower, peer_id};

    use super::*;
    use crate::cluster::tests::{members, name};

    fn follower(name: &str, current: bool, offline: bool) -> Follower {
        Follower {
            name: name.to_owned(),
            id: peer_id(name),
            current,
            offline,
            lag: 4,
        }
    }

    /// Led by `a`.
    fn group(followers: &[Follower]) -> Group {
        Group {
            leader: "a".to_owned(),
            followers: followers.to_vec(),
            size: followers.len() + 1,
        }
    }

    #[test]
    fn membership_waits_for_whoever_is_away_or_behind() {
        let (two, one) = (members(&["a", "b"]), members(&["a"]));
        let whole = group(&[follower("b", true, false)]);
        assert_eq!(unsettled(&whole, &two, &[]), None);
        assert_eq!(unsettled(&group(&[]), &one, &[]), None);
        for group in [
            group(&[follower("b", true, true)]),
            group(&[follower("b", false, false)]),
            group(&[]),
            group(&[follower("c", true, false)]),
        ] {
            assert!(unsettled(&group, &two, &[]).is_some(), "{group:?}");
        }
        // One is in the group that is no node.
        assert!(unsettled(&whole, &one, &[]).is_some());
    }

    #[test]
    fn nobody_waits_for_whoever_is_lost_and_everybody_for_the_others() {
        let three = members(&["a", "b", "c"]);
        let lost = [name("c")];
        let there = follower("b", true, false);
        // As the leader calls it that was started since.
        let unheard = Follower {
            name: "Server name unknown at this time".to_owned(),
            ..follower("c", false, true)
        };
        for gone in [follower("c", false, true), unheard] {
            let without = group(&[there.clone(), gone.clone()]);
            assert_eq!(unsettled(&without, &three, &lost), None);
            let why = unsettled(&without, &three, &[]);
            assert_eq!(why.as_deref(), Some("the node c is away"));
            let late = group(&[follower("b", false, false), gone]);
            assert!(unsettled(&late, &three, &lost).is_some());
        }
        // It was never there.
        assert_eq!(unsettled(&group(&[there]), &three, &lost), None);
    }

    #[test]
    fn a_node_answers_that_leads_or_is_not_away() {
        let group = group(&[follower("b", false, false), follower("c", true, true)]);
        let answering = ["a", "b", "c", "d"].map(|node| answers(&group, &name(node)));
        assert_eq!(answering, [true, true, false, false]);
    }
}
