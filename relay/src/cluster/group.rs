//! Who of the nodes is there now, as nats-server's own group of servers sees
//! it: asked of the node that leads the group, through the system account.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use sotto_service::nats::jetstream::{Group, Jsz};
use tokio::sync::watch;

/// How often the group is asked after.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why membership must not change now, or nothing.
pub fn unsettled(group: &Group, members: usize) -> Option<String> {
    if group.size != members {
        return Some(format!(
            "{} of {members} nodes have come so far",
            group.size.min(members)
        ));
    }
    let behind = group.followers.iter().find(|node| !node.is_whole());
    behind.map(|node| match node.offline {
        true => format!("the node {} is away", node.name),
        false => format!("the node {} is behind by {}", node.name, node.lag),
    })
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
    use sotto_service::nats::jetstream::Follower;

    use super::*;

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
        assert_eq!(unsettled(&group(&[follower(true, false)], 2), 2), None);
        assert_eq!(unsettled(&group(&[], 1), 1), None);
        for group in [
            group(&[follower(true, true)], 2),
            group(&[follower(false, false)], 2),
            group(&[], 1),
        ] {
            assert!(unsettled(&group, 2).is_some(), "{group:?}");
        }
    }
}
