//! On how many nodes a stream is kept, and changing that while it is written
//! to. It is asked and told in nats-server's own JSON, so that settings which
//! this program does not know stay as they are.

use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use serde_json::{Value, json};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// JetStream's code for a stream that does not exist.
const NOT_FOUND: u64 = 10_059;

/// A stream's copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// On how many nodes it is to be kept.
    pub wanted: usize,
    /// The node that leads it; none during an election.
    pub leader: Option<String>,
    /// The nodes that follow, and whether each has all that the leader has.
    pub followers: Vec<(String, bool)>,
}

/// Why a stream's copies are not known or not changed.
#[derive(Debug, thiserror::Error)]
pub enum CopiesError {
    /// No answer, or not a sensible one.
    #[error("the stream {0} cannot be asked after ({1}): is the NATS server running?")]
    NoAnswer(String, String),
    /// The server said no.
    #[error("the stream {0} keeps its number of copies: {1}")]
    Refused(String, String),
}

sotto_log::log_safe!(CopiesError);

impl Copies {
    /// Whether as many nodes as wanted have everything.
    pub fn are_current(&self) -> bool {
        let current = self
            .followers
            .iter()
            .filter(|(_, current)| *current)
            .count();
        self.leader.is_some() && current.saturating_add(1) >= self.wanted
    }
}

/// A stream's copies; nothing when there is no such stream. Needs the grants
/// of its keeper.
///
/// # Errors
/// [`CopiesError`].
pub async fn copies(client: &Client, stream: &str) -> Result<Option<Copies>, CopiesError> {
    Ok(info(client, stream).await?.map(|(copies, _)| copies))
}

/// Has a stream kept on `wanted` nodes. Returns when the server has agreed,
/// which is before the new copies are whole.
///
/// # Errors
/// [`CopiesError`].
pub async fn keep_on(client: &Client, stream: &str, wanted: usize) -> Result<(), CopiesError> {
    let Some((_, mut config)) = info(client, stream).await? else {
        let problem = "it is not there".to_owned();
        return Err(CopiesError::Refused(stream.to_owned(), problem));
    };
    let Some(replicas) = config.get_mut("num_replicas") else {
        let problem = "its configuration does not read".to_owned();
        return Err(CopiesError::NoAnswer(stream.to_owned(), problem));
    };
    *replicas = json!(wanted);
    let answer = ask(client, stream, "UPDATE", config.to_string()).await?;
    match answer.error {
        Some(error) => Err(CopiesError::Refused(stream.to_owned(), error.description)),
        None => Ok(()),
    }
}

async fn info(client: &Client, stream: &str) -> Result<Option<(Copies, Value)>, CopiesError> {
    let answer = ask(client, stream, "INFO", String::new()).await?;
    match answer {
        Answer {
            error: Some(error), ..
        } if error.err_code == NOT_FOUND => Ok(None),
        Answer {
            error: Some(error), ..
        } => Err(CopiesError::Refused(stream.to_owned(), error.description)),
        Answer {
            config: Some(config),
            cluster,
            ..
        } => {
            let wanted = config.get("num_replicas").and_then(Value::as_u64);
            let cluster = cluster.unwrap_or_default();
            let followers = cluster.replicas.into_iter();
            let copies = Copies {
                wanted: wanted.and_then(|n| n.try_into().ok()).unwrap_or(1),
                leader: cluster.leader.filter(|leader| !leader.is_empty()),
                followers: followers
                    .map(|peer| (peer.name, peer.current && !peer.offline))
                    .collect(),
            };
            Ok(Some((copies, config)))
        }
        _ => {
            let problem = "its answer does not read".to_owned();
            Err(CopiesError::NoAnswer(stream.to_owned(), problem))
        }
    }
}

async fn ask(
    client: &Client,
    stream: &str,
    what: &str,
    body: String,
) -> Result<Answer, CopiesError> {
    let no_answer =
        |error: &dyn std::fmt::Display| CopiesError::NoAnswer(stream.to_owned(), error.to_string());
    let subject = format!("$JS.API.STREAM.{what}.{stream}");
    let answer = tokio::time::timeout(TIMEOUT, client.request(subject, body.into()));
    let answer = answer.await.map_err(|error| no_answer(&error))?;
    let answer = answer.map_err(|error| no_answer(&error))?;
    serde_json::from_slice(&answer.payload).map_err(|error| no_answer(&error))
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Failure>,
    config: Option<Value>,
    cluster: Option<Group>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Default, Deserialize)]
struct Group {
    leader: Option<String>,
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_count_only_when_they_have_everything() {
        let copies = |leader: Option<&str>, followers: &[bool]| Copies {
            wanted: 3,
            leader: leader.map(str::to_owned),
            followers: followers.iter().map(|&c| ("n".to_owned(), c)).collect(),
        };
        assert!(copies(Some("a"), &[true, true]).are_current());
        assert!(!copies(Some("a"), &[true, false]).are_current());
        assert!(!copies(Some("a"), &[true]).are_current());
        assert!(!copies(None, &[true, true, true]).are_current());
    }
}
