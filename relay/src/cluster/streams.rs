//! Where every stream of a cluster is kept and led, as the nodes' servers say.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Client;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sotto_service::nats::jetstream::{self, Jsz, QUESTION, Streams};

/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(700);
/// Servers that are listened to at most.
const SERVERS: usize = 64;
/// To a stream that is written to something is always on its way: a copy is
/// behind that was at every look of so many.
const LOOKS: usize = 4;

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

impl From<jetstream::Stream> for Stream {
    fn from(stream: jetstream::Stream) -> Self {
        Self {
            behind: stream.behind().map(str::to_owned).collect(),
            account: stream.account,
            name: stream.name,
            copies: stream.copies,
            leader: stream.leader,
            messages: stream.messages,
        }
    }
}

/// Every stream there is, by account and name.
///
/// # Errors
/// When no server answers.
pub async fn all(system: &Client) -> Result<Vec<Stream>> {
    let streams = look(system).await?;
    let mut streams: Vec<Stream> = streams.into_values().map(Stream::from).collect();
    for _ in 1..LOOKS {
        if streams.iter().all(|stream| stream.behind.is_empty()) {
            break;
        }
        let again = look(system).await?;
        for Stream {
            account,
            name,
            behind,
            ..
        } in &mut streams
        {
            let now = again.get(&(account.clone(), name.clone()));
            let is_behind = |node: &String| now.is_none_or(|now| now.behind().any(|is| is == node));
            behind.retain(is_behind);
        }
    }
    Ok(streams)
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
        let jsz = answer.data.unwrap_or_default();
        jsz.add_to(&mut streams, &answer.server.name);
    }
    anyhow::ensure!(servers > 0, "no NATS server answers: is the relay running?");
    Ok(streams)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_settled_with_a_leader_and_every_copy_whole() {
        let stream = Stream {
            account: "acme".to_owned(),
            name: "MAIL-0".to_owned(),
            copies: 3,
            leader: Some("a".to_owned()),
            behind: Vec::new(),
            messages: 7,
        };
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
