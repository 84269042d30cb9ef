//! `sotto-relay cluster remove`: a node that does not come back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::Client;
use serde::Deserialize;
use serde_json::json;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, RELAY_INBOX};
use sotto_service::cluster::{Cluster, Members, NodeName};
use sotto_service::nats::jetstream::{Group, peer_id};
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
/// on, and none of them takes a route from it. Where too few are left for as
/// many copies as there were, `agreed` is told so first.
///
/// # Errors
/// When it still runs, another node is away or behind, something is kept only
/// there, or fewer copies are not agreed to.
pub async fn remove(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
    system: &Client,
    name: &NodeName,
    agreed: impl FnOnce(&str) -> Result<()>,
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
    may_go(&cluster.members, &group, name)?;
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
    let copies = members.replicas();
    let too_many: Vec<&Stream> = streams.iter().filter(|is| is.copies > copies).collect();
    if let Some(stream) = too_many.first() {
        agreed(&fewer_copies(&members, stream.copies, name))?;
    }
    for stream in too_many {
        shrink(layout, config, stream, copies).await?;
    }
    forget(system, name).await?;
    let _locked = private_files::lock(&layout.cluster())?;
    Members::load(layout)?.without(name).save(layout)?;
    Ok(())
}

fn may_go(members: &Members, group: &Group, name: &NodeName) -> Result<()> {
    ensure!(
        !group::answers(group, name),
        "{name} still runs, or did some seconds ago: stop its relay first"
    );
    for node in &group.followers {
        let gone =
            node.is(name.as_str()) || members.replaced.iter().any(|name| node.is(name.as_str()));
        ensure!(
            gone || node.is_whole(),
            "the node {} is away or behind: wait until it has everything",
            node.name
        );
    }
    Ok(())
}

/// What becomes of the copies when nobody takes the node's place.
fn fewer_copies(members: &Members, now: usize, name: &NodeName) -> String {
    format!(
        "without {name} there are {} nodes, too few for {now} copies: every stream is kept on {} of them alone until a third has come and has everything, and what that one disk has is lost with it. To keep {now} copies, let a machine in for {name} instead: `sotto-relay cluster token --replaces {name}`",
        members.nodes.len(),
        members.replicas(),
    )
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

/// Has the group of servers forget a node, if it has not. What that kept is
/// given to others where there are enough.
///
/// # Errors
/// When the others do not agree.
pub async fn forget(system: &Client, name: &NodeName) -> Result<()> {
    let group = group::ask(system).await;
    if group.is_some_and(|group| !group.has(name.as_str())) {
        return Ok(());
    }
    // By its id: a leader that has not heard of it since it started has no name
    // for it.
    let request = json!({ "peer": name.as_str(), "peer_id": peer_id(name.as_str()) });
    let request = request.to_string();
    let asked = system.request("$JS.API.SERVER.REMOVE", request.into());
    let answer = tokio::time::timeout(TIMEOUT, asked).await??;
    let answer: Answer = serde_json::from_slice(&answer.payload)?;
    if let Some(error) = answer.error {
        bail!("the other nodes keep {name}: {}", error.description);
    }
    let deadline = Instant::now() + AGREEMENT;
    loop {
        let group = group::ask(system).await;
        if group.is_some_and(|group| !group.has(name.as_str())) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{group, members, name};

    #[test]
    fn only_a_node_that_is_away_goes_and_while_the_others_are_whole() {
        let mut members = members(&["a", "b", "c"]);
        members.replaced.push(name("z"));
        let refused = |group: &Group, node: &str| {
            let no = may_go(&members, group, &name(node)).err();
            no.map(|no| no.to_string()).unwrap_or_default()
        };
        let lost = group(&[("b", true), ("c", false), ("z", false)]);
        assert_eq!(refused(&lost, "c"), "");
        assert!(refused(&lost, "a").contains("still runs"));
        assert!(refused(&lost, "b").contains("still runs"));
        let two = group(&[("b", false), ("c", false)]);
        assert!(refused(&two, "c").contains("node b is away"));
    }

    #[test]
    fn it_is_said_what_becomes_of_the_copies_and_what_to_do_instead() {
        let left = members(&["a", "b"]);
        let said = fewer_copies(&left, 3, &name("c"));
        for part in [
            "there are 2 nodes",
            "too few for 3 copies",
            "on 1 of them alone",
            "`sotto-relay cluster token --replaces c`",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
