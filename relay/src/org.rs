//! What the relay does for one org: its streams, its directory, what devices
//! store, their catch-up, and what they say of themselves.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::{Client, jetstream};
use ed25519_dalek::VerifyingKey;
use sotto_jwt_accounts::directory::{DirectoryLog, LogError};
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::{DIRECTORY_STREAM, INBOX_STREAM, OrgName, Shard, blob_stream, mail_stream};
use sotto_service::cluster::Cluster;
use sotto_service::nats::{self, Login, Queues};
use sotto_service::{Layout, OrgConfig, ServerConfig};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::beacons::BeaconService;
use crate::fetch::FetchService;
use crate::ingest::{self, IngestService};
use crate::intake::ConnectionClosed;
use crate::metrics::Metrics;
use crate::streams::{self, StreamError};

/// An org that is served.
pub struct Started {
    /// Its name.
    pub name: OrgName,
    /// The relay's connection in its account.
    pub client: Client,
    /// Its streams.
    pub streams: Vec<String>,
    /// Its directory.
    pub directory: Arc<DirectoryLog>,
    /// What the relay does for it.
    pub service: OrgService,
}

/// What a relay does for one org.
pub struct OrgService {
    fetch: FetchService,
    ingest: IngestService,
    beacons: BeaconService,
}

/// Whether it is only that nobody answers yet.
pub fn passes(error: &anyhow::Error) -> bool {
    let unavailable = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(StreamError::NoLeader { .. }))
            || matches!(cause.downcast_ref(), Some(LogError::Unavailable(_)))
    };
    error.chain().any(unavailable)
}

/// Connects to the org's two accounts, makes its streams, reads its directory,
/// and hears what devices ask for and submit from then on.
///
/// # Errors
/// When one of them cannot be done.
pub async fn start(
    layout: &Layout,
    config: &ServerConfig,
    served: &OrgConfig,
    gateway: VerifyingKey,
    metrics: &Arc<Metrics>,
) -> Result<Started> {
    let (org, shards) = (&served.name, config.shards.get());
    let limits = served.limits.or(&config.limits);
    let connect = async |credentials: &Path, queues: Queues| {
        let login = Login {
            name: "sotto-relay",
            credentials,
            inbox_prefix: RELAY_INBOX,
        };
        nats::connect_bounded(layout, config, login, queues).await
    };
    let (own, of_devices) = (layout.relay_creds(org), layout.relay_devices_creds(org));
    let client = connect(&own, Queues::default()).await?;
    let devices = connect(&of_devices, Queues::default()).await?;
    let jetstream = jetstream::new(client.clone());
    let copies = Cluster::copies(layout)?;
    streams::ensure(&jetstream, (0..shards).map(Shard), &limits, copies).await?;
    let snapshot = layout.directory_snapshot(org, "relay");
    let directory = DirectoryLog::open(&jetstream, copies, org.clone(), gateway, Some(snapshot))
        .await
        .context("the directory cannot be read")?;
    let directory = Arc::new(directory);
    let fetch = FetchService::start(
        devices.clone(),
        client.clone(),
        Arc::clone(&directory),
        Arc::clone(metrics),
    );
    let fetch = fetch.await?;
    let counts = Arc::clone(metrics);
    let followed = Arc::clone(&directory);
    let beacons = BeaconService::start(devices, client.clone(), followed, shards, counts).await?;
    // Connections of their own: a long upload delays no answer to who catches up.
    let devices = connect(&of_devices, ingest::SUBMISSIONS).await?;
    let storing = connect(&own, ingest::ACKNOWLEDGEMENTS).await?;
    let (followed, counts) = (Arc::clone(&directory), Arc::clone(metrics));
    let ingest = IngestService::start(
        devices,
        storing,
        followed,
        shards,
        limits,
        layout.jetstream(),
        counts,
    )
    .await?;
    let mut streams = vec![INBOX_STREAM.to_owned(), DIRECTORY_STREAM.to_owned()];
    for shard in (0..shards).map(Shard) {
        streams.extend([mail_stream(shard), blob_stream(shard)]);
    }
    Ok(Started {
        name: org.clone(),
        client,
        streams,
        directory,
        service: OrgService {
            fetch,
            ingest,
            beacons,
        },
    })
}

/// Why an org is not served any more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A connection was closed.
    #[error(transparent)]
    Closed(#[from] ConnectionClosed),
    /// A part of the service panicked.
    #[error("serving an org failed")]
    Failed(#[from] JoinError),
}

impl OrgService {
    /// Serves until `retire`, and answers then what has come until then.
    ///
    /// # Errors
    /// When a connection is closed, or a part of it panics.
    pub async fn run(self, retire: CancellationToken) -> Result<(), Ended> {
        // Tasks of their own: none waits for what another computes.
        let mut parts = JoinSet::new();
        parts.spawn(self.fetch.run(retire.clone()));
        parts.spawn(self.ingest.run(retire.clone()));
        parts.spawn(self.beacons.run(retire));
        while let Some(ended) = parts.join_next().await {
            ended??;
        }
        Ok(())
    }
}
