//! Questions to the NATS servers, through the system account: what each of
//! them says of itself. It asks and never tells.

use std::path::Path;
use std::time::Duration;

use async_nats::Client;
use futures::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_service::nats::{self, Login, NatsError};
use sotto_service::{Layout, ServerConfig};

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(1_200);

/// A connection to ask through.
pub(crate) struct System {
    client: Client,
    /// How many servers there should be.
    servers: usize,
}

/// What one server answers.
pub(crate) struct Reply<D> {
    /// Who.
    pub server: Responder,
    /// What.
    pub data: D,
    /// When it was asked, by the clock of this machine.
    pub asked: Timestamp,
    /// When the answer came.
    pub heard: Timestamp,
}

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Responder {
    /// Its name, which is that of its node.
    pub name: String,
    /// Its clock as it wrote the answer.
    pub time: Option<Timestamp>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemError {
    /// There is no connection.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// Nobody took the connection in time.
    #[error("it takes no connection within {} seconds", CONNECT.as_secs())]
    Silent,
    /// The question was not taken.
    #[error("it does not take the question {0} ({1})")]
    Refused(&'static str, String),
    /// Nobody answers.
    #[error("it does not answer the question {0}")]
    NoAnswer(&'static str),
}

#[derive(Deserialize)]
struct Answer<D> {
    server: Responder,
    data: Option<D>,
}

impl System {
    /// Connects to the server of this machine, or else to that of another node.
    ///
    /// # Errors
    /// When there is no connection in time.
    pub async fn connect(
        layout: &Layout,
        settings: &ServerConfig,
        servers: usize,
    ) -> Result<Self, SystemError> {
        let credentials = layout.system_creds();
        let login = login(&credentials);
        let connecting = Box::pin(nats::connect_to_any(layout, settings, login));
        let connected = tokio::time::timeout(CONNECT, connecting).await;
        let client = connected.map_err(|_| SystemError::Silent)??;
        Ok(Self { client, servers })
    }

    /// The connection itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks every server; those that answer something else are left out.
    ///
    /// # Errors
    /// When none answers.
    pub async fn ask<D: DeserializeOwned>(
        &self,
        what: &'static str,
        question: &'static str,
    ) -> Result<Vec<Reply<D>>, SystemError> {
        let refused = |why: &dyn std::fmt::Display| SystemError::Refused(what, why.to_string());
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|error| refused(&error))?;
        let subject = format!("$SYS.REQ.SERVER.PING.{what}");
        let asked = Timestamp::now();
        let publishing = self
            .client
            .publish_with_reply(subject, inbox, question.into());
        publishing.await.map_err(|error| refused(&error))?;
        let mut replies = Vec::new();
        while replies.len() < self.servers {
            let Ok(Some(answer)) = tokio::time::timeout(QUIET, answers.next()).await else {
                break;
            };
            let heard = Timestamp::now();
            let answer: Option<Answer<D>> = serde_json::from_slice(&answer.payload).ok();
            let reply = answer.and_then(|answer| {
                Some(Reply {
                    server: answer.server,
                    data: answer.data?,
                    asked,
                    heard,
                })
            });
            replies.extend(reply);
        }
        match replies.is_empty() {
            true => Err(SystemError::NoAnswer(what)),
            false => Ok(replies),
        }
    }
}

fn login(credentials: &Path) -> Login<'_> {
    Login {
        name: "sotto doctor",
        credentials,
        inbox_prefix: SYSTEM_INBOX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_who_answers_is_read() {
        let text = r#"{"server":{"name":"n1","id":"N","time":"2026-11-27T17:00:00.25Z"},"data":7}"#;
        let answer: Answer<u32> = serde_json::from_str(text).unwrap();
        assert_eq!(answer.server.time.unwrap().as_millisecond() % 1_000, 250);
        assert_eq!(answer.data, Some(7));
    }
}
