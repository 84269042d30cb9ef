//! `sotto-gateway run`: opens the orgs of a server directory and serves them
//! until it is asked to stop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, SYSTEM_INBOX};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_log::Known;
use sotto_proto::{GatewayAddress, OrgName};
use sotto_service::cluster::Cluster;
use sotto_service::consul::{Consul, Program, Service};
use sotto_service::handover::{Handover, Inherited};
use sotto_service::logging::LogFilter;
use sotto_service::watch::NO_NATS;
use sotto_service::{
    Layout, OrgConfig, ServerArgs, ServerConfig, awaiting_leaders, nats, shutdown, tls,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client_address::Proxies;
use crate::clock::{Clock, SystemClock};
use crate::first_start::{self, FirstInvite};
use crate::gateway::{Gateway, Server};
use crate::org::{Org, OrgError};
use crate::provable::Provable;
use crate::revocations::Revocations;
use crate::server::Watched;
use crate::sms::{Sms, Webhook};
use crate::webauthn::RelyingParty;
use crate::{guests, nodes, orders, provision, server, signing};

/// Serves the orgs of a server directory until SIGTERM, SIGINT or, when asked
/// to, the end of the parent process.
///
/// # Errors
/// When something in the directory does not read, NATS cannot be reached, or
/// the port is taken.
pub async fn run(args: &ServerArgs, log: LogFilter, inherited: Inherited) -> anyhow::Result<()> {
    let handover = Handover::new(inherited, args.handover)?;
    let (layout, config) = args.load()?;
    let stop = shutdown::watch(args.exit_with_parent)?;
    let watched = Watched::new(&stop);
    // Until requests have finished.
    let _watch = watched.show(&handover, config.gateway.metrics).await?;
    let listen = config.gateway.listen;
    let listener = handover.listen(listen).await;
    let listener = listener
        .with_context(|| format!("cannot listen on {listen}: is it taken by another program?"))?;
    let port = listener.local_addr()?.port();
    let tls = tls::server_config(&layout)?;
    let program = Program {
        service: service(&config, port),
        readiness: watched.readiness.clone(),
        log,
        handover: handover.part(),
        authority: tls::authority_fingerprint(&layout)?,
    };
    let consul = Consul::start(config.consul.as_ref(), program, &stop)?;

    let clock = Arc::new(SystemClock);
    let opening = Box::pin(open(&layout, &config, port, clock, &watched, &consul));
    let Some(opened) = stop.run_until_cancelled(opening).await else {
        consul.leave().await;
        return Ok(());
    };
    // Its tasks go on until the gateway stops.
    let Opened { gateway, _tasks } = opened?;

    let url = format!("https://{}:{port}", host(&config));
    sotto_log::info!(url = Known(&url), orgs = config.orgs.len(), "serving");
    let _announcement = handover.announce(&layout.gateway_ready(), url)?;
    let serving = Arc::clone(&gateway);
    server::serve(listener, tls, serving, watched, &handover, stop).await?;
    consul.leave().await;
    for org in gateway.orgs() {
        org.directory().log().keep().await;
    }
    sotto_log::info!("stopped");
    Ok(())
}

/// A gateway with all of its orgs, and the tasks that go with them.
pub struct Opened {
    /// Ready to be served.
    pub gateway: Arc<Gateway>,
    /// Of each org: what follows from its directory.
    _tasks: JoinSet<()>,
}

/// Connects to NATS and opens every org; `port` is where the gateway listens,
/// `watched` is told what is waited for, and what serves then, `consul` says
/// whose turn it is where one gateway is enough.
///
/// # Errors
/// When something in the directory does not read or NATS cannot be reached.
pub async fn open(
    layout: &Layout,
    config: &ServerConfig,
    port: u16,
    clock: Arc<dyn Clock>,
    watched: &Watched,
    consul: &Consul,
) -> anyhow::Result<Opened> {
    let key = provision::read_gateway_key(layout)?;
    let passwords = provision::read_passwords(layout)?;
    let keys = provision::open_keys(layout, config)?;
    let authority = tls::authority_fingerprint(layout)?;

    let login = nats::Login {
        name: "sotto-gateway",
        credentials: &layout.gateway_system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    watched.readiness.waits_for(NO_NATS);
    let system = nats::connect_to_any(layout, config, login).await?;
    watched.readiness.waits_for("the organisations are opened");
    let turn = consul.turn("gateway");
    let mut orgs = Vec::new();
    let mut tasks = JoinSet::new();
    for OrgConfig { name, project, .. } in &config.orgs {
        let address = GatewayAddress {
            host: host(config),
            port,
            org: name.clone(),
            authority,
        };
        let opened = Box::pin(async {
            let services = provision::services(config);
            let refreshed = signing::refresh(&keys, &system, name, services, clock.now_ms());
            if let Err(error) = refreshed.await {
                sotto_log::warn!(error, "relays and gateways may do what they could before");
            }
            let org = open_org(layout, config, &keys, &key, name).await?;
            let now_ms = clock.now_ms();
            first_start::create(&org, key.verifying_key(), project, now_ms).await?;
            let file = layout.first_invite(name);
            let invite = FirstInvite::offer(&org, file, &address, now_ms).await?;
            anyhow::Ok((Arc::new(org), invite))
        });
        let cannot = || format!("cannot serve the organisation `{name}`");
        let (org, invite) = opened.await.with_context(cannot)?;
        orgs.push(Arc::clone(&org));
        tasks.spawn(orders::follow(
            Arc::clone(&org),
            key.clone(),
            Arc::clone(&clock),
        ));
        tasks.spawn(nodes::keep_buckets(Arc::clone(&org), turn.clone()));
        let sweeping = guests::sweep(Arc::clone(&org), Arc::clone(&clock), turn.clone());
        tasks.spawn(sweeping);
        tasks.spawn(async move { invite.withdraw_when_used(&org).await });
    }
    let keys = Arc::new(keys);
    let revocations = Arc::new(Revocations::new(Arc::clone(&keys), system.clone()));
    for org in &orgs {
        tasks.spawn(signing::follow(
            Arc::clone(org),
            Arc::clone(&keys),
            system.clone(),
        ));
        let following = Arc::clone(&revocations).follow(Arc::clone(org), Arc::clone(&clock));
        tasks.spawn(following);
        let in_force = org.is_in_force(org.state()?.head().length).await;
        in_force
            .with_context(|| format!("cannot keep out the revoked devices of `{}`", org.name()))?;
    }
    let nats_urls = watch::Sender::new(nodes::nats_urls(layout, config));
    let server = Server {
        name: config.server_name.clone(),
        nats_urls: nats_urls.subscribe(),
        shards: config.shards,
        releases: config.gateway.releases.clone(),
        proxies: Proxies::new(&config.gateway.proxy_protocol_from),
    };
    tasks.spawn(nodes::follow(layout.clone(), config.clone(), nats_urls));
    let provable = Provable {
        sms: match &config.sms {
            None => Err("server.toml has no [sms], which says who sends text messages"),
            Some(sms) => Ok(Sms::new(&key, Webhook::new(sms)?)),
        },
        webauthn: RelyingParty::new(&key, &config.origin(port)),
    };
    let gateway = Gateway::new(server, key, passwords, orgs, clock, provable, revocations);
    let gateway = Arc::new(gateway);
    watched.serve(Arc::clone(&gateway));
    Ok(Opened {
        gateway,
        _tasks: tasks,
    })
}

async fn open_org(
    layout: &Layout,
    config: &ServerConfig,
    keys: &KeyStore,
    key: &SigningKey,
    name: &OrgName,
) -> anyhow::Result<Org> {
    let login = nats::Login {
        name: "sotto-gateway",
        credentials: &layout.gateway_creds(name),
        inbox_prefix: GATEWAY_INBOX,
    };
    let client = nats::connect_to_any(layout, config, login).await?;
    let open = async || {
        let signer = keys.account_signer(name)?;
        let snapshot = layout.directory_snapshot(name, "gateway");
        let copies = Cluster::copies(layout)?;
        let client = client.clone();
        let org = Org::open(name.clone(), client, copies, key.clone(), signer, snapshot);
        anyhow::Ok(org.await?)
    };
    let passes = |error: &anyhow::Error| error.downcast_ref().is_some_and(OrgError::passes);
    Box::pin(awaiting_leaders::start(name, passes, open)).await
}

/// As others find it in Consul.
fn service(config: &ServerConfig, port: u16) -> Service {
    Service {
        name: "sotto-gateway",
        host: config.public_host.clone(),
        port,
        meta: BTreeMap::from([("server", config.server_name.clone())]),
    }
}

/// As it stands in a URL: IPv6 in brackets.
fn host(config: &ServerConfig) -> String {
    match config.public_host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => config.public_host.clone(),
    }
}
