//! A node whose operating system stopped without its knowing holds back: what
//! its disk was told to keep may not all be there, so that it lets no client
//! in before it has everything that the majority has.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sotto_service::cluster::Cluster;
use sotto_service::private_files;
use sotto_service::{Layout, ServerConfig};
use tokio_util::sync::CancellationToken;

use crate::nats_server::{ConfigFile, Health, NatsBinary, Supervisor};

/// Longest file read here, in bytes.
const FILE_MAX: u64 = 4_096;
/// Changes with each start of the operating system (Linux, `random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How a node ran last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LastRun {
    /// In which run of the operating system.
    boot_id: String,
    /// Whether it was stopped.
    clean: bool,
}

/// Whether the operating system was started anew while the node ran.
fn is_unclean(last: Option<&LastRun>, boot_id: &str) -> bool {
    last.is_some_and(|last| !last.clean && last.boot_id != boot_id)
}

/// Notes that the node runs now; whether it must hold back first.
///
/// # Errors
/// When a file does not read or write.
pub fn begin(layout: &Layout) -> Result<bool> {
    let path = layout.cluster_last_run();
    let boot_id = boot_id()?;
    // One that does not read was half written when the power went.
    let last = private_files::read_text(&path, FILE_MAX).ok();
    let unreadable = last.is_none() && path.exists();
    let last: Option<LastRun> = last.and_then(|text| serde_json::from_str(&text).ok());
    let unclean = unreadable || is_unclean(last.as_ref(), &boot_id);
    if !unclean {
        note(&path, &boot_id, false)?;
    }
    Ok(unclean)
}

/// Notes that the node has everything and need not hold back again.
///
/// # Errors
/// When the file does not write.
pub fn caught_up(layout: &Layout) -> Result<()> {
    note(&layout.cluster_last_run(), &boot_id()?, false)
}

/// Notes that the node was stopped.
///
/// # Errors
/// When the file does not write.
pub fn end(layout: &Layout) -> Result<()> {
    note(&layout.cluster_last_run(), &boot_id()?, true)
}

/// Runs nats-server where only this machine reaches it, until everything that
/// is kept here is as the majority has it, or until `stop`.
///
/// # Errors
/// When nats-server does not run or is not what is demanded of it.
pub async fn until_current(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
    binary: &NatsBinary,
    stop: &CancellationToken,
) -> Result<()> {
    sotto_log::warn!(
        "the machine stopped while this node ran: nobody is let in until it has all that the other nodes have"
    );
    let mut private = config.clone();
    private.nats.listen = loopback()?;
    ConfigFile::new(layout)?.write(layout, &private, Some(cluster))?;
    let mut server = Supervisor::start(binary, layout).await?;
    let current = async {
        let health = Health::connect(layout, &private, true).await?;
        health.ready().await?;
        anyhow::Ok(())
    };
    tokio::pin!(current);
    let held = loop {
        tokio::select! {
            held = &mut current => break held,
            () = server.restarted() => {}
            () = stop.cancelled() => break Ok(()),
        }
    };
    server.stop().await;
    held
}

/// A port that nobody listens on at this moment.
fn loopback() -> Result<SocketAddr> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let probe = probe.context("looking for a free port")?;
    Ok(probe.local_addr()?)
}

fn boot_id() -> Result<String> {
    let id = fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

fn note(path: &Path, boot_id: &str, clean: bool) -> Result<()> {
    let run = LastRun {
        boot_id: boot_id.to_owned(),
        clean,
    };
    Ok(private_files::write(path, &serde_json::to_vec(&run)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_stopped_under_a_running_node_is_suspect() {
        let run = |boot_id: &str, clean| LastRun {
            boot_id: boot_id.to_owned(),
            clean,
        };
        assert!(!is_unclean(None, "b"));
        assert!(!is_unclean(Some(&run("a", true)), "b"), "it was stopped");
        assert!(!is_unclean(Some(&run("b", false)), "b"), "it was killed");
        assert!(is_unclean(Some(&run("a", false)), "b"));
    }

    #[test]
    fn it_is_held_back_until_it_has_caught_up_and_not_after() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        private_files::create_dir(&layout.cluster()).unwrap();
        assert!(!begin(&layout).unwrap());
        note(&layout.cluster_last_run(), "another", false).unwrap();
        assert!(begin(&layout).unwrap());
        assert!(begin(&layout).unwrap(), "it stopped again too early");
        caught_up(&layout).unwrap();
        assert!(!begin(&layout).unwrap());
        end(&layout).unwrap();
        assert!(!begin(&layout).unwrap());
    }
}
