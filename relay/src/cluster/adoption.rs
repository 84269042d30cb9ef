//! Taking what a server alone has stored into a cluster of one.
//!
//! nats-server as a node knows only streams that the group of servers has
//! agreed on, and half a minute after its start deletes what it finds on its
//! disk besides. So it is started once as a node, unseen, and told each stream
//! as it was; then it is compared. Until that is done a copy of everything
//! stays, which costs no space: its files are links. A copy that is there when
//! a relay starts is of a bootstrap that was interrupted, and is put back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::Client;
use serde::Deserialize;
use serde_json::Value;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, RELAY_INBOX};
use sotto_proto::OrgName;
use sotto_service::cluster::Cluster;
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig};
use tokio::time::Instant;

use super::group;
use crate::nats_server::{ConfigFile, Health, NatsBinary, Supervisor, peer_state, write_witness};

/// How long a node alone may take to lead itself; nats-server waits for up to
/// nine seconds before it tries.
const ELECTION: Duration = Duration::from_secs(60);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// A stream as it was.
#[derive(Debug, Deserialize)]
struct Stored {
    name: String,
    config: Value,
    state: Content,
}

/// What is compared.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Content {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
}

/// Whether there is any stream on disk.
///
/// # Errors
/// When the folder does not read.
pub fn has_streams(layout: &Layout, system_account: &str) -> Result<bool> {
    let accounts = layout.jetstream().join("jetstream");
    if !accounts.is_dir() {
        return Ok(false);
    }
    for account in fs::read_dir(accounts)? {
        let account = account?;
        let streams = account.path().join("streams");
        if account.file_name() != system_account && is_not_empty(&streams)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts back what an interrupted bootstrap left.
///
/// # Errors
/// When the file system refuses.
pub fn put_back(layout: &Layout) -> Result<()> {
    let copy = copy_of(layout);
    if !copy.is_dir() {
        return Ok(());
    }
    sotto_log::warn!("a bootstrap was interrupted: what was stored before is put back");
    let streams = layout.jetstream();
    if streams.exists() {
        fs::remove_dir_all(&streams).context("removing what an interrupted bootstrap made")?;
    }
    fs::rename(&copy, &streams).context("putting the streams back")
}

/// Starts nats-server as it was, then as the only node of `cluster`, and tells
/// it every stream. nats-server does not run before or after.
///
/// # Errors
/// When anything is not as before; then all of it is put back.
pub async fn adopt(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
    system_account: &str,
    binary: &NatsBinary,
) -> Result<()> {
    let stored = stored(layout, config, binary).await?;
    let copy = copy_of(layout);
    link_all(&layout.jetstream(), &copying(layout)).context("copying what is stored")?;
    fs::rename(copying(layout), &copy)?;
    let adopted = adopt_into(layout, config, cluster, system_account, binary, &stored).await;
    match adopted {
        Ok(()) => fs::remove_dir_all(copy).context("removing the copy"),
        Err(error) => {
            put_back(layout)?;
            Err(error.context("the server is as it was"))
        }
    }
}

/// All streams of all orgs, from a server alone.
async fn stored(
    layout: &Layout,
    config: &ServerConfig,
    binary: &NatsBinary,
) -> Result<Vec<(OrgName, Stored)>> {
    ConfigFile::new(layout)?.write(layout, config, None)?;
    let server = Supervisor::start(binary, layout).await?;
    let asked = async {
        let health = Health::connect(layout, config, false).await?;
        health.ready().await?;
        all(health.client()).await
    };
    let stored = asked.await;
    server.stop().await;
    stored
}

async fn all(system: &Client) -> Result<Vec<(OrgName, Stored)>> {
    let question = r#"{"accounts":true,"streams":true,"config":true}"#;
    let asked = system.request("$SYS.REQ.SERVER.PING.JSZ", question.into());
    let answer = tokio::time::timeout(TIMEOUT, asked).await??;
    let answer: Answer = serde_json::from_slice(&answer.payload)
        .context("the server's list of streams does not read")?;
    let mut stored = Vec::new();
    for account in answer.data.account_details {
        for stream in account.stream_detail {
            let org = account
                .name
                .parse()
                .with_context(|| format!("the account {} is of no organisation", account.name))?;
            stored.push((org, stream));
        }
    }
    Ok(stored)
}

async fn adopt_into(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
    system_account: &str,
    binary: &NatsBinary,
    stored: &[(OrgName, Stored)],
) -> Result<()> {
    peer_state::forget(layout, system_account)?;
    peer_state::write_first(layout, system_account, [&cluster.node.name])?;
    ConfigFile::new(layout)?.write(layout, config, Some(cluster))?;
    write_witness(layout, config, cluster)?;
    let witness = Supervisor::start_witness(binary, layout).await?;
    let server = Supervisor::start(binary, layout).await?;
    let adopted = tell(layout, config, stored).await;
    server.stop().await;
    witness.stop().await;
    adopted
}

async fn tell(layout: &Layout, config: &ServerConfig, stored: &[(OrgName, Stored)]) -> Result<()> {
    let health = Health::connect(layout, config, true).await?;
    let deadline = Instant::now() + ELECTION;
    while group::ask(health.client()).await.is_none() {
        ensure!(
            Instant::now() < deadline,
            "nats-server does not lead itself as the only node: see its log in the server's nats folder"
        );
        tokio::time::sleep(PAUSE).await;
    }
    for (org, stream) in stored {
        let (credentials, inbox_prefix) = match stream.name.starts_with("KV_") {
            true => (layout.gateway_creds(org), GATEWAY_INBOX),
            false => (layout.relay_creds(org), RELAY_INBOX),
        };
        let login = Login {
            name: "sotto-relay bootstrap",
            credentials: &credentials,
            inbox_prefix,
        };
        let client = nats::connect(layout, config, login).await?;
        let subject = format!("$JS.API.STREAM.CREATE.{}", stream.name);
        let made = client.request(subject, stream.config.to_string().into());
        let made = tokio::time::timeout(TIMEOUT, made).await??;
        let made: Made = serde_json::from_slice(&made.payload)
            .with_context(|| format!("the stream {} was not taken over", stream.name))?;
        match made {
            Made {
                state: Some(state), ..
            } => ensure!(
                state == stream.state,
                "the stream {} of {org} has {state:?} where it had {:?}",
                stream.name,
                stream.state
            ),
            Made { error, .. } => bail!(
                "the stream {} of {org} was not taken over: {}",
                stream.name,
                error.unwrap_or_default()
            ),
        }
    }
    Ok(())
}

fn copy_of(layout: &Layout) -> PathBuf {
    layout.nats().join("jetstream.before-cluster")
}

/// A copy that is not whole yet.
fn copying(layout: &Layout) -> PathBuf {
    layout.nats().join("jetstream.copying")
}

fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    link_below(from, to)
}

fn link_below(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => link_below(&entry.path(), &target)?,
            false => fs::hard_link(entry.path(), target)?,
        }
    }
    Ok(())
}

fn is_not_empty(folder: &Path) -> Result<bool> {
    Ok(folder.is_dir() && fs::read_dir(folder)?.next().is_some())
}

#[derive(Deserialize)]
struct Answer {
    data: Jsz,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    #[serde(default)]
    stream_detail: Vec<Stored>,
}

#[derive(Deserialize)]
struct Made {
    state: Option<Content>,
    #[serde(default)]
    error: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_bootstrap_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        let stream = layout.jetstream().join("jetstream/A/streams/S");
        fs::create_dir_all(&stream).unwrap();
        fs::write(stream.join("1.blk"), "kept").unwrap();
        assert!(has_streams(&layout, "SYS").unwrap());
        link_all(&layout.jetstream(), &copy_of(&layout)).unwrap();
        fs::remove_dir_all(&stream).unwrap();
        assert!(!has_streams(&layout, "SYS").unwrap());

        put_back(&layout).unwrap();
        assert_eq!(fs::read_to_string(stream.join("1.blk")).unwrap(), "kept");
        assert!(!copy_of(&layout).exists());
        put_back(&layout).unwrap();
    }
}
