//! `sotto-relay cluster remove`: a node that does not come back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::Client;
use serde::Deserialize;
use serde_json::json;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, RELAY_INBOX};
use sotto_service::cluster::{Cluster, Members, NodeName};
use sotto_service::nats::jetstream::Group;
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig, private_files, replicas};
use tokio::time::Instant;

use super::group;
use super::streams::{self, Stream};

/// How long an answer may take, and how long the group may take to agree.
const TIMEOUT: Duration = Duration::from_secs(10);
const AGREEMENT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Takes a node out of the cluster: what it kept is kept by others from then
/// on, and none of them takes a route from it.
///
/// # Errors
/// When it still runs, another node is away or behind, or something is kept
/// only there.
pub async fn remove(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
    system: &Client,
    name: &NodeName,
) -> Result<()> {
    ensure!(
        layout.cluster_authority_key().is_file(),
        "this node does not keep the keys: remove the other one on a node that does"
    );
    ensure!(
        cluster.members.get(name).is_some(),
        "there is no node {name}: see `sotto-relay cluster status`"
    );
    ensure!(
        *name != cluster.node.name,
        "a node is removed from another one that keeps the keys, while it is stopped"
    );
    let group = group::ask(system).await;
    let group = group.context(
        "no majority of the nodes is there: nobody can be removed before they come back",
    )?;
    may_go(&group, name)?;
    let streams = streams::all(system).await?;
    let only_there = streams.iter().find(|stream| stream.leader.is_none());
    if let Some(stream) = only_there {
        bail!(
            "the stream {} of {} has no leader: start {name} until another node has it, too",
            stream.name,
            stream.account
        );
    }
    let members = Members::load(layout)?.without(name);
    for stream in &streams {
        if stream.copies > members.replicas() {
            shrink(layout, config, stream, members.replicas()).await?;
        }
    }
    if group
        .followers
        .iter()
        .any(|node| node.name == name.as_str())
    {
        forget(system, name).await?;
    }
    let _locked = private_files::lock(&layout.cluster())?;
    Members::load(layout)?.without(name).save(layout)?;
    Ok(())
}

fn may_go(group: &Group, name: &NodeName) -> Result<()> {
    ensure!(
        group.leader != name.as_str(),
        "{name} runs and leads the others: stop its relay first"
    );
    for node in &group.followers {
        let is_it = node.name == name.as_str();
        ensure!(
            !is_it || node.offline,
            "{name} still runs: stop its relay first"
        );
        ensure!(
            is_it || (node.current && !node.offline),
            "the node {} is away or behind: wait until it has everything",
            node.name
        );
    }
    Ok(())
}

async fn shrink(
    layout: &Layout,
    config: &ServerConfig,
    stream: &Stream,
    copies: usize,
) -> Result<()> {
    let org = stream.account.parse()?;
    let (credentials, inbox_prefix) = match stream.name.starts_with("KV_") {
        true => (layout.gateway_creds(&org), GATEWAY_INBOX),
        false => (layout.relay_creds(&org), RELAY_INBOX),
    };
    let login = Login {
        name: "sotto-relay cluster remove",
        credentials: &credentials,
        inbox_prefix,
    };
    let client = nats::connect(layout, config, login).await?;
    Ok(replicas::keep_on(&client, &stream.name, copies).await?)
}

/// Has the group of servers forget it.
async fn forget(system: &Client, name: &NodeName) -> Result<()> {
    let request = json!({ "peer": name.as_str() }).to_string();
    let asked = system.request("$JS.API.SERVER.REMOVE", request.into());
    let answer = tokio::time::timeout(TIMEOUT, asked).await??;
    let answer: Answer = serde_json::from_slice(&answer.payload)?;
    if let Some(error) = answer.error {
        bail!("the other nodes keep {name}: {}", error.description);
    }
    let deadline = Instant::now() + AGREEMENT;
    loop {
        let group = group::ask(system).await;
        let knows = |group: Group| {
            group
                .followers
                .iter()
                .any(|node| node.name == name.as_str())
        };
        if group.is_some_and(|group| !knows(group)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the other nodes do not agree that {name} is gone: try again"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    description: String,
}
