//! A node's turn to stop its nats-server on purpose: when every other node is
//! there and has everything, and none of them stops its own.
//!
//! Two nodes whose nats-servers are away at the same time stop all writes. So
//! who can go on with the one that runs waits, however long others are away:
//! they come back, or are removed. Only where nobody leads for minutes
//! ([`TurnArgs`]), so that nothing is written that could be stopped, it is
//! nobody's turn that anybody could wait for.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Client;
use sotto_jwt_accounts::grants::{RELAY_INBOX, SYSTEM_INBOX};
use sotto_log::Known;
use sotto_service::cluster::Cluster;
use sotto_service::nats::{self, Login};
use sotto_service::watch::Readiness;
use sotto_service::{Layout, ServerConfig};
use tokio::time::{Instant, sleep};

use super::lock::{Attempt, Held, Lock};
use super::status::Status;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);
/// When nothing else is said.
const LEADERLESS: u32 = 300;
const READY_WITHIN: u32 = 600;

/// How long is waited for what may never come, when nats-server is started anew.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct TurnArgs {
    /// Seconds for which nobody must lead the nodes before this one starts
    /// another nats-server though it is not its turn.
    #[arg(long, env = "SOTTO_LEADERLESS_SECONDS", default_value_t = LEADERLESS, value_name = "SECONDS")]
    leaderless_seconds: u32,

    /// Seconds within which a nats-server that was started anew at this node's
    /// turn must be healthy; otherwise it is ended, and the relay with it.
    #[arg(long, env = "SOTTO_NATS_SERVER_READY_SECONDS", default_value_t = READY_WITHIN, value_name = "SECONDS")]
    nats_server_ready_seconds: u32,
}

impl TurnArgs {
    fn leaderless(self) -> Duration {
        Duration::from_secs(self.leaderless_seconds.into())
    }

    /// How long another nats-server may take to be healthy.
    pub fn ready_within(self) -> Duration {
        Duration::from_secs(self.nats_server_ready_seconds.into())
    }
}

/// What a node's turn is found out by.
pub struct Turn {
    layout: Layout,
    config: ServerConfig,
    readiness: Readiness,
    leaderless: Duration,
    system: Option<Client>,
    lock: Option<Lock>,
}

/// What it is waited for.
struct Waits {
    why: String,
    /// Whether there is nobody who leads the nodes.
    leaderless: bool,
}

impl Turn {
    /// What is waited for is shown by `readiness`.
    pub fn new(
        layout: &Layout,
        config: &ServerConfig,
        readiness: &Readiness,
        args: TurnArgs,
    ) -> Self {
        Self {
            leaderless: args.leaderless(),
            layout: layout.clone(),
            config: config.clone(),
            readiness: readiness.clone(),
            system: None,
            lock: None,
        }
    }

    /// Waits until it is this node's turn, which it is while the lock is held.
    /// There is none where nobody would write it.
    pub async fn comes(mut self) -> Option<Held> {
        let mut told = None;
        let mut led = Instant::now();
        loop {
            let Waits { why, leaderless } = match Box::pin(self.look()).await {
                Ok(turn) => return turn,
                Err(waits) => waits,
            };
            if told.as_ref() != Some(&why) {
                sotto_log::warn!(
                    why = Known(&why),
                    "nats-server goes on until it is this node's turn"
                );
                let notice = format!("nats-server is started anew at this node's turn: {why}");
                self.readiness.notices(Some(notice));
                told = Some(why);
            }
            if !leaderless {
                led = Instant::now();
            } else if led.elapsed() >= self.leaderless {
                sotto_log::warn!("there is no majority of the nodes: no turn is waited for");
                return None;
            }
            sleep(INTERVAL).await;
        }
    }

    /// Takes the lock if it is free: whoever waits for a turn is to know that
    /// this node stops, which does not wait. It is not given back: it runs out.
    pub async fn take_in_passing(mut self) {
        match Box::pin(self.take()).await {
            Ok(Attempt::Taken(_)) => {}
            Ok(_) => sotto_log::warn!("this node stops while another node is away"),
            Err(error) => sotto_log::warn!(error, "other nodes do not hear that this one stops"),
        }
    }

    async fn look(&mut self) -> Result<Option<Held>, Waits> {
        self.is_settled().await?;
        let attempt = match self.take().await {
            Ok(attempt) => attempt,
            Err(error) => {
                return Err(Waits {
                    why: format!(
                        "it cannot be agreed on ({error:#}); after an update, restart the gateways or run `sotto-gateway accounts refresh`"
                    ),
                    leaderless: false,
                });
            }
        };
        let why = match attempt {
            // Who had it before may have come back a moment ago.
            Attempt::Taken(held) => match self.is_settled().await {
                Ok(()) => return Ok(Some(held)),
                Err(waits) => {
                    held.release().await;
                    return Err(waits);
                }
            },
            Attempt::Of(node) => format!("it is that of {node}"),
            Attempt::Lost => "another node was faster".to_owned(),
        };
        Err(Waits {
            why,
            leaderless: false,
        })
    }

    /// Whether every node is there and has everything.
    async fn is_settled(&mut self) -> Result<(), Waits> {
        let asked = async {
            let cluster = self.cluster()?;
            let system = match &mut self.system {
                Some(system) => system,
                none => none.insert({
                    let credentials = self.layout.system_creds();
                    let login = login(&credentials, SYSTEM_INBOX);
                    nats::connect_to_any(&self.layout, &self.config, login).await?
                }),
            };
            Status::ask(&cluster, system).await
        };
        match asked.await {
            Ok(status) => match status.unsettled() {
                None => Ok(()),
                Some(why) => Err(Waits {
                    why: why.to_owned(),
                    leaderless: !status.is_led(),
                }),
            },
            Err(error) => Err(Waits {
                why: format!("{error:#}"),
                leaderless: true,
            }),
        }
    }

    async fn take(&mut self) -> Result<Attempt> {
        let cluster = self.cluster()?;
        let lock = match &mut self.lock {
            Some(lock) => lock,
            none => none.insert({
                let org = self.config.orgs.first().context("there is no org")?;
                let credentials = self.layout.relay_creds(&org.name);
                let login = login(&credentials, RELAY_INBOX);
                let client = nats::connect_to_any(&self.layout, &self.config, login).await?;
                Lock::open(client, cluster.node.name, cluster.members.replicas()).await?
            }),
        };
        Ok(lock.take().await?)
    }

    fn cluster(&self) -> Result<Cluster> {
        let cluster = Cluster::load(&self.layout)?;
        cluster.context("this is no node of a cluster any more")
    }
}

fn login<'a>(credentials: &'a std::path::Path, inbox_prefix: &'a str) -> Login<'a> {
    Login {
        name: "sotto-relay",
        credentials,
        inbox_prefix,
    }
}
