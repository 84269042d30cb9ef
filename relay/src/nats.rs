//! nats-server, and this relay's part as a node: started, stopped, and left to
//! another relay together.

use anyhow::Result;
use sotto_service::cluster::Cluster;
use sotto_service::watch::NO_NATS;
use sotto_service::{Layout, ServerConfig};

use crate::cluster::adoption;
use crate::nats_server::{ConfigFile, NatsBinary, Supervisor};
use crate::node::Node;
use crate::serve::Given;
use crate::takeover;

/// What a relay looks after.
pub struct Nats {
    /// nats-server.
    pub supervisor: Supervisor,
    /// This node, when the server is one.
    pub node: Option<Node>,
    file: ConfigFile,
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
        let Given { layout, config, .. } = *given;
        let readiness = &given.watched.readiness;
        let running = match given.handover.part().is_successor() {
            true => takeover::nats_server(binary, layout, config, cluster.as_ref()).await?,
            false => None,
        };
        let (running, file) = match running {
            Some((supervisor, file)) => (Some(supervisor), file),
            None => {
                adoption::put_back(layout)?;
                let file = ConfigFile::new(layout)?;
                file.write(layout, config, cluster.as_ref())?;
                (None, file)
            }
        };
        let mut node = match cluster {
            Some(cluster) => Some(Node::start(given, cluster, file, binary).await?),
            None => None,
        };
        let supervisor = match running {
            Some(supervisor) => supervisor,
            None => {
                if let Some(node) = &mut node {
                    readiness.waits_for("the other nodes have more");
                    node.hold_back(binary, given.stop).await?;
                }
                readiness.waits_for(NO_NATS);
                Supervisor::start(binary, layout).await?
            }
        };
        Ok(Self {
            supervisor,
            node,
            file,
        })
    }

    /// Goes on after a successor that ended, whatever that one did.
    ///
    /// # Errors
    /// When nats-server does not start.
    pub async fn resume(&mut self, layout: &Layout, config: &ServerConfig) -> Result<()> {
        let cluster = Cluster::load(layout)?;
        self.file.write(layout, config, cluster.as_ref())?;
        if let Some(node) = &mut self.node {
            node.resume().await?;
        }
        self.supervisor.resume().await?;
        self.supervisor.reload();
        Ok(())
    }

    /// Stops it.
    pub async fn stop(self) {
        match self.node {
            Some(node) => node.stop(self.supervisor).await,
            None => self.supervisor.stop().await,
        }
    }

    /// Leaves it to another relay.
    pub fn leave(self) {
        self.supervisor.leave();
        if let Some(node) = self.node {
            node.leave();
        }
    }
}
