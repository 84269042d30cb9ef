//! What a relay takes over from its predecessor: the right to be the one on a
//! server directory, and nats-server with the connections of its clients.
//!
//! Two relays on one directory would each take the other's nats-server for an
//! orphan. So a relay holds a lock: alone at first, and from then on in a way
//! that a successor can share and nobody else.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sotto_service::cluster::Cluster;
use sotto_service::private_files;
use sotto_service::{Layout, ServerConfig};

use crate::nats_server::{Adopted, ConfigFile, Health, NatsBinary, Supervisor};

/// How long a nats-server that runs may take to say how it is.
const ASKING: Duration = Duration::from_secs(20);
/// Longest `nats.conf`, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// The lock.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes it: of a successor, together with its predecessor.
    ///
    /// # Errors
    /// When another relay has it.
    pub fn take(layout: &Layout, is_successor: bool) -> Result<Self> {
        let path = layout.relay_lock();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let alone = match is_successor {
            true => Ok(()),
            false => file.try_lock(),
        };
        let taken = alone.and_then(|()| file.try_lock_shared());
        taken.with_context(|| {
            let root = layout.root().display();
            format!("another sotto-relay serves {root} already: stop it first")
        })?;
        Ok(Self(file))
    }

    /// Whether no predecessor stands by that would go on.
    pub fn is_alone(&self) -> bool {
        self.0.try_lock().is_ok()
    }
}

/// The nats-server of the predecessor, if its program and its settings are
/// those that this relay would give it, and what its configuration is written
/// with. Otherwise it is stopped: a node hands over to the others first.
///
/// # Errors
/// When it cannot be looked after.
pub async fn nats_server(
    binary: &NatsBinary,
    layout: &Layout,
    config: &ServerConfig,
    cluster: Option<&Cluster>,
) -> Result<Option<(Supervisor, ConfigFile)>> {
    let adopted = Supervisor::adopt(binary, layout).await?;
    let Some(Adopted {
        supervisor,
        is_current,
    }) = adopted
    else {
        return Ok(None);
    };
    let suits = match is_current {
        true => {
            let asked = tokio::time::timeout(ASKING, configure(layout, config, cluster)).await;
            asked.unwrap_or_else(|_| Err(anyhow!("it does not answer")))
        }
        false => Err(anyhow!("its program is another one")),
    };
    match suits {
        Ok(file) => {
            tracing::info!("nats-server goes on as it is");
            Ok(Some((supervisor, file)))
        }
        Err(why) => {
            tracing::info!("nats-server is started anew: {why:#}");
            match cluster.is_some_and(|cluster| cluster.others().next().is_some()) {
                true => supervisor.hand_over_and_stop().await,
                false => supervisor.stop().await,
            }
            Ok(None)
        }
    }
}

/// Has a nats-server that runs take the configuration that this relay gives it.
async fn configure(
    layout: &Layout,
    config: &ServerConfig,
    cluster: Option<&Cluster>,
) -> Result<ConfigFile> {
    let health = Health::connect(layout, config, cluster.is_some()).await?;
    let storage = health.storage().await;
    let file = ConfigFile::of_running(storage.context("it does not say how much it may store")?);
    let read = || private_files::read_text(&layout.nats_config(), FILE_MAX);
    let before = read()?;
    file.write(layout, config, cluster)?;
    if read()? != before {
        health.reload().await.map_err(anyhow::Error::msg)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successor_shares_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        private_files::create_dir(&layout.run()).unwrap();
        let first = Lock::take(&layout, false).unwrap();
        assert!(Lock::take(&layout, false).is_err());
        let successor = Lock::take(&layout, true).unwrap();
        assert!(Lock::take(&layout, false).is_err());
        assert!(!successor.is_alone());
        drop(first);
        assert!(successor.is_alone());
        assert!(
            Lock::take(&layout, true).is_err(),
            "it is nobody's successor"
        );
    }
}
