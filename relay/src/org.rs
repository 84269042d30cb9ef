//! What the relay does for one org: its streams, its directory, its catch-up.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::jetstream;
use ed25519_dalek::VerifyingKey;
use sotto_jwt_accounts::directory::DirectoryLog;
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::{OrgName, Shard};
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig};

use crate::fetch::FetchService;
use crate::streams;

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
) -> Result<FetchService> {
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
    Ok(FetchService::start(devices, client, Arc::new(directory)).await?)
}
