//! A relay's part as a node, beside nats-server and the orgs: it writes
//! nats-server's configuration anew when the nodes change, and keeps a node
//! that is alone company.

use std::time::Duration;

use anyhow::Result;
use sotto_service::cluster::{Cluster, Members};
use sotto_service::nats::jetstream::Group;
use sotto_service::watch::Readiness;
use sotto_service::{Layout, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::hold_back;
use crate::cluster::{Growth, Membership, Turn, TurnArgs};
use crate::nats_server::{ConfigFile, NatsAccounts, NatsBinary, Supervisor};
use crate::nats_server::{peer_state, write_witness};
use crate::serve::Given;

/// How long a node that stops tries to tell the others so.
const TELLING: Duration = Duration::from_secs(3);

/// This node.
pub struct Node {
    layout: Layout,
    config: ServerConfig,
    readiness: Readiness,
    turns: TurnArgs,
    file: ConfigFile,
    membership: Membership,
    members: watch::Receiver<Members>,
    group: watch::Receiver<Option<Group>>,
    /// Another nats-server on this machine, without streams, while there is no
    /// other node.
    witness: Option<Supervisor>,
    /// What it keeps may be behind what it said that it keeps.
    held: bool,
}

/// What is to be done to nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// It is to read its configuration again.
    Reload,
}

impl Node {
    /// Begins to be one; nats-server is not running yet.
    ///
    /// # Errors
    /// When a port is taken, or a file does not read or write.
    pub async fn start(
        given: &Given<'_>,
        cluster: Cluster,
        file: ConfigFile,
        binary: &NatsBinary,
    ) -> Result<Self> {
        let Given { layout, config, .. } = *given;
        let system = NatsAccounts::read(layout)?.system;
        let witness = match peer_state::is_alone(layout, &system) {
            true => Some(witness(given, &cluster, binary).await?),
            false => None,
        };
        let mut membership = Membership::start(layout, cluster, given.handover).await?;
        membership.follow(layout.clone(), config.clone());
        Ok(Self {
            layout: layout.clone(),
            config: config.clone(),
            readiness: given.watched.readiness.clone(),
            turns: given.turns,
            file,
            members: membership.members(),
            group: membership.group(),
            membership,
            witness,
            held: false,
        })
    }

    /// Returns when nothing speaks against letting clients in, or at `stop`.
    ///
    /// # Errors
    /// When nats-server does not run or is not what is demanded of it.
    pub async fn hold_back(&mut self, binary: &NatsBinary, stop: &CancellationToken) -> Result<()> {
        // With nobody else there, nobody has more.
        if !hold_back::begin(&self.layout)? || self.witness.is_some() {
            return hold_back::caught_up(&self.layout);
        }
        self.held = true;
        if let Some(cluster) = Cluster::load(&self.layout)? {
            hold_back::until_current(&self.layout, &self.config, &cluster, binary, stop).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
            self.held = false;
            self.file
                .write(&self.layout, &self.config, Some(&cluster))?;
        }
        hold_back::caught_up(&self.layout)
    }

    /// Waits until something is to be done to nats-server. May be dropped at
    /// any time and called again.
    ///
    /// # Errors
    /// When the relay cannot go on as a node.
    pub async fn work(&mut self) -> Result<Work> {
        tokio::select! {
            failed = self.membership.failed() => failed.map(|()| Work::Nothing),
            Ok(()) = self.members.changed() => self.reconfigure(),
            Ok(()) = self.group.changed() => {
                let size = self.group.borrow_and_update().as_ref().map_or(0, |group| group.size);
                if size > 1 && let Some(witness) = self.witness.take() {
                    sotto_log::info!("this node is not alone any more");
                    witness.stop().await;
                }
                Ok(Work::Nothing)
            }
            () = restarted(&mut self.witness) => Ok(Work::Nothing),
        }
    }

    /// What has streams kept on enough nodes.
    pub fn growth(&self) -> Growth {
        self.membership.growth()
    }

    /// Writes the configuration of another run of nats-server from now on.
    pub fn writes(&mut self, file: ConfigFile) {
        self.file = file;
    }

    /// Stops nats-server, if it has not ended: with other nodes there, it hands
    /// over to them first. Whose turn it is does not matter: who stops a machine
    /// is not kept waiting. But they are told.
    pub async fn stop(self, supervisor: Option<Supervisor>) {
        let others = self
            .group
            .borrow()
            .as_ref()
            .is_some_and(|group| group.size > 1);
        match supervisor {
            Some(supervisor) if others => {
                let turn = Turn::new(&self.layout, &self.config, &self.readiness, self.turns);
                let _ = tokio::time::timeout(TELLING, turn.take_in_passing()).await;
                supervisor.hand_over_and_stop().await;
            }
            Some(supervisor) => supervisor.stop().await,
            None => {}
        }
        if let Some(witness) = self.witness {
            witness.stop().await;
        }
        if !self.held
            && let Err(error) = hold_back::end(&self.layout)
        {
            sotto_log::warn!(error, "that this node was stopped is not noted");
        }
    }

    /// Goes on after a successor that ended.
    ///
    /// # Errors
    /// When the witness does not start.
    pub async fn resume(&mut self) -> Result<()> {
        if let Some(witness) = &mut self.witness {
            witness.resume().await?;
        }
        Ok(())
    }

    /// Leaves what runs to another relay. The node was not stopped by that.
    pub fn leave(self) {
        if let Some(witness) = self.witness {
            witness.leave();
        }
    }

    fn reconfigure(&mut self) -> Result<Work> {
        self.members.mark_unchanged();
        let cluster = Cluster::load(&self.layout)?;
        self.file
            .write(&self.layout, &self.config, cluster.as_ref())?;
        Ok(Work::Reload)
    }
}

/// Starts the witness, or takes it over from a predecessor: it is the same for
/// every run of a node alone.
async fn witness(given: &Given<'_>, cluster: &Cluster, binary: &NatsBinary) -> Result<Supervisor> {
    let Given { layout, config, .. } = *given;
    if given.handover.part().is_successor()
        && let Some(adopted) = Supervisor::adopt_witness(binary, layout).await?
        && adopted.is_current
    {
        return Ok(adopted.supervisor);
    }
    write_witness(layout, config, cluster)?;
    Ok(Supervisor::start_witness(binary, layout).await?)
}

async fn restarted(witness: &mut Option<Supervisor>) {
    match witness {
        Some(witness) => witness.restarted().await,
        None => std::future::pending().await,
    }
}
