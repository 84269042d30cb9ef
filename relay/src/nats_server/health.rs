//! Asks nats-server, through the system account, how it is.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_service::nats::{self, Login, NatsError};
use sotto_service::{Layout, ServerConfig};

use super::demands::{self, Unmet, Varz};

/// How often the server is asked, and how long it may take to answer.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many questions in a row without an answer, and it hangs.
const UNANSWERED_MAX: u32 = 6;
/// How often a server that is starting is asked.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);

/// A connection to ask through.
#[derive(Debug)]
pub struct Health {
    client: Client,
    store: PathBuf,
}

/// What is wrong.
#[derive(Debug)]
pub enum Finding {
    /// It does not answer any more, though its process may run.
    Hangs,
    /// It is not what we demand.
    Unsuitable(Unmet),
}

/// The envelope of answers of the system account.
#[derive(Deserialize)]
struct Answer<D> {
    data: Option<D>,
}

#[derive(Deserialize)]
struct Healthz {
    status: String,
}

impl Health {
    /// Connects as the system user.
    ///
    /// # Errors
    /// When the server does not take the connection.
    pub async fn connect(layout: &Layout, config: &ServerConfig) -> Result<Self, NatsError> {
        let login = Login {
            name: "sotto-relay",
            credentials: &layout.system_creds(),
            inbox_prefix: SYSTEM_INBOX,
        };
        Ok(Self {
            client: nats::connect(layout, config, login).await?,
            store: layout.jetstream(),
        })
    }

    /// Waits until the server says that it is healthy and is what we demand.
    ///
    /// # Errors
    /// Which demand is not met.
    pub async fn ready(&self) -> Result<(), Unmet> {
        loop {
            if let Some(varz) = self.ask::<Varz>("VARZ").await {
                demands::check(&varz, &self.store)?;
                let health = self.ask::<Healthz>("HEALTHZ").await;
                if health.is_some_and(|health| health.status == "ok") {
                    return Ok(());
                }
            }
            tokio::time::sleep(STARTING_INTERVAL).await;
        }
    }

    /// Asks from time to time until something is wrong.
    pub async fn watch(&self) -> Finding {
        let mut unanswered = 0;
        let mut answered_once = false;
        while unanswered < UNANSWERED_MAX {
            tokio::time::sleep(INTERVAL).await;
            match self.ask::<Varz>("VARZ").await {
                Some(varz) => {
                    if let Err(unmet) = demands::check(&varz, &self.store) {
                        return Finding::Unsuitable(unmet);
                    }
                    unanswered = 0;
                    answered_once = true;
                }
                // A server that was just restarted may be reading its streams.
                None if answered_once => unanswered += 1,
                None => {}
            }
        }
        Finding::Hangs
    }

    async fn ask<D: DeserializeOwned>(&self, what: &str) -> Option<D> {
        let server = self.client.server_info().server_id;
        let subject = format!("$SYS.REQ.SERVER.{server}.{what}");
        let answer = self.client.request(subject, "".into());
        let answer = tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()?;
        let answer: Answer<D> = serde_json::from_slice(&answer.payload).ok()?;
        answer.data
    }
}
