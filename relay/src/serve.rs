//! The life of a relay: one nats-server, all orgs, until it is told to stop.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use sotto_proto::signed::public_key;
use sotto_service::cluster::Cluster;
use sotto_service::consul::{ADMISSION, Consul, Program, Service};
use sotto_service::logging::LogFilter;
use sotto_service::private_files;
use sotto_service::readiness::{self, Announcement};
use sotto_service::watch::{NO_NATS, Readiness, Watch, without_nats};
use sotto_service::{Layout, ServerConfig, awaiting_leaders, tls};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cluster::adoption;
use crate::fetch::ConnectionClosed;
use crate::metrics::{Metrics, RelayFigures};
use crate::nats_server::{ConfigFile, Finding, Health, NatsBinary, Supervisor};
use crate::node::{Node, Work};
use crate::org;

/// What an operator calls the address at which the relay is watched.
const METRICS: &str = "`[relay] metrics` in server.toml";

/// Runs until `stop`. Whatever happens, nats-server is stopped before this
/// returns.
///
/// # Errors
/// When the relay cannot start, or must not go on.
pub async fn serve(
    layout: &Layout,
    config: &ServerConfig,
    nats_server: Option<&Path>,
    log: LogFilter,
    stop: CancellationToken,
) -> Result<()> {
    let _only_one = lock(layout)?;
    let watched = Watched::new(&stop);
    let figures = Arc::clone(&watched.figures);
    let watch = Watch::start(config.relay.metrics, METRICS, &watched.readiness, figures);
    // Until nothing of this server is left.
    let _watch = watch.await?;
    let gateway = gateway_key(layout)?;
    let binary = NatsBinary::find(nats_server, layout)?;
    tracing::info!(version = binary.version, path = %binary.path.display(), "found nats-server");
    let cluster = Cluster::load(layout)?;
    let program = Program {
        service: service(config, cluster.as_ref()),
        readiness: watched.readiness.clone(),
        log,
        authority: tls::authority_fingerprint(layout)?,
    };
    let consul = Consul::start(config.consul.as_ref(), program, &stop)?;
    adoption::put_back(layout)?;
    let file = ConfigFile::new(layout)?;
    file.write(layout, config, cluster.as_ref())?;
    let mut node = match cluster {
        Some(cluster) => Some(Node::start(layout, config, cluster, file, &binary).await?),
        None => None,
    };
    if let Some(node) = &mut node {
        watched.readiness.waits_for("the other nodes have more");
        node.hold_back(&binary, &stop).await?;
    }
    watched.readiness.waits_for(NO_NATS);
    let mut supervisor = Supervisor::start(&binary, layout).await?;
    let served = Box::pin(run(
        layout,
        config,
        gateway,
        &mut supervisor,
        &mut node,
        &watched,
        stop,
    ))
    .await;
    watched.readiness.drains();
    consul.leave().await;
    match node {
        Some(node) => node.stop(supervisor).await,
        None => supervisor.stop().await,
    }
    served
}

/// As others find it in Consul. Who wants to join asks a node that keeps the keys.
fn service(config: &ServerConfig, cluster: Option<&Cluster>) -> Service {
    let own = cluster.and_then(|cluster| cluster.members.get(&cluster.node.name));
    let mut meta = BTreeMap::from([("server", config.server_name.clone())]);
    meta.extend(own.map(|own| ("node", own.name.to_string())));
    let keeper = own.filter(|own| own.keeps_keys);
    meta.extend(keeper.map(|own| (ADMISSION, own.admission.to_string())));
    Service {
        name: "sotto-relay",
        host: config.public_host.clone(),
        port: config.nats.listen.port(),
        meta,
    }
}

async fn run(
    layout: &Layout,
    config: &ServerConfig,
    gateway: VerifyingKey,
    supervisor: &mut Supervisor,
    node: &mut Option<Node>,
    watched: &Watched,
    stop: CancellationToken,
) -> Result<()> {
    let starting = start(layout, config, gateway, node.is_some(), watched);
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
        announcement,
    } = serving;
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
    announcement: Announcement,
}

/// What is shown to whoever watches the relay.
struct Watched {
    readiness: Readiness,
    counters: Arc<Metrics>,
    figures: Arc<RelayFigures>,
}

impl Watched {
    fn new(stop: &CancellationToken) -> Self {
        let counters = Arc::new(Metrics::default());
        Self {
            readiness: Readiness::starting(stop.clone()),
            figures: Arc::new(RelayFigures::new(&counters)),
            counters,
        }
    }

    /// The relay serves whenever nats-server is there.
    fn serve(&self, health: &Health, orgs: &[org::Started]) {
        let directories = orgs.iter();
        let directories = directories.map(|org| (org.name.clone(), Arc::clone(&org.directory)));
        self.figures.serve(directories.collect());
        let mut clients = vec![health.client().clone()];
        clients.extend(orgs.iter().map(|org| org.client.clone()));
        self.readiness.serves(move || without_nats(&clients));
    }
}

async fn start(
    layout: &Layout,
    config: &ServerConfig,
    gateway: VerifyingKey,
    is_node: bool,
    watched: &Watched,
) -> Result<Serving> {
    let health = Health::connect(layout, config, is_node).await?;
    health.ready().await?;
    watched.figures.ask(health.client().clone());
    watched.readiness.waits_for("the organisations are opened");
    let counters = &watched.counters;
    let mut orgs = Vec::with_capacity(config.orgs.len());
    for served in &config.orgs {
        let start = async || org::start(layout, config, served, gateway, counters).await;
        let org = awaiting_leaders::start(&served.name, org::passes, start).await;
        orgs.push(org.with_context(|| format!("the org {} cannot be served", served.name))?);
    }
    watched.serve(&health, &orgs);
    let announcement = readiness::announce(&layout.relay_ready(), config.nats_url())?;
    Ok(Serving {
        health,
        orgs,
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
