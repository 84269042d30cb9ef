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
use sotto_log::Known;
use sotto_service::cluster::Cluster;
use sotto_service::private_files::FileError;
use sotto_service::{Layout, ServerConfig};

use crate::cluster::Turn;
use crate::nats_server::{Adopted, ConfigFile, Health, NatsBinary, Supervisor};
use crate::serve::Given;

/// How long a nats-server that runs may take to say how it is.
const ASKING: Duration = Duration::from_secs(20);

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
            .map_err(|error| FileError::new("open", &path, error))?;
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

/// The nats-server of a predecessor.
pub struct Inherited {
    /// Looks after it.
    pub supervisor: Supervisor,
    /// What its configuration is written with.
    pub file: ConfigFile,
    /// Why it is to be started anew when it is this node's turn; nothing when
    /// its program and its settings are those that this relay gives it.
    pub outdated: Option<String>,
}

/// The nats-server of the predecessor, when this relay can go on with it. One
/// that it cannot go on with is stopped, as one of a server alone is that has
/// another program or other settings: a node waits for its turn first, while
/// its predecessor serves.
///
/// # Errors
/// When it cannot be looked after.
pub async fn nats_server(
    given: &Given<'_>,
    binary: &NatsBinary,
    cluster: Option<&Cluster>,
) -> Result<Option<Inherited>> {
    let Given { layout, config, .. } = *given;
    let adopted = Supervisor::adopt(binary, layout).await?;
    let Some(Adopted {
        supervisor,
        is_current,
    }) = adopted
    else {
        return Ok(None);
    };
    let has_others = cluster.is_some_and(|cluster| cluster.others().next().is_some());
    let asked = tokio::time::timeout(ASKING, configure(layout, config, cluster)).await;
    let asked = asked.unwrap_or_else(|_| Err(anyhow!("it does not answer")));
    let why = match asked {
        Ok((file, refused)) => {
            let outdated = match is_current {
                true => refused,
                false => Some("its program is another one".to_owned()),
            };
            match outdated {
                Some(why) if !has_others => anyhow!(why),
                outdated => {
                    match &outdated {
                        Some(why) => sotto_log::info!(
                            why = Known(why),
                            "nats-server goes on as it is until it is this node's turn"
                        ),
                        None => sotto_log::info!("nats-server goes on as it is"),
                    }
                    return Ok(Some(Inherited {
                        supervisor,
                        file,
                        outdated,
                    }));
                }
            }
        }
        Err(why) => why,
    };
    if has_others {
        let readiness = &given.watched.readiness;
        readiness.waits_for("this node's turn to start nats-server anew");
        let turn = Turn::new(layout, config, readiness, given.turns).comes();
        let turn = given.stop.run_until_cancelled(turn).await;
        let turn = turn.context("it was to stop before it was this node's turn")?;
        readiness.notices(None);
        sotto_log::info!(why, "nats-server is started anew");
        supervisor.hand_over_and_stop().await;
        // Until the other nodes see for themselves that this one is away.
        drop(turn);
    } else {
        sotto_log::info!(why, "nats-server is started anew");
        supervisor.stop().await;
    }
    Ok(None)
}

/// Has a nats-server that runs take the configuration that this relay gives it;
/// also why it goes on with another one.
///
/// # Errors
/// When it is not one with which this relay could serve.
async fn configure(
    layout: &Layout,
    config: &ServerConfig,
    cluster: Option<&Cluster>,
) -> Result<(ConfigFile, Option<String>)> {
    let health = Health::connect(layout, config, cluster.is_some()).await?;
    health.suits().await?;
    let storage = health.storage().await;
    let file = ConfigFile::of_running(storage.context("it does not say how much it may store")?);
    file.write(layout, config, cluster)?;
    // Also when the file is as it was: an earlier relay may have been refused.
    Ok((file, health.reloaded().await.err()))
}

#[cfg(test)]
mod tests {
    use sotto_service::private_files;

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
