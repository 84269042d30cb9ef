//! The snapshot on disk, beside the log.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::Client;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use sotto_proto::OrgName;
use tokio::sync::{Mutex, watch};

use super::super::state::State;
use super::super::state::snapshot::{self, BadSnapshot};
use super::{Known, LogError, batch};

/// A new snapshot is written when the log has grown by this much.
const ENTRIES: u64 = 5_000;

/// What the file holds, when it holds what the log says. Otherwise nothing,
/// and why stands in this program's log: the directory's is read instead.
pub(super) async fn load(
    client: &Client,
    path: &Path,
    org: &OrgName,
    gateway: &VerifyingKey,
) -> Result<Option<State>, LogError> {
    let (file, org, gateway) = (path.to_owned(), org.clone(), *gateway);
    let read = tokio::task::spawn_blocking(move || {
        let file = BufReader::with_capacity(1 << 16, File::open(file)?);
        snapshot::read(file, &org, &gateway)
    });
    let state = match read.await.map_err(LogError::unavailable)? {
        Ok(state) => state,
        Err(BadSnapshot::Io(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            sotto_log::warn!(error, path, "the directory is read from its beginning");
            return Ok(None);
        }
    };
    let head = state.head();
    let entry = batch::read_one(client, head.length).await?;
    let hash = entry.map(|entry| Sha256::digest(entry).into());
    if hash.is_none() || hash != head.hash {
        sotto_log::warn!(
            path,
            "the snapshot is of another log: the directory is read from its beginning"
        );
        return Ok(None);
    }
    Ok(Some(state))
}

/// The file, and how much of the log it holds.
pub(super) struct Kept {
    path: PathBuf,
    written: Mutex<u64>,
}

impl Kept {
    /// A file that holds so many entries.
    pub(super) fn new(path: PathBuf, written: u64) -> Self {
        let written = Mutex::new(written);
        Self { path, written }
    }

    /// Writes the file anew whenever the log has grown enough.
    pub(super) async fn follow(self: Arc<Self>, mut known: watch::Receiver<Known>) {
        loop {
            let enough = self.written.lock().await.saturating_add(ENTRIES);
            let grown = |known: &Known| {
                let length = known.as_ref().map(|state| state.head().length);
                length.is_ok_and(|length| length >= enough)
            };
            let Ok(Ok(state)) = known.wait_for(grown).await.map(|known| known.clone()) else {
                return;
            };
            self.write(state, ENTRIES).await;
        }
    }

    /// Writes the file anew if that adds so many entries; a failure costs the
    /// next start some time, and is not tried again before there is more.
    pub(super) async fn write(&self, state: Arc<State>, entries: u64) {
        let mut written = self.written.lock().await;
        let length = state.head().length;
        if length < written.saturating_add(entries) {
            return;
        }
        *written = length;
        let file = self.path.clone();
        let done = tokio::task::spawn_blocking(move || replace(&file, &state)).await;
        if let Ok(Err(error)) = done {
            let path = &self.path;
            sotto_log::warn!(error, path, "starting again will take longer");
        }
    }
}

/// Replaces the file by one that is whole and durable, or leaves it as it was.
fn replace(path: &Path, state: &Arc<State>) -> Result<(), BadSnapshot> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)?;
    let new = path.with_extension("snapshot.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = BufWriter::new(options.open(&new)?);
    snapshot::write(state, &mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(&new, path)?;
    File::open(parent)?.sync_all()?;
    Ok(())
}
