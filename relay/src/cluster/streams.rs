//! Where every stream of a cluster is kept and led, as the nodes' servers say.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Client;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::group::Follower;

/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(700);
/// Servers that are listened to at most.
const SERVERS: usize = 64;
/// To a stream that is written to something is always on its way: a copy is
/// behind that was at every look of so many.
const LOOKS: usize = 4;
const QUESTION: &str = r#"{"accounts":true,"streams":true,"config":true}"#;

/// By account and name.
type Streams = BTreeMap<(String, String), Stream>;

/// One stream or bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stream {
    /// The account's name: the org's.
    pub account: String,
    /// Its own.
    pub name: String,
    /// On how many nodes it is to be kept.
    pub copies: usize,
    /// The node that leads it; none during an election.
    pub leader: Option<String>,
    /// Nodes that have not got everything, or are away.
    pub behind: Vec<String>,
    /// Messages in it.
    pub messages: u64,
}

impl Stream {
    /// In what it is not as it should be, with so many copies; nothing when
    /// each of them has everything.
    pub fn unsettled(&self, copies: usize) -> Option<String> {
        let Self { account, name, .. } = self;
        let what = match self.behind.first() {
            _ if self.leader.is_none() => "has no leader".to_owned(),
            _ if self.copies < copies => {
                format!("is kept on {} of {copies} nodes so far", self.copies)
            }
            Some(node) => format!("is not whole on {node}"),
            None => return None,
        };
        Some(format!("the stream {name} of {account} {what}"))
    }
}

/// Every stream there is, by account and name.
///
/// # Errors
/// When no server answers.
pub async fn all(system: &Client) -> Result<Vec<Stream>> {
    let mut streams = look(system).await?;
    for _ in 1..LOOKS {
        if streams.values().all(|stream| stream.behind.is_empty()) {
            break;
        }
        let again = look(system).await?;
        for (key, stream) in &mut streams {
            let now = again.get(key);
            stream
                .behind
                .retain(|node| now.is_none_or(|now| now.behind.contains(node)));
        }
    }
    Ok(streams.into_values().collect())
}

async fn look(system: &Client) -> Result<Streams> {
    let inbox = system.new_inbox();
    let mut answers = system.subscribe(inbox.clone()).await?;
    system
        .publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, QUESTION.into())
        .await?;
    let mut streams = Streams::new();
    let mut servers = 0;
    while servers < SERVERS {
        let Ok(Some(answer)) = tokio::time::timeout(QUIET, answers.next()).await else {
            break;
        };
        servers += 1;
        let answer: Answer = serde_json::from_slice(&answer.payload)
            .context("a server's list of streams does not read")?;
        take(&mut streams, answer);
    }
    anyhow::ensure!(servers > 0, "no NATS server answers: is the relay running?");
    Ok(streams)
}

/// The one that leads a stream knows best; without a leader any other will do.
fn take(streams: &mut Streams, answer: Answer) {
    let server = answer.server.name;
    let accounts = answer.data.map(|data| data.account_details);
    for account in accounts.unwrap_or_default() {
        for detail in account.stream_detail {
            let group = detail.cluster.unwrap_or_default();
            let leads = group.leader == server;
            let key = (account.name.clone(), detail.name.clone());
            if !leads && streams.contains_key(&key) {
                continue;
            }
            let behind = group
                .replicas
                .into_iter()
                .filter(|node| node.offline || !node.current)
                .map(|node| node.name);
            let stream = Stream {
                account: account.name.clone(),
                name: detail.name,
                copies: detail.config.map_or(1, |config| config.num_replicas),
                leader: Some(group.leader).filter(|leader| !leader.is_empty()),
                behind: behind.collect(),
                messages: detail.state.messages,
            };
            streams.insert(key, stream);
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Option<Jsz>,
}

#[derive(Deserialize)]
struct Server {
    name: String,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    #[serde(default)]
    stream_detail: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    name: String,
    cluster: Option<Group>,
    config: Option<Config>,
    state: State,
}

#[derive(Default, Deserialize)]
struct Group {
    #[serde(default)]
    leader: String,
    #[serde(default)]
    replicas: Vec<Follower>,
}

#[derive(Deserialize)]
struct Config {
    num_replicas: usize,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    messages: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(server: &str, leader: &str, current: bool) -> Answer {
        let text = json!({
            "server": {"name": server},
            "data": {"account_details": [{"name": "acme", "stream_detail": [{
                "name": "MAIL-0", "config": {"num_replicas": 3}, "state": {"messages": 7},
                "cluster": {"leader": leader, "replicas": [{"name": "b", "current": current}]},
            }]}]},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_the_leader_says_counts_whoever_answers_first() {
        let follower = || answer("b", "a", true);
        let leader = || answer("a", "a", false);
        for answers in [[follower(), leader()], [leader(), follower()]] {
            let mut streams = Streams::new();
            answers
                .into_iter()
                .for_each(|answer| take(&mut streams, answer));
            let stream = streams.into_values().next().unwrap();
            assert_eq!(stream.behind, ["b"]);
            assert_eq!((stream.copies, stream.messages), (3, 7));
        }
    }

    #[test]
    fn a_stream_is_settled_with_a_leader_and_every_copy_whole() {
        let mut streams = Streams::new();
        take(&mut streams, answer("a", "a", true));
        let stream = streams.into_values().next().unwrap();
        assert_eq!(stream.unsettled(3), None);
        let unled = Stream {
            leader: None,
            ..stream.clone()
        };
        let behind = Stream {
            behind: vec!["b".to_owned()],
            ..stream.clone()
        };
        for (stream, copies, word) in [
            (unled, 3, "leader"),
            (behind, 3, "whole on b"),
            (stream, 4, "3 of 4"),
        ] {
            let why = stream.unsettled(copies).unwrap();
            assert!(why.contains(word), "{why}");
        }
    }
}
