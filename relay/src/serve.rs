//! The life of a relay: one nats-server, all orgs, until it is told to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use sotto_log::Known;
use sotto_proto::signed::public_key;
use sotto_service::cluster::Cluster;
use sotto_service::consul::{ADMISSION, Consul, Program, Service};
use sotto_service::handover::{Ending, Handover, Phase};
use sotto_service::logging::LogFilter;
use sotto_service::private_files;
use sotto_service::readiness::Announcement;
use sotto_service::watch::{Connections, Readiness, Watch};
use sotto_service::{Layout, ServerConfig, awaiting_leaders, tls};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cluster::TurnArgs;
use crate::metrics::{Metrics, RelayFigures};
use crate::nats::Nats;
use crate::nats_server::{Health, NatsBinary};
use crate::org;
use crate::takeover::Lock;

/// What an operator calls the address at which the relay is watched.
const METRICS: &str = "`[relay] metrics` in server.toml";

/// What else it is started with.
pub struct Start<'a> {
    /// The nats-server that is named.
    pub nats_server: Option<&'a Path>,
    /// How long is waited when that is started anew.
    pub turns: TurnArgs,
    /// What is logged.
    pub log: LogFilter,
}

/// Runs until `stop`, or until it has handed over. Whatever happens,
/// nats-server is stopped before this returns, unless another relay looks
/// after it.
///
/// # Errors
/// When the relay cannot start, or must not go on.
pub async fn serve(
    layout: &Layout,
    config: &ServerConfig,
    start: Start<'_>,
    handover: Handover,
    stop: CancellationToken,
) -> Result<()> {
    let is_successor = handover.part().is_successor();
    let lock = Lock::take(layout, is_successor)?;
    let watched = Watched::new(&stop);
    let figures = Arc::clone(&watched.figures);
    let shown = (config.relay.metrics, METRICS);
    let watch = Watch::start(&handover, shown, &watched.readiness, figures);
    // Until nothing of this server is left.
    let _watch = watch.await?;
    let gateway = gateway_key(layout)?;
    let binary = NatsBinary::find(start.nats_server, layout)?;
    sotto_log::info!(
        version = Known(&binary.version),
        path = binary.path,
        "found nats-server"
    );
    let cluster = Cluster::load(layout)?;
    let program = Program {
        service: service(config, cluster.as_ref()),
        readiness: watched.readiness.clone(),
        log: start.log,
        handover: handover.part(),
        authority: tls::authority_fingerprint(layout)?,
    };
    let consul = Consul::start(config.consul.as_ref(), program, &stop)?;
    let given = Given {
        layout,
        config,
        watched: &watched,
        handover: &handover,
        turns: start.turns,
        stop: &stop,
    };
    let mut nats = Box::pin(Nats::start(&given, &binary, cluster)).await?;
    let mut lock = Some(lock);
    let served = Box::pin(run(&given, gateway, &mut nats, &mut lock)).await;
    watched.readiness.drains();
    consul.leave().await;
    // While a predecessor stands by, or once a successor serves, it is theirs.
    match lock.is_some_and(|lock| lock.is_alone()) {
        true => nats.stop().await,
        false => nats.leave().await,
    }
    served
}

/// What a relay is given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Where everything is.
    pub layout: &'a Layout,
    /// What is configured.
    pub config: &'a ServerConfig,
    /// What is shown.
    pub watched: &'a Watched,
    /// Its part in handing over.
    pub handover: &'a Handover,
    /// How long is waited when nats-server is started anew.
    pub turns: TurnArgs,
    /// It is asked to stop.
    pub stop: &'a CancellationToken,
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
    given: &Given<'_>,
    gateway: VerifyingKey,
    nats: &mut Nats,
    lock: &mut Option<Lock>,
) -> Result<()> {
    let config = given.config;
    let starting = start(given, gateway, nats.node.is_some());
    tokio::pin!(starting);
    let serving = loop {
        tokio::select! {
            serving = &mut starting => break serving?,
            failed = nats.starts() => failed?,
            () = given.stop.cancelled() => return Ok(()),
        }
    };
    sotto_log::info!(orgs = config.orgs.len(), "serving");
    let Serving {
        health,
        orgs,
        announcement,
    } = serving;
    let retire = CancellationToken::new();
    let mut services = JoinSet::new();
    let mut growing = JoinSet::new();
    let mut directories = Vec::with_capacity(orgs.len());
    for org in orgs {
        directories.push(org.directory);
        if let Some(node) = &nats.node {
            growing.spawn(node.growth().look_after(org.name, org.client, org.streams));
        }
        services.spawn(org.service.run(retire.clone()));
    }
    let ends = given.handover.ends(given.stop);
    tokio::pin!(ends);
    let mut part = given.handover.part();
    let ended = loop {
        if let Err(error) = announcement.set_partial(nats.is_outdated()) {
            sotto_log::error!(error, "an update does not hear how far this relay is");
        }
        // Otherwise a successor looks after nats-server.
        let is_alone = part.phase() == Phase::Alone;
        tokio::select! {
            ending = &mut ends => break Ok(ending),
            phase = part.changed() => if phase == Phase::Alone
                && let Err(error) = nats.resume(&health).await
            {
                break Err(error);
            },
            worked = nats.work(&health), if is_alone => if let Err(error) = worked {
                break Err(error);
            },
            Some(ended) = services.join_next() => break Err(why(ended)),
        }
    };
    drop(announcement);
    if matches!(ended, Ok(Ending::HandedOver)) {
        // The successor is the only one from now on.
        drop(lock.take());
        retire.cancel();
        let drained = tokio::time::timeout(given.handover.drain(), services.join_all());
        // What has not ended by then is asked for again.
        drop(given.stop.run_until_cancelled(drained).await);
        return Ok(());
    }
    for directory in directories {
        directory.keep().await;
    }
    ended.map(drop)
}

/// Why an org is not served any more.
fn why(ended: Result<Result<(), org::Ended>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("serving an org ended"),
        Ok(Err(ended)) => ended.into(),
        Err(error) => anyhow!(error).context("serving an org failed"),
    }
}

/// What serves.
struct Serving {
    health: Health,
    orgs: Vec<org::Started>,
    announcement: Arc<Announcement>,
}

/// What is shown to whoever watches the relay.
pub struct Watched {
    /// Whether it serves.
    pub readiness: Readiness,
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
        let connections = Connections::of(clients);
        self.readiness.serves(move || connections.missing());
    }
}

async fn start(given: &Given<'_>, gateway: VerifyingKey, is_node: bool) -> Result<Serving> {
    let Given {
        layout,
        config,
        watched,
        handover,
        ..
    } = *given;
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
    let announcement = handover.announce(&layout.relay_ready(), config.nats_url())?;
    Ok(Serving {
        health,
        orgs,
        announcement,
    })
}

fn gateway_key(layout: &Layout) -> Result<VerifyingKey> {
    let path = layout.gateway_public_key();
    let text = private_files::read_text(&path, 1_024)?;
    let key = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    let key = key.and_then(|bytes| public_key(&bytes).ok());
    key.with_context(|| format!("{} does not hold the gateway's public key", path.display()))
}
