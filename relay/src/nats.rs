//! nats-server, and this relay's part as a node: started, looked after, stopped,
//! and left to another relay together.

use std::time::Duration;

use anyhow::{Result, bail};
use sotto_log::Known;
use sotto_service::cluster::Cluster;
use sotto_service::watch::{NO_NATS, Readiness};
use sotto_service::{Layout, ServerConfig};

use crate::cluster::{Held, TurnArgs, adoption};
use crate::nats_server::{ConfigFile, Finding, Health, NatsBinary, Supervisor};
use crate::node::{Node, Work};
use crate::renewal::{Renewal, Step};
use crate::serve::Given;
use crate::takeover::{self, Inherited};

/// How long the nats-server that a successor left behind may take to say that
/// it is healthy.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// What a relay looks after.
pub struct Nats {
    /// This node, when the server is one.
    pub node: Option<Node>,
    supervisor: Supervisor,
    renewal: Renewal,
    /// It is to read its configuration again.
    reload: bool,
    layout: Layout,
    config: ServerConfig,
    readiness: Readiness,
    file: ConfigFile,
    turns: TurnArgs,
}

impl Nats {
    /// Starts it, or takes it over from a predecessor.
    ///
    /// # Errors
    /// When it does not start, or is not what is demanded of it.
    pub async fn start(
        given: &Given<'_>,
        binary: &NatsBinary,
        cluster: Option<Cluster>,
    ) -> Result<Self> {
        let Given {
            layout,
            config,
            turns,
            ..
        } = *given;
        let readiness = &given.watched.readiness;
        let inherited = match given.handover.part().is_successor() {
            true => takeover::nats_server(given, binary, cluster.as_ref()).await?,
            false => None,
        };
        let file = match &inherited {
            Some(inherited) => inherited.file,
            None => {
                adoption::put_back(layout)?;
                let file = ConfigFile::new(layout)?;
                file.write(layout, config, cluster.as_ref())?;
                file
            }
        };
        let mut node = match cluster {
            Some(cluster) => Some(Node::start(given, cluster, file, binary).await?),
            None => None,
        };
        let (supervisor, outdated) = match inherited {
            Some(Inherited {
                supervisor,
                outdated,
                ..
            }) => (supervisor, outdated),
            None => {
                if let Some(node) = &mut node {
                    readiness.waits_for("the other nodes have more");
                    node.hold_back(binary, given.stop).await?;
                }
                readiness.waits_for(NO_NATS);
                (Supervisor::start(binary, layout).await?, None)
            }
        };
        let mut nats = Self {
            renewal: Renewal::Done,
            reload: false,
            layout: layout.clone(),
            config: config.clone(),
            readiness: readiness.clone(),
            supervisor,
            node,
            file,
            turns,
        };
        if outdated.is_some() {
            nats.renew();
        }
        Ok(nats)
    }

    /// Does what there is to do while a relay starts. May be dropped at any time
    /// and called again.
    ///
    /// # Errors
    /// Always: what failed without which nothing can be started.
    pub async fn starts(&mut self) -> Result<()> {
        loop {
            // A node that starts may need others before it is healthy, and to be
            // told of them.
            let reloaded = reloaded_over_its_own(&self.layout, &self.config, self.node.is_some());
            tokio::select! {
                why = self.supervisor.ended() => bail!("nats-server does not start: {why}"),
                work = work_of(&mut self.node) => self.reload |= work? == Work::Reload,
                reloaded = reloaded, if self.reload => self.reloaded(reloaded?),
            }
        }
    }

    /// Does what there is to do next while a relay serves. May be dropped at any
    /// time and called again.
    ///
    /// # Errors
    /// When the relay must not go on.
    pub async fn work(&mut self, health: &Health) -> Result<()> {
        // Whatever the other nodes do meanwhile: a server that hangs is away to
        // them, and must not be asked anew because of that.
        let watching = health.watch();
        tokio::pin!(watching);
        loop {
            tokio::select! {
                () = self.supervisor.restarted() => {
                    return self.renewal.restarted(self.turns.ready_within());
                }
                work = work_of(&mut self.node) => self.reload |= work? == Work::Reload,
                reloaded = health.reloaded(), if self.reload => {
                    self.reloaded(reloaded);
                    return Ok(());
                }
                step = self.renewal.step(health) => {
                    match step? {
                        Step::HandOver { to_others } => self.hand_over(to_others)?,
                        Step::Served => self.renewal.done(&self.readiness).await,
                    }
                    return Ok(());
                }
                finding = &mut watching => match finding {
                    Finding::Sick(why) => {
                        sotto_log::error!(why = Known(why), "nats-server is sick: it is killed");
                        self.supervisor.kill();
                        return Ok(());
                    }
                    Finding::Unsuitable(unmet) => {
                        self.renewal.fails();
                        return Err(unmet.into());
                    }
                },
            }
        }
    }

