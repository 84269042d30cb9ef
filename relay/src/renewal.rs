//! Starting nats-server anew while the relay serves, when it is another program
//! than the relay brings, or needs a setting that it takes only at a start.

use anyhow::{Result, bail};
use sotto_service::watch::Readiness;
use sotto_service::{Layout, ServerConfig};
use tokio::task::JoinSet;

use crate::cluster::{Held, Turn};
use crate::nats_server::Health;

/// How far it is.
///
/// | | while | then |
/// |---|---|---|
/// | `Waits` | the old one goes on | it is told to hand over |
/// | `HandsOver` | the old one hands over, and ends | it is started anew |
/// | `Comes` | the new one starts | it is healthy: others may have their turn |
pub enum Renewal {
    /// Nothing is to be done.
    Done,
    /// For this node's turn.
    Waits(JoinSet<Option<Held>>),
    /// It is this node's turn.
    HandsOver(Option<Held>),
    /// It is still this node's turn.
    Comes(Option<Held>),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The old one is to hand over.
    HandOver,
    /// The new one is healthy.
    Served,
}

impl Renewal {
    /// Waits for this node's turn.
    pub fn at_turn(layout: &Layout, config: &ServerConfig, readiness: &Readiness) -> Self {
        let mut waiting = JoinSet::new();
        waiting.spawn(Turn::new(layout, config, readiness).comes());
        Self::Waits(waiting)
    }

    /// Waits for the next step. May be dropped at any time and called again.
    ///
    /// # Errors
    /// When the new nats-server is not what is demanded of it.
    pub async fn step(&mut self, health: &Health) -> Result<Step> {
        match self {
            Self::Waits(waiting) => match waiting.join_next().await {
                Some(turn) => {
                    *self = Self::HandsOver(turn?);
                    Ok(Step::HandOver)
                }
                None => std::future::pending().await,
            },
            Self::Comes(_) => {
                health.ready().await?;
                Ok(Step::Served)
            }
            Self::Done | Self::HandsOver(_) => std::future::pending().await,
        }
    }

    /// Another process was started in the place of one that ended.
    ///
    /// # Errors
    /// When that was the new one already.
    pub fn restarted(&mut self) -> Result<()> {
        *self = match std::mem::replace(self, Self::Done) {
            // Ended by itself; what was started is the new one.
            Self::Waits(_) => Self::Comes(None),
            Self::HandsOver(turn) => Self::Comes(turn),
            Self::Comes(_) => bail!("nats-server, started anew, ended before it served"),
            Self::Done => Self::Done,
        };
        Ok(())
    }

    /// The new one serves.
    pub async fn done(&mut self, readiness: &Readiness) {
        tracing::info!("nats-server was started anew");
        readiness.notices(None);
        if let Self::Comes(Some(turn)) = std::mem::replace(self, Self::Done) {
            turn.release().await;
        }
    }
}
