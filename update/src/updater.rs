//! Finds out whether there is a newer release, and fetches it. Installs
//! nothing, and writes nothing but what [`TrustFile`] remembers and the one
//! file that is asked for.

use std::path::Path;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use semver::Version;
use sotto_service::private_files::FileError;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tough::{IntoVec, Limits, Repository, RepositoryLoader, TargetName};

use crate::log::{Artifact, LOG_MAX, LOG_TARGET, Release, ReleaseLog};
use crate::source::Source;
use crate::trust::TrustFile;
use crate::{Refusal, UpdateError};

/// Bounds on what is read before anything is known of it.
const LIMITS: Limits = Limits {
    max_root_size: 512 * 1024,
    max_targets_size: 4 * 1024 * 1024,
    max_timestamp_size: 64 * 1024,
    max_snapshot_size: 256 * 1024,
    max_root_updates: 1024,
};
/// How far clocks of those who release may be ahead of this machine's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_hours(24);

/// What wants to be updated.
#[derive(Debug, Clone)]
pub struct Program {
    /// `sotto-relay`
    pub name: String,
    /// As [`platform`](crate::platform) says.
    pub platform: String,
    /// What runs.
    pub version: Version,
}

/// Whether there is something newer.
#[derive(Debug)]
pub enum Checked {
    /// There is not: the newest release that has the program.
    UpToDate(Version),
    /// There is.
    Newer(Box<Offer>),
}

/// A newer release, verified down to the sum of its file.
#[derive(Debug)]
pub struct Offer {
    repository: Repository,
    /// Where the repository keeps its notes until it is dropped.
    _folder: TempDir,
    /// The line of the log.
    pub release: Release,
    /// What is to be installed.
    pub artifact: Artifact,
}

/// Asks `source` for something newer than `program`, and remembers what it
/// said as far as it was in order.
///
/// # Errors
/// When it must not be trusted, or cannot be reached.
pub async fn check(
    trust_file: &TrustFile,
    source: &Source,
    program: &Program,
) -> Result<Checked, UpdateError> {
    let _only_one = trust_file.hold().await?;
    let mut trust = trust_file.load()?;
    let temporary = |error| FileError::new("use", std::env::temp_dir(), error);
    let folder = trust.lay_out().map_err(temporary)?;
    let root = trust.root().to_owned();
    let loaded = RepositoryLoader::new(&root, source.metadata(), source.targets())
        .transport(source.clone())
        .limits(LIMITS)
        .datastore(folder.path())
        .load()
        .await;
    trust
        .take_over(folder.path(), loaded.is_ok())
        .map_err(temporary)?;
    trust_file.save(&trust)?;
    let repository = loaded?;

    let log = read_log(&repository).await?;
    let head = log.head();
    if let Some(seen) = &trust.log
        && !log.extends(seen)
    {
        return Err(Refusal::LogRewritten.into());
    }
    let newest = head.as_ref().map(|head| head.released);
    let earliest = newest.map(|time| time.checked_sub(CLOCKS_DIFFER).unwrap_or(Timestamp::MIN));
    if earliest.is_some_and(|earliest| Timestamp::now() < earliest) {
        return Err(Refusal::ClockSlow.into());
    }
    if trust.log != head {
        trust.log = head;
        trust_file.save(&trust)?;
    }
    offer(repository, folder, &log, program)
}

async fn read_log(repository: &Repository) -> Result<ReleaseLog, UpdateError> {
    let missing = || Refusal::BadLog("it is not there".to_owned());
    let name = target_name(LOG_TARGET)?;
    let described = repository.targets().signed.targets.get(&name);
    if described.ok_or_else(missing)?.length > LOG_MAX {
        return Err(Refusal::TooLong(LOG_TARGET.to_owned()).into());
    }
    let stream = repository.read_target(&name).await?;
    let bytes = stream.ok_or_else(missing)?.into_vec().await?;
    let not_text = |_| Refusal::BadLog("it is not text".to_owned());
    let text = String::from_utf8(bytes).map_err(not_text)?;
    Ok(ReleaseLog::parse(&text)?)
}

fn offer(
    repository: Repository,
    folder: TempDir,
    log: &ReleaseLog,
    program: &Program,
) -> Result<Checked, UpdateError> {
    let Some((release, artifact)) = log.newest(&program.name, &program.platform) else {
        let what = format!("{} for {}", program.name, program.platform);
        return Err(Refusal::NotInLog(what).into());
    };
    if release.version < program.version {
        let (offered, running) = (release.version.clone(), program.version.clone());
        return Err(Refusal::Older { offered, running }.into());
    }
    if release.version == program.version {
        return Ok(Checked::UpToDate(release.version.clone()));
    }
    // Twice signed for, and both must say the same.
    let described = repository
        .targets()
        .signed
        .targets
        .get(&target_name(&artifact.target)?);
    let same = described.is_some_and(|described| {
        described.length == artifact.length
            && *described.hashes.sha256 == *artifact.sha256.as_bytes()
    });
    if !same {
        return Err(Refusal::NotInLog(artifact.target.clone()).into());
    }
    Ok(Checked::Newer(Box::new(Offer {
        release: release.clone(),
        artifact: artifact.clone(),
        repository,
        _folder: folder,
    })))
}

impl Offer {
    /// Fetches the file to `path`, where nothing is yet, and makes it durable.
    /// `progress` hears how many bytes are there. What is at `path` after an
    /// error is worth nothing.
    ///
    /// # Errors
    /// When it is not what was signed, comes too slowly, or the disk says no.
    pub async fn download(
        &self,
        path: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<(), UpdateError> {
        let failed = |error| FileError::new("write", path, error);
        let name = target_name(&self.artifact.target)?;
        let missing = || Refusal::NotInLog(self.artifact.target.clone());
        let stream = self.repository.read_target(&name).await?;
        let mut stream = Box::pin(stream.ok_or_else(missing)?);
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(path)
            .await
            .map_err(failed)?;
        let mut received = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            received += piece.len() as u64;
            file.write_all(&piece).await.map_err(failed)?;
            progress(received);
        }
        // The library checks the sum at the end of the stream; a shorter file
        // has another one.
        file.sync_all().await.map_err(failed)?;
        Ok(())
    }
}

fn target_name(name: &str) -> Result<TargetName, UpdateError> {
    TargetName::new(name).map_err(|error| UpdateError::Other(error.to_string()))
}