    /// Whether nats-server has yet to be started anew.
    pub fn is_outdated(&self) -> bool {
        !self.renewal.is_done()
    }

    /// nats-server has read its configuration again, or says what it takes only
    /// at a start.
    fn reloaded(&mut self, reloaded: Result<(), String>) {
        self.reload = false;
        if let Err(why) = reloaded {
            sotto_log::warn!(
                why = Known(why),
                "nats-server goes on with the settings that it has"
            );
            self.renew();
        }
    }

    /// nats-server is to be started anew: at this node's turn. A server alone is
    /// started anew by whoever runs it, when it suits them.
    fn renew(&mut self) {
        if self.node.is_some() && self.renewal.is_done() {
            let (layout, config) = (&self.layout, &self.config);
            self.renewal = Renewal::at_turn(layout, config, &self.readiness, self.turns);
        }
    }

    /// It is this node's turn. The next process has what room there is now.
    fn hand_over(&mut self, to_others: bool) -> Result<()> {
        let cluster = Cluster::load(&self.layout)?;
        self.file = ConfigFile::new(&self.layout)?;
        self.file
            .write(&self.layout, &self.config, cluster.as_ref())?;
        if let Some(node) = &mut self.node {
            node.writes(self.file);
        }
        sotto_log::info!("it is this node's turn: nats-server hands over");
        self.supervisor.hand_over(to_others);
        Ok(())
    }

    /// Goes on after a successor that ended, whatever that one did. Another
    /// nats-server that it left behind is kept only when it is healthy.
    ///
    /// # Errors
    /// When nats-server does not start.
    pub async fn resume(&mut self, health: &Health) -> Result<()> {
        let cluster = Cluster::load(&self.layout)?;
        self.file
            .write(&self.layout, &self.config, cluster.as_ref())?;
        if let Some(node) = &mut self.node {
            node.resume().await?;
        }
        if !self.supervisor.resume().await? {
            match tokio::time::timeout(LEFT_BEHIND, health.ready()).await {
                Ok(Ok(())) => self.renew(),
                _ => {
                    sotto_log::error!("the nats-server of a successor is of no use: it is killed");
                    self.supervisor.kill();
                }
            }
        }
        self.reload = true;
        Ok(())
    }

    /// Stops it.
    pub async fn stop(self) {
        let kept = match self.renewal {
            Renewal::Failed(turn) => {
                discard(self.supervisor, turn).await;
                None
            }
            _ => Some(self.supervisor),
        };
        match (self.node, kept) {
            (Some(node), kept) => node.stop(kept).await,
            (None, Some(supervisor)) => supervisor.stop().await,
            (None, None) => {}
        }
    }

    /// Leaves it to another relay.
    pub async fn leave(self) {
        match self.renewal {
            Renewal::Failed(turn) => discard(self.supervisor, turn).await,
            _ => self.supervisor.leave(),
        }
        if let Some(node) = self.node {
            node.leave();
        }
    }
}

/// Ends a nats-server that is of no use, and gives the turn back.
async fn discard(supervisor: Supervisor, turn: Option<Held>) {
    supervisor.discard().await;
    if let Some(turn) = turn {
        turn.release().await;
    }
}

/// Waits for what there is to do as a node; for ever on a server alone.
async fn work_of(node: &mut Option<Node>) -> Result<Work> {
    match node {
        Some(node) => node.work().await,
        None => std::future::pending().await,
    }
}

/// Over a connection that is made for it.
async fn reloaded_over_its_own(
    layout: &Layout,
    config: &ServerConfig,
    is_node: bool,
) -> Result<Result<(), String>> {
    let health = Health::connect(layout, config, is_node).await?;
    Ok(health.reloaded().await)
}
