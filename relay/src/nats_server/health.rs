//! Asks nats-server, through the system account, how it is.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_log::Known;
use sotto_service::nats::demands::{self, Varz};
use sotto_service::nats::jetstream::Jsz;
use sotto_service::nats::{self, Login, NatsError};
use sotto_service::{Layout, ServerConfig};

use super::disk;

/// How often the server is asked, and how long it may take to answer.
const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many questions in a row without an answer, and it hangs.
const UNANSWERED_MAX: u32 = 6;
/// So many times in a row not healthy, and it will not get well by itself.
const SICK_MAX: u32 = 2;
/// The same for a node, which may be catching up with the others.
const NODE_SICK_MAX: u32 = 24;
/// How often a server that is starting is asked.
const STARTING_INTERVAL: Duration = Duration::from_millis(50);

/// A connection to ask through.
#[derive(Debug)]
pub struct Health {
    client: Client,
    store: PathBuf,
    is_node: bool,
}

/// A demand that is not met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nats-server reports {0}: nothing is served until it reports what nats.conf says")]
pub struct Unmet(demands::Unmet);

/// What is wrong.
#[derive(Debug)]
pub enum Finding {
    /// It needs to be started again, and why.
    Sick(String),
    /// It is not what we demand.
    Unsuitable(Unmet),
}

/// The envelope of answers of the system account.
#[derive(Deserialize)]
struct Answer<D> {
    data: Option<D>,
}

#[derive(Deserialize)]
struct Reloaded {
    error: Option<NotReloaded>,
}

#[derive(Deserialize)]
struct NotReloaded {
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Healthz {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    error: String,
}

/// What the server says when asked how it is.
enum Answered {
    Nothing,
    Unsuitable(Unmet),
    Sick(String),
    Healthy,
}

impl Health {
    /// Connects as the system user, however long it takes: a server with much
    /// in store reads it before it listens.
    ///
    /// # Errors
    /// When the files that it takes do not read.
    pub async fn connect(
        layout: &Layout,
        config: &ServerConfig,
        is_node: bool,
    ) -> Result<Self, NatsError> {
        let login = Login {
            name: "sotto-relay",
            credentials: &layout.system_creds(),
            inbox_prefix: SYSTEM_INBOX,
        };
        let client = loop {
            match nats::connect(layout, config, login).await {
                Err(error @ NatsError::Unreachable { .. }) => {
                    sotto_log::warn!(error, "nats-server is not ready yet");
                }
                connected => break connected?,
            }
        };
        Ok(Self {
            client,
            store: layout.jetstream(),
            is_node,
        })
    }

    /// The connection, which is to this node's own nats-server.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the server says that it is healthy and is what we demand.
    ///
    /// # Errors
    /// Which demand is not met.
    pub async fn ready(&self) -> Result<(), Unmet> {
        loop {
            match self.ask_all().await {
                Answered::Healthy => return Ok(()),
                Answered::Unsuitable(unmet) => return Err(unmet),
                Answered::Nothing | Answered::Sick(_) => {}
            }
            tokio::time::sleep(STARTING_INTERVAL).await;
        }
    }

    /// Waits until the server is ready, then asks from time to time until
    /// something is wrong.
    pub async fn watch(&self) -> Finding {
        if let Err(unmet) = self.ready().await {
            return Finding::Unsuitable(unmet);
        }
        let (mut unanswered, mut sick) = (0, 0);
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.ask_all().await {
                Answered::Healthy => (unanswered, sick) = (0, 0),
                Answered::Unsuitable(unmet) => return Finding::Unsuitable(unmet),
                Answered::Nothing => unanswered += 1,
                Answered::Sick(why) => {
                    sick += 1;
                    let sick_max = match self.is_node {
                        true => NODE_SICK_MAX,
                        false => SICK_MAX,
                    };
                    // Starting it again would not help.
                    if disk::is_full(&self.store) {
                        sotto_log::error!(
                            why = Known(why),
                            "the disk is full: free some space; nothing that was acknowledged is lost"
                        );
                    } else if sick >= sick_max && self.could_be_well().await {
                        return Finding::Sick(why);
                    }
                }
            }
            if unanswered >= UNANSWERED_MAX {
                return Finding::Sick("it does not answer".to_owned());
            }
        }
    }

    /// Whether a relay could serve with this server.
    ///
    /// # Errors
    /// Which demand is not met, as far as it answers.
    pub async fn suits(&self) -> Result<(), Unmet> {
        match self.ask::<Varz>("VARZ").await {
            Some(varz) => self.check(&varz),
            None => Ok(()),
        }
    }

    /// What the streams may take, in bytes, as the server runs.
    pub async fn storage(&self) -> Option<u64> {
        self.ask::<Varz>("VARZ").await?.storage()
    }

    /// Has the server read its configuration again; why it goes on with the old
    /// one, where it does: some things change by a restart alone. Nothing when
    /// it does not answer.
    pub async fn reload(&self) -> Option<Result<(), String>> {
        let answer: Reloaded = serde_json::from_slice(&self.request("RELOAD").await?).ok()?;
        Some(match answer.error {
            None => Ok(()),
            Some(error) => Err(error.description),
        })
    }

    /// The same, as often as it takes until it answers.
    ///
    /// # Errors
    /// Why it goes on with the old one.
    pub async fn reloaded(&self) -> Result<(), String> {
        loop {
            if let Some(answer) = self.reload().await {
                return answer;
            }
            tokio::time::sleep(STARTING_INTERVAL).await;
        }
    }

    fn check(&self, varz: &Varz) -> Result<(), Unmet> {
        let unmet = varz.unmet(Some(&self.store), self.is_node);
        unmet
            .into_iter()
            .next()
            .map_or(Ok(()), |first| Err(Unmet(first)))
    }

    async fn ask_all(&self) -> Answered {
        let Some(varz) = self.ask::<Varz>("VARZ").await else {
            return Answered::Nothing;
        };
        if let Err(unmet) = self.check(&varz) {
            return Answered::Unsuitable(unmet);
        }
        match self.ask::<Healthz>("HEALTHZ").await {
            None => Answered::Nothing,
            Some(health) if health.status == "ok" => Answered::Healthy,
            Some(health) => {
                let mut complaints = health.errors.into_iter().map(|complaint| complaint.error);
                Answered::Sick(complaints.next().unwrap_or(health.error))
            }
        }
    }

    /// Whether it is not the lack of other nodes that keeps it from being well.
    async fn could_be_well(&self) -> bool {
        let jsz = self.ask::<Jsz>("JSZ").await;
        !self.is_node || jsz.is_some_and(|jsz| jsz.group().is_some())
    }

    async fn ask<D: DeserializeOwned>(&self, what: &str) -> Option<D> {
        let answer: Answer<D> = serde_json::from_slice(&self.request(what).await?).ok()?;
        answer.data
    }

    async fn request(&self, what: &str) -> Option<Bytes> {
        let server = self.client.server_info().server_id;
        let subject = format!("$SYS.REQ.SERVER.{server}.{what}");
        let answer = self.client.request(subject, "".into());
        let answer = tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()?;
        Some(answer.payload)
    }
}
