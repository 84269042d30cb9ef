//! Starting nats-server anew while the relay serves, when it is another program
//! than the relay brings, or needs a setting that it takes only at a start.
//!
//! A new one that is of no use is never left to anybody: the relay ends with it,
//! so that its predecessor, or what an update returns to, starts the old one.

use std::time::Duration;

use anyhow::{Result, anyhow};
use sotto_service::watch::Readiness;
use sotto_service::{Layout, ServerConfig};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Held, Turn, TurnArgs};
use crate::nats_server::Health;

/// How far it is.
///
/// | | while | then |
/// |---|---|---|
/// | `Waits` | the old one goes on | it is told to hand over |
/// | `HandsOver` | the old one hands over, and ends | it is started anew |
/// | `Comes` | the new one starts | it is healthy: others may have their turn |
/// | `Failed` | the relay ends | the new one is ended, and others may have their turn |
pub enum Renewal {
    /// Nothing is to be done.
    Done,
    /// For this node's turn.
    Waits(JoinSet<Option<Held>>),
    /// It is this node's turn.
    HandsOver(Option<Held>),
    /// It is still this node's turn, and the new one must be healthy by then.
    /// Where it is nobody's turn, it may take others until it is.
    Comes(Option<Held>, Option<Instant>),
    /// The new one is of no use.
    Failed(Option<Held>),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The old one is to hand over, or to stop where nobody is there to hand
    /// over to.
    HandOver {
        /// Whether other nodes are there.
        to_others: bool,
    },
    /// The new one is healthy.
    Served,
}

impl Renewal {
    /// Waits for this node's turn.
    pub fn at_turn(
        layout: &Layout,
        config: &ServerConfig,
        readiness: &Readiness,
        args: TurnArgs,
    ) -> Self {
        let mut waiting = JoinSet::new();
        waiting.spawn(Turn::new(layout, config, readiness, args).comes());
        Self::Waits(waiting)
    }

    /// Whether nothing is to be done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Waits for the next step. May be dropped at any time and called again.
    ///
    /// # Errors
    /// When the new nats-server is not what is demanded of it, or is not healthy
    /// in time.
    pub async fn step(&mut self, health: &Health) -> Result<Step> {
        match self {
            Self::Waits(waiting) => match waiting.join_next().await {
                Some(turn) => {
                    let turn = turn?;
                    let to_others = turn.is_some();
                    *self = Self::HandsOver(turn);
                    Ok(Step::HandOver { to_others })
                }
                None => std::future::pending().await,
            },
            Self::Comes(_, by) => {
                let served = match *by {
                    Some(by) => timeout_at(by, health.ready()).await,
                    None => Ok(health.ready().await),
                };
                let why = match served {
                    Ok(Ok(())) => return Ok(Step::Served),
                    Ok(Err(unmet)) => anyhow!(unmet),
                    Err(_) => anyhow!("nats-server, started anew, is not healthy in time"),
                };
                self.fails();
                Err(why)
            }
            Self::Done | Self::HandsOver(_) | Self::Failed(_) => std::future::pending().await,
        }
    }

    /// Another process was started in the place of one that ended; at this node's
    /// turn it has so long to be healthy.
    ///
    /// # Errors
    /// When that was the new one already.
    pub fn restarted(&mut self, within: Duration) -> Result<()> {
        *self = match std::mem::replace(self, Self::Done) {
            // Ended by itself; what was started is the new one.
            Self::Waits(_) => Self::Comes(None, None),
            Self::HandsOver(turn) => {
                let by = turn.is_some().then(|| Instant::now() + within);
                Self::Comes(turn, by)
            }
            Self::Comes(turn, _) | Self::Failed(turn) => {
                *self = Self::Failed(turn);
                return Err(anyhow!("nats-server, started anew, ended before it served"));
            }
            Self::Done => Self::Done,
        };
        Ok(())
    }

    /// The new one, if it came, is of no use.
    pub fn fails(&mut self) {
        *self = match std::mem::replace(self, Self::Done) {
            Self::Comes(turn, _) => Self::Failed(turn),
            other => other,
        };
    }

    /// The new one serves.
    pub async fn done(&mut self, readiness: &Readiness) {
        sotto_log::info!("nats-server was started anew");
        readiness.notices(None);
        if let Self::Comes(Some(turn), _) = std::mem::replace(self, Self::Done) {
            turn.release().await;
        }
    }
}
