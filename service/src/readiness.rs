//! How a process says that it serves: a small JSON file in the `run` folder,
//! there from the moment it serves until it stops.
//!
//! A process that was killed leaves its file behind: a reader compares `pid`
//! with the process it started.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::private_files::{self, FileError};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The process that serves.
    pub pid: u32,
    /// Where clients reach it.
    pub url: String,
}

/// The announcement; dropping it withdraws it.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
}

/// Says that this process serves at `url` now.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(path: &Path, url: String) -> Result<Announcement, FileError> {
    let ready = Ready {
        pid: std::process::id(),
        url,
    };
    let json =
        serde_json::to_vec(&ready).map_err(|error| FileError::new("write", path, error.into()))?;
    private_files::write(path, &json)?;
    Ok(Announcement {
        path: path.to_owned(),
    })
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = private_files::remove(&self.path) {
            tracing::warn!(%error, "the ready file stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_as_long_as_the_announcement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.json");
        let announcement = announce(&path, "tls://localhost:4222".to_owned()).unwrap();
        let ready: Ready = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(ready.pid, std::process::id());
        drop(announcement);
        assert!(!path.exists());
    }
}
