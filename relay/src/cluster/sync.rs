//! Learning from a node that keeps the keys who the nodes are and what changed
//! in accounts and orgs, for as long as the relay runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sotto_service::cluster::{Cluster, ClusterError, KEEPER, Member, Members};
use sotto_service::{Layout, ServerConfig};
use tokio::sync::watch;

use super::bundle::Bundle;
use super::exchange::{self, Answer, Question};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(3);

/// Asks again and again; `members` changes when the nodes do, and when
/// anything else does that nats-server must be told.
pub async fn keep_current(layout: Layout, members: Arc<watch::Sender<Members>>) {
    let mut told = false;
    loop {
        match Cluster::load(&layout) {
            Ok(Some(cluster)) => {
                // A command may have changed the list on this machine.
                if cluster.members.serial > members.borrow().serial {
                    members.send_replace(cluster.members.clone());
                }
                let refused = sync(&layout, &cluster, &members).await;
                if refused && !told {
                    // It is none because of a list that it does not get.
                    let error = ClusterError::Removed(cluster.node.name);
                    sotto_log::error!(error, "the other nodes keep this one out");
                }
                told = refused;
            }
            Ok(None) => {}
            Err(error) => sotto_log::error!(error, "the cluster's files do not read"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Asks each keeper in turn until one answers. One that keeps the keys itself
/// asks the others, too: any of them may have let somebody in. Whether one
/// said that this is no node any more, and none said otherwise.
async fn sync(layout: &Layout, cluster: &Cluster, members: &watch::Sender<Members>) -> bool {
    let mut refused = false;
    for keeper in cluster.others().filter(|node| node.keeps_keys) {
        match ask(layout, cluster, keeper).await {
            Ok(News::Refused) => refused = true,
            Ok(news) => {
                if matches!(news, News::Changed) {
                    tell(layout, members);
                }
                return false;
            }
            Err(error) => {
                sotto_log::debug!(
                    keeper = keeper.name,
                    error,
                    "a node does not tell what is new"
                );
            }
        }
    }
    refused
}

/// What a keeper said.
enum News {
    Nothing,
    Changed,
    /// This is no node any more.
    Refused,
}

/// The list is what is on disk now.
fn tell(layout: &Layout, members: &watch::Sender<Members>) {
    match Members::load(layout) {
        Ok(new) => drop(members.send_replace(new)),
        Err(error) => sotto_log::error!(error, "the list of nodes does not read"),
    }
}

async fn ask(layout: &Layout, cluster: &Cluster, keeper: &Member) -> Result<News> {
    let keeps_keys = layout.cluster_authority_key().is_file();
    let known = Bundle::read(layout)?;
    let question = Question::Sync {
        serial: cluster.members.serial,
        digest: known.digest(),
    };
    let asked = tokio::time::timeout(exchange::TIMEOUT, question_to(layout, keeper, &question));
    let answer = asked.await.context("it does not answer")??;
    let (members, bundle) = match answer {
        Answer::Synced { members, bundle } => (members, bundle),
        Answer::Refused(_) => return Ok(News::Refused),
        Answer::Later(why) => bail!("not now: {why}"),
        Answer::Admitted(_) => bail!("it answers something else"),
    };
    let members = members.filter(|new| new.serial > cluster.members.serial);
    if let Some(members) = &members {
        members.save(layout)?;
        sotto_log::info!(nodes = members.nodes.len(), "the nodes are others now");
    }
    // What accounts and orgs there are is decided where the keys are.
    let bundle = bundle.filter(|_| !keeps_keys);
    if let Some(bundle) = &bundle {
        bundle.save(layout)?;
        take_orgs(layout, bundle)?;
    }
    Ok(match members.is_some() || bundle.is_some() {
        true => News::Changed,
        false => News::Nothing,
    })
}

fn take_orgs(layout: &Layout, bundle: &Bundle) -> Result<()> {
    let mut config = ServerConfig::load(layout)?;
    let orgs: Vec<_> = bundle.orgs().cloned().collect();
    if config.orgs != orgs {
        config.orgs = orgs;
        config.save(layout)?;
        sotto_log::warn!("there are other organisations now: restart this relay to serve them");
    }
    Ok(())
}

async fn question_to(layout: &Layout, keeper: &Member, question: &Question) -> Result<Answer> {
    let mut stream = exchange::reach(layout, keeper, KEEPER).await?;
    exchange::send(&mut stream, question).await?;
    Ok(exchange::receive(&mut stream, exchange::ANSWER_MAX).await?)
}
