//! How a process says that it serves: a small JSON file in the `run` folder,
//! there from the moment it serves until it stops.
//!
//! A process that was killed leaves its file behind: a reader compares `pid`
//! with the process it started. While one process hands over to another, the
//! file names the one that has come last.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Whether it has yet to start anew a part of itself, until when what it
    /// was updated to has not proved itself.
    #[serde(default)]
    pub is_partial: bool,
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
    is_partial: AtomicBool,
}

/// Says that this process serves at `url` now.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(path: &Path, url: String) -> Result<Announcement, FileError> {
    let announcement = Announcement {
        path: path.to_owned(),
        url,
        is_partial: AtomicBool::new(false),
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
            is_partial: self.is_partial.load(Ordering::Relaxed),
        };
        let json = serde_json::to_vec(&ready);
        let json = json.map_err(|error| FileError::new("write", &self.path, error.into()))?;
        private_files::write(&self.path, &json)
    }

    /// Says whether a part of this process has yet to be started anew.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_partial(&self, is_partial: bool) -> Result<(), FileError> {
        match self.is_partial.swap(is_partial, Ordering::Relaxed) == is_partial {
            true => Ok(()),
            false => self.renew(),
        }
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
            sotto_log::warn!(error, "the ready file stays behind");
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
        let said = || Ready::read(&path).unwrap();
        assert_eq!(said().pid, std::process::id());
        assert!(!said().is_partial);
        announcement.set_partial(true).unwrap();
        assert!(said().is_partial);
        announcement.set_partial(false).unwrap();
        assert!(!said().is_partial);
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
