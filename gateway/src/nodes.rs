//! What a gateway does about the nodes of its cluster: it tells clients where
//! they all are, and has its own buckets kept on as many as the directory.

use std::sync::Arc;
use std::time::Duration;

use sotto_proto::DIRECTORY_STREAM;
use sotto_service::cluster::Cluster;
use sotto_service::consul::Turn;
use sotto_service::replicas::{self, CopiesError};
use sotto_service::{Layout, ServerConfig};
use tokio::sync::watch;

use crate::org::Org;
use crate::storage::BUCKETS;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Where clients reach NATS.
pub(crate) fn nats_urls(layout: &Layout, config: &ServerConfig) -> Vec<String> {
    match Cluster::load(layout) {
        Ok(Some(cluster)) => {
            let nodes = cluster.members.nodes.into_iter();
            nodes.map(|node| node.nats_url).collect()
        }
        Ok(None) => vec![config.nats_url()],
        Err(error) => {
            sotto_log::error!(error, "clients are told of no other node");
            vec![config.nats_url()]
        }
    }
}

/// Keeps the list as it is, until nobody wants it.
pub(crate) async fn follow(layout: Layout, config: ServerConfig, urls: watch::Sender<Vec<String>>) {
    while !urls.is_closed() {
        tokio::time::sleep(INTERVAL).await;
        let now = nats_urls(&layout, &config);
        urls.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }
}

/// Has the buckets of an org kept on as many nodes as its directory, which the
/// relays look after, whenever it is this gateway's turn.
pub(crate) async fn keep_buckets(org: Arc<Org>, mut turn: Turn) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !turn.is_mine() {
            continue;
        }
        if let Err(error) = keep_once(&org).await {
            sotto_log::warn!(
                error,
                org = org.name(),
                "buckets are not kept on enough nodes yet"
            );
        }
    }
}

async fn keep_once(org: &Org) -> Result<(), CopiesError> {
    let directory = replicas::copies(org.client(), DIRECTORY_STREAM).await?;
    let Some(directory) = directory.filter(replicas::Copies::are_current) else {
        return Ok(());
    };
    for bucket in BUCKETS {
        let stream = format!("KV_{bucket}");
        let copies = replicas::copies(org.client(), &stream).await?;
        if copies.is_some_and(|copies| copies.wanted < directory.wanted && copies.leader.is_some())
        {
            replicas::keep_on(org.client(), &stream, directory.wanted).await?;
        }
    }
    Ok(())
}
