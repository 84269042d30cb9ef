//! A question to every server of a cluster at once.

use std::time::Duration;

use async_nats::Client;
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::push::PushError;

/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(500);
/// Servers that are listened to at most.
const SERVERS: usize = 1_000;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Server {
    pub name: String,
    pub id: String,
}

/// What one server answers; no data when the question does not concern it.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<D> {
    pub server: Server,
    pub data: Option<D>,
}

/// Asks every server of the cluster that `system`, a client of the system
/// account, is connected to; by name.
pub(super) async fn every_server<D: DeserializeOwned>(
    system: &Client,
    subject: &'static str,
    question: serde_json::Value,
) -> Result<Vec<Answer<D>>, PushError> {
    let no_answer = |error: &dyn std::fmt::Display| PushError::NoAnswer(error.to_string());
    let inbox = system.new_inbox();
    let answers = system.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| no_answer(&error))?;
    system
        .publish_with_reply(subject, inbox, question.to_string().into())
        .await
        .map_err(|error| no_answer(&error))?;
    let mut heard: Vec<Answer<D>> = Vec::new();
    while heard.len() < SERVERS {
        match tokio::time::timeout(QUIET, answers.next()).await {
            Ok(Some(answer)) => heard.extend(serde_json::from_slice(&answer.payload)),
            Ok(None) | Err(_) => break,
        }
    }
    if heard.is_empty() {
        return Err(PushError::NoAnswer("no server answers".to_owned()));
    }
    heard.sort_by(|one, other| one.server.name.cmp(&other.server.name));
    Ok(heard)
}
