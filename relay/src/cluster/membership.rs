//! What a running relay does as a node, besides running nats-server: it keeps
//! up with who the nodes are, and on a node that keeps the keys it answers.

use std::sync::Arc;

use anyhow::{Context, Result};
use sotto_service::cluster::{Cluster, Members, NodeName};
use sotto_service::handover::Handover;
use sotto_service::nats::jetstream::Group;
use sotto_service::{Layout, ServerConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admission::{self, Admission};
use super::group;
use super::growth::Growth;
use super::replacement::Forgetting;
use super::sync;
use crate::nats_server::Health;

/// This node among the others. Dropping it ends what it does.
pub struct Membership {
    node: NodeName,
    members: Arc<watch::Sender<Members>>,
    group: Arc<watch::Sender<Option<Group>>>,
    tasks: JoinSet<Result<()>>,
}

impl Membership {
    /// Begins to answer and to ask.
    ///
    /// # Errors
    /// When the port for other nodes is taken.
    pub async fn start(layout: &Layout, cluster: Cluster, handover: &Handover) -> Result<Self> {
        let listener = admission::listen(&cluster, handover).await?;
        let members = Arc::new(watch::Sender::new(cluster.members));
        let group = Arc::new(watch::Sender::new(None));
        let admission = Admission::new(layout.clone(), Arc::clone(&members), group.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(admission.serve(listener));
        let keeping = sync::keep_current(layout.clone(), Arc::clone(&members));
        tasks.spawn(async move {
            keeping.await;
            Ok(())
        });
        Ok(Self {
            node: cluster.node.name,
            members,
            group,
            tasks,
        })
    }

    /// From when nats-server answers, it is known which nodes are there, and
    /// replaced ones are forgotten.
    pub fn follow(&mut self, layout: Layout, config: ServerConfig) {
        let group = Arc::clone(&self.group);
        let forgetting = Forgetting {
            layout: layout.clone(),
            node: self.node.clone(),
            members: Arc::clone(&self.members),
            group: group.subscribe(),
        };
        self.tasks.spawn(async move {
            let health = Health::connect(&layout, &config, true).await?;
            let system = health.client();
            let following = group::follow(system.clone(), group);
            tokio::join!(following, forgetting.run(system.clone()));
            Ok(())
        });
    }

    /// The nodes, as they change, and when nats-server's configuration must be
    /// written anew for another reason.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// Who of them is there, as it changes.
    pub fn group(&self) -> watch::Receiver<Option<Group>> {
        self.group.subscribe()
    }

    /// What has streams kept on enough of them.
    pub fn growth(&self) -> Growth {
        Growth {
            node: self.node.clone(),
            members: self.members.subscribe(),
            group: self.group.subscribe(),
        }
    }

    /// Waits until something fails without which this is no node.
    ///
    /// # Errors
    /// Always: what failed.
    pub async fn failed(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended.context("a task of the cluster ended")?,
            None => std::future::pending().await,
        }
    }
}
