//! The life of a relay: one nats-server, all orgs, until it is told to stop.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use sotto_proto::signed::public_key;
use sotto_service::cluster::Cluster;
use sotto_service::private_files;
use sotto_service::readiness::{self, Announcement};
use sotto_service::{Layout, ServerConfig, awaiting_leaders};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cluster::adoption;
use crate::fetch::ConnectionClosed;
use crate::metrics::{Metrics, MetricsServer};
use crate::nats_server::{ConfigFile, Finding, Health, NatsBinary, Supervisor};
use crate::node::{Node, Work};
use crate::org;

/// Runs until `stop`. Whatever happens, nats-server is stopped before this
/// returns.
///
/// # Errors
/// When the relay cannot start, or must not go on.
pub async fn serve(
    layout: &Layout,
    config: &ServerConfig,
    nats_server: Option<&Path>,
    stop: CancellationToken,
) -> Result<()> {
    let _only_one = lock(layout)?;
    let gateway = gateway_key(layout)?;
    let binary = NatsBinary::find(nats_server)?;
    tracing::info!(version = binary.version, "found nats-server");
    let cluster = Cluster::load(layout)?;
    adoption::put_back(layout)?;
    let file = ConfigFile::new(layout)?;
    file.write(layout, config, cluster.as_ref())?;
    let mut node = match cluster {
        Some(cluster) => Some(Node::start(layout, config, cluster, file, &binary).await?),
        None => None,
    };
    if let Some(node) = &mut node {
        node.hold_back(&binary, &stop).await?;
    }
    let mut supervisor = Supervisor::start(&binary, layout).await?;
    let served = Box::pin(run(
        layout,
        config,
        gateway,
        &mut supervisor,
        &mut node,
        stop,
    ))
    .await;
    match node {
        Some(node) => node.stop(supervisor).await,
        None => supervisor.stop().await,
    }
    served
}

async fn run(
    layout: &Layout,
    config: &ServerConfig,
    gateway: VerifyingKey,
    supervisor: &mut Supervisor,
    node: &mut Option<Node>,
    stop: CancellationToken,
) -> Result<()> {
    let starting = start(layout, config, gateway, node.is_some());
    tokio::pin!(starting);
    let serving = loop {
        tokio::select! {
            serving = &mut starting => break serving?,
            why = supervisor.ended() => bail!("nats-server does not start: {why}"),
            () = stop.cancelled() => return Ok(()),
            work = work_of(node) => work?.apply(supervisor),
        }
    };
    tracing::info!(orgs = config.orgs.len(), "serving");
    let Serving {
        health,
        orgs,
        metrics,
        announcement,
    } = serving;
    let shown = orgs
        .iter()
        .map(|org| (org.name.clone(), Arc::clone(&org.directory)))
        .collect();
    let metrics = async move {
        match metrics {
            Some(metrics) => metrics.run(shown).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(metrics);
    let mut services: JoinSet<Result<ConnectionClosed, JoinError>> = JoinSet::new();
    let mut growing = JoinSet::new();
    let mut directories = Vec::with_capacity(orgs.len());
    for org in orgs {
        directories.push(org.directory);
        if let Some(node) = node {
            growing.spawn(node.growth().look_after(org.name, org.client, org.streams));
        }
        services.spawn(org.service.run());
    }
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            () = supervisor.restarted() => {}
            work = work_of(node) => match work {
                Ok(work) => work.apply(supervisor),
                Err(error) => break Err(error),
            },
            finding = health.watch() => match finding {
                Finding::Sick(why) => {
                    tracing::error!(why, "nats-server is sick: it is killed");
                    supervisor.kill();
                }
                Finding::Unsuitable(unmet) => break Err(unmet.into()),
            },
            shown = &mut metrics => {
                break shown.and_then(|()| bail!("metrics are not shown any more"));
            }
            Some(ended) = services.join_next() => {
                break Err(match ended {
                    Ok(Ok(closed)) => closed.into(),
                    Ok(Err(error)) | Err(error) => anyhow!(error).context("serving an org failed"),
                });
            }
        }
    };
    drop(announcement);
    for directory in directories {
        directory.keep().await;
    }
    ended
}

/// Waits for what there is to do as a node; for ever on a server alone.
async fn work_of(node: &mut Option<Node>) -> Result<Work> {
    match node {
        Some(node) => node.work().await,
        None => std::future::pending().await,
    }
}

/// What serves.
struct Serving {
    health: Health,
    orgs: Vec<org::Started>,
    metrics: Option<MetricsServer>,
    announcement: Announcement,
}

async fn start(
    layout: &Layout,
    config: &ServerConfig,
    gateway: VerifyingKey,
    is_node: bool,
) -> Result<Serving> {
    let health = Health::connect(layout, config, is_node).await?;
    health.ready().await?;
    let counters = Arc::new(Metrics::default());
    let metrics = match config.relay.metrics {
        Some(listen) => {
            let system = health.client().clone();
            Some(MetricsServer::bind(listen, Arc::clone(&counters), system).await?)
        }
        None => None,
    };
    let mut orgs = Vec::with_capacity(config.orgs.len());
    for served in &config.orgs {
        let start = async || org::start(layout, config, served, gateway, &counters).await;
        let org = awaiting_leaders::start(&served.name, org::passes, start).await;
        orgs.push(org.with_context(|| format!("the org {} cannot be served", served.name))?);
    }
    let announcement = readiness::announce(&layout.relay_ready(), config.nats_url())?;
    Ok(Serving {
        health,
        orgs,
        metrics,
        announcement,
    })
}

/// Two relays on one directory would each take the other's nats-server for an
/// orphan.
///
/// # Errors
/// When there is another.
pub fn lock(layout: &Layout) -> Result<File> {
    let path = layout.relay_lock();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    file.try_lock().with_context(|| {
        let root = layout.root().display();
        format!("another sotto-relay serves {root} already: stop it first")
    })?;
    Ok(file)
}

fn gateway_key(layout: &Layout) -> Result<VerifyingKey> {
    let path = layout.gateway_public_key();
    let text = private_files::read_text(&path, 1_024)?;
    let key = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    let key = key.and_then(|bytes| public_key(&bytes).ok());
    key.with_context(|| format!("{} does not hold the gateway's public key", path.display()))
}
