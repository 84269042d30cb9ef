//! What this machine trusts and has seen: the newest root of trust, the newest
//! signed descriptions and how far the release log went. One file, replaced
//! whole, because losing it would let an attacker start over: the library's own
//! store is four files that are written in place and not synced, and it ignores
//! one that was cut off. It works in a temporary copy, which is kept here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sotto_service::private_files::{self, FileError};
use tempfile::TempDir;
use tough::schema::{Role, Root, Signed, Snapshot, Targets, Timestamp as TimestampRole};

use crate::log::LogHead;
use crate::{Digest, UpdateError};

/// Longest file that is read, in bytes: five documents and a little.
const FILE_MAX: u64 = 32 * 1024 * 1024;
/// Longest root that is pinned, in bytes.
const ROOT_MAX: u64 = 512 * 1024;
/// The documents that the library keeps, besides the root.
const DOCUMENTS: [&str; 3] = ["timestamp.json", "snapshot.json", "targets.json"];
/// Its note of the latest time; kept only when everything was in order, or one
/// start with a clock that is fast would stop updates for good.
const LATEST_TIME: &str = "latest_known_time.json";

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    format: u32,
    /// Sum of the file that was pinned, which `root` may have left behind.
    pub pinned: Digest,
    root: String,
    documents: Vec<(String, String)>,
    latest_time: Option<String>,
    /// How far the release log went when it was last in order.
    pub log: Option<LogHead>,
}

/// A root that is signed as it says, as machines pin it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootOfTrust {
    /// The file.
    pub text: String,
    /// Its sum, to be compared with what a person was told.
    pub fingerprint: Digest,
}

impl RootOfTrust {
    /// The one that a file holds.
    ///
    /// # Errors
    /// When it is no root.
    pub fn read(file: &Path) -> Result<Self, UpdateError> {
        let text = private_files::read_text(file, ROOT_MAX)?;
        let root: Signed<Root> = serde_json::from_str(&text)
            .map_err(|error| UpdateError::NotARoot(error.to_string()))?;
        let verified = root.signed.verify_role(&root);
        verified.map_err(|error| UpdateError::NotARoot(error.to_string()))?;
        let fingerprint = Digest::of(text.as_bytes());
        Ok(Self { text, fingerprint })
    }
}

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct TrustFile {
    path: PathBuf,
}

impl TrustFile {
    /// In the folder `state`, which need not exist.
    pub fn new(state: &Path) -> Self {
        Self {
            path: state.join("trust.json"),
        }
    }

    /// Pins the root that a file holds, the first time; the fingerprint of what
    /// was pinned, to be compared with what a person was told. Doing the same
    /// again is fine.
    ///
    /// # Errors
    /// When the file is no root, or another one is pinned.
    pub fn pin(&self, file: &Path) -> Result<Digest, UpdateError> {
        let RootOfTrust { text, fingerprint } = RootOfTrust::read(file)?;
        match self.load() {
            Err(UpdateError::NotPinned(_)) => {}
            Ok(trust) if trust.pinned == fingerprint => return Ok(fingerprint),
            Ok(_) => return Err(UpdateError::PinnedOther),
            Err(error) => return Err(error),
        }
        self.make_folder()?;
        self.save(&Trust {
            format: 1,
            pinned: fingerprint,
            root: text,
            documents: Vec::new(),
            latest_time: None,
            log: None,
        })?;
        Ok(fingerprint)
    }

    /// Waits until no other program of this machine asks for releases, and keeps
    /// others from it until what is returned is dropped: what one has seen must
    /// not be overwritten by another that began before.
    pub(crate) async fn hold(&self) -> Result<File, FileError> {
        self.make_folder()?;
        let path = self.path.with_extension("lock");
        let failed = |error| FileError::new("lock", &path, error);
        let file = File::create(&path).map_err(failed)?;
        let held = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        held.map_err(std::io::Error::other)
            .flatten()
            .map_err(failed)
    }

    fn make_folder(&self) -> Result<(), FileError> {
        match self.path.parent() {
            Some(folder) => private_files::create_dir(folder),
            None => Ok(()),
        }
    }

    /// What is remembered.
    ///
    /// # Errors
    /// When nothing was pinned, or the file does not read.
    pub fn load(&self) -> Result<Trust, UpdateError> {
        let path = self.path.display().to_string();
        if !self.path.exists() {
            return Err(UpdateError::NotPinned(path));
        }
        let text = private_files::read_text(&self.path, FILE_MAX)?;
        let damaged = |problem: String| UpdateError::Damaged {
            path: path.clone(),
            problem,
        };
        let trust: Trust =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if trust.format != 1 {
            let problem = format!("its format is {}, and this program knows 1", trust.format);
            return Err(damaged(problem));
        }
        Ok(trust)
    }

    /// Remembers, durably.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn save(&self, trust: &Trust) -> Result<(), FileError> {
        let json = serde_json::to_vec(trust)
            .map_err(|error| FileError::new("write", &self.path, error.into()))?;
        private_files::write(&self.path, &json)
    }
}

impl Trust {
    /// The newest root that is trusted.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Until when the newest descriptions that were seen are good; nothing before
    /// any was seen.
    pub fn good_until(&self) -> Option<Timestamp> {
        let documents = self.documents.iter();
        let until = documents.filter_map(|(name, text)| match name.as_str() {
            "timestamp.json" => expires::<TimestampRole>(text),
            "snapshot.json" => expires::<Snapshot>(text),
            "targets.json" => expires::<Targets>(text),
            _ => None,
        });
        let until = until.min()?;
        Some(expires::<Root>(&self.root).map_or(until, |root| root.min(until)))
    }

    /// A folder for the library to work in.
    pub(crate) fn lay_out(&self) -> std::io::Result<TempDir> {
        let folder = tempfile::tempdir()?;
        for (name, content) in &self.documents {
            fs::write(folder.path().join(name), content)?;
        }
        if let Some(time) = &self.latest_time {
            fs::write(folder.path().join(LATEST_TIME), time)?;
        }
        Ok(folder)
    }

    /// Takes over what the library verified there, whether it came to the end
    /// or not.
    pub(crate) fn take_over(&mut self, folder: &Path, in_order: bool) -> std::io::Result<()> {
        if let Some(root) = read(&folder.join("root.json"))? {
            self.root = root;
        }
        self.documents.clear();
        for name in DOCUMENTS {
            if let Some(content) = read(&folder.join(name))? {
                self.documents.push((name.to_owned(), content));
            }
        }
        if in_order {
            self.latest_time = read(&folder.join(LATEST_TIME))?;
        }
        Ok(())
    }
}

fn expires<R: Role + DeserializeOwned>(document: &str) -> Option<Timestamp> {
    let document: Signed<R> = serde_json::from_str(document).ok()?;
    Some(document.signed.expires())
}

fn read(path: &Path) -> std::io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
