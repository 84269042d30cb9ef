//! What is being done to a program, written down before it is done, so that
//! whoever comes after a kill or a power cut knows how to go on.

use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};
use sotto_service::private_files::{self, FileError};

use crate::Digest;

/// Longest journal that is read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;
/// How many failed releases are remembered: the newest count.
const FAILURES_MAX: usize = 16;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The release that has to prove itself.
    pub probation: Option<Probation>,
    /// The release that proved itself last.
    #[serde(default)]
    pub confirmed: Option<Version>,
    /// Releases that did not serve, the oldest first.
    #[serde(default)]
    pub failures: Vec<Failure>,
}

/// A release that is in place, or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probation {
    /// The new one.
    pub version: Version,
    /// Sum of its file.
    pub sha256: Digest,
    /// What ran before.
    pub previous: Version,
    /// Sum of that one's file.
    pub previous_sha256: Digest,
    /// When it was put in place.
    pub since: Timestamp,
    /// How often it was started since, as far as the guard has seen.
    pub starts: u32,
}

/// A release that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub version: Version,
    /// When.
    pub at: Timestamp,
    /// In words.
    pub why: String,
}

/// The file does not read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no journal.
    #[error("{0} is damaged ({1}): see that the program is the right one, then remove this file")]
    Damaged(String, String),
}

/// Where the journal is. Everything that changes it holds its lock.
#[derive(Debug, Clone)]
pub struct JournalFile {
    path: PathBuf,
}

/// The right to change the journal.
#[derive(Debug)]
pub struct Locked<'a> {
    file: &'a JournalFile,
    _lock: File,
}

impl JournalFile {
    /// That of `program`, in the folder `state`, which must exist.
    pub fn new(state: &Path, program: &Path) -> Self {
        Self {
            path: file_of(state, program, "json"),
        }
    }

    /// Waits for whoever is changing it: milliseconds.
    ///
    /// # Errors
    /// When the folder is missing.
    pub fn lock(&self) -> Result<Locked<'_>, JournalError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        Ok(Locked {
            file: self,
            _lock: private_files::lock(folder)?,
        })
    }

    /// What it says; nothing when it is not there.
    ///
    /// # Errors
    /// When it does not read.
    pub fn read(&self) -> Result<Journal, JournalError> {
        if !self.path.exists() {
            return Ok(Journal::default());
        }
        let text = private_files::read_text(&self.path, FILE_MAX)?;
        serde_json::from_str(&text).map_err(|error| {
            JournalError::Damaged(self.path.display().to_string(), error.to_string())
        })
    }
}

/// A file of one of the programs that share the folder `state`.
pub(crate) fn file_of(state: &Path, program: &Path, what: &str) -> PathBuf {
    let mut name = program.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    state.join(name)
}

impl Locked<'_> {
    /// What it says.
    ///
    /// # Errors
    /// When it does not read.
    pub fn read(&self) -> Result<Journal, JournalError> {
        self.file.read()
    }

    /// Replaces it, durably.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        let path = &self.file.path;
        let json = serde_json::to_vec_pretty(journal)
            .map_err(|error| FileError::new("write", path, error.into()))?;
        Ok(private_files::write(path, &json)?)
    }
}

impl Journal {
    /// The release on probation, or the one that proved itself last, is in
    /// place no more.
    pub(crate) fn failed(&mut self, why: String) {
        let on_probation = self.probation.take().map(|probation| probation.version);
        if let Some(version) = on_probation.or_else(|| self.confirmed.take()) {
            self.failures.push(Failure {
                version,
                at: Timestamp::now(),
                why,
            });
            let surplus = self.failures.len().saturating_sub(FAILURES_MAX);
            self.failures.drain(..surplus);
        }
    }

    /// Whether a release was taken back earlier.
    pub fn has_failed(&self, version: &Version) -> bool {
        self.failures
            .iter()
            .any(|failure| failure.version == *version)
    }
}
