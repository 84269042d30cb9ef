//! What the relay does for one org: its streams, its directory, its catch-up.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::{Client, jetstream};
use ed25519_dalek::VerifyingKey;
use sotto_jwt_accounts::directory::DirectoryLog;
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::{DIRECTORY_STREAM, INBOX_STREAM, OrgName, Shard, blob_stream, mail_stream};
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig};

use crate::fetch::FetchService;
use crate::streams;

/// An org that is served.
pub struct Started {
    /// Its name.
    pub name: OrgName,
    /// The relay's connection in its account.
    pub client: Client,
    /// Its streams.
    pub streams: Vec<String>,
    /// Answers catch-up.
    pub fetch: FetchService,
}

/// Connects to the org's two accounts, makes its streams, reads its directory,
/// and hears what devices ask from then on.
///
/// # Errors
/// When one of them cannot be done.
pub async fn start(
    layout: &Layout,
    config: &ServerConfig,
    org: &OrgName,
    gateway: VerifyingKey,
) -> Result<Started> {
    let connect = async |credentials: &Path| {
        let login = Login {
            name: "sotto-relay",
            credentials,
            inbox_prefix: RELAY_INBOX,
        };
        nats::connect(layout, config, login).await
    };
    let client = connect(&layout.relay_creds(org)).await?;
    let devices = connect(&layout.relay_devices_creds(org)).await?;
    let jetstream = jetstream::new(client.clone());
    streams::ensure(&jetstream, (0..config.shards.get()).map(Shard)).await?;
    let snapshot = layout.directory_snapshot(org, "relay");
    let directory = DirectoryLog::open(&jetstream, org.clone(), gateway, Some(snapshot))
        .await
        .context("the directory cannot be read")?;
    let mut streams = vec![INBOX_STREAM.to_owned(), DIRECTORY_STREAM.to_owned()];
    for shard in (0..config.shards.get()).map(Shard) {
        streams.extend([mail_stream(shard), blob_stream(shard)]);
    }
    Ok(Started {
        name: org.clone(),
        streams,
        fetch: FetchService::start(devices, client.clone(), Arc::new(directory)).await?,
        client,
    })
}
