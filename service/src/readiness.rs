//! How a process says that it serves: a small JSON file in the `run` folder,
//! there from the moment it serves until it stops.
//!
//! A process that was killed leaves its file behind: a reader compares `pid`
//! with the process it started. While one process hands over to another, the
//! file names the one that has come last.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::private_files::{self, FileError};

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The process that serves.
    pub pid: u32,
    /// Where clients reach it.
    pub url: String,
}

impl Ready {
    /// What the file says now; nothing when there is none that reads.
    pub fn read(path: &Path) -> Option<Self> {
        let text = private_files::read_text(path, FILE_MAX).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// The announcement; dropping it withdraws it.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    url: String,
}

/// Says that this process serves at `url` now.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(path: &Path, url: String) -> Result<Announcement, FileError> {
    let announcement = Announcement {
        path: path.to_owned(),
        url,
    };
    announcement.renew()?;
    Ok(announcement)
}

impl Announcement {
    /// Says it again: another process may have said so of itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn renew(&self) -> Result<(), FileError> {
        let ready = Ready {
            pid: std::process::id(),
            url: self.url.clone(),
        };
        let json = serde_json::to_vec(&ready);
        let json = json.map_err(|error| FileError::new("write", &self.path, error.into()))?;
        private_files::write(&self.path, &json)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let is_own = |ready: Ready| ready.pid == std::process::id();
        if Ready::read(&self.path).is_none_or(is_own)
            && let Err(error) = private_files::remove(&self.path)
        {
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
        assert_eq!(Ready::read(&path).unwrap().pid, std::process::id());
        drop(announcement);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_successor_announced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.json");
        let announcement = announce(&path, "tls://localhost:4222".to_owned()).unwrap();
        let successor = br#"{"pid":1,"url":"tls://localhost:4222"}"#;
        private_files::write(&path, successor).unwrap();
        drop(announcement);
        assert_eq!(Ready::read(&path).unwrap().pid, 1);
    }
}
