//! One program on disk: the file that is run, the one that ran before, and the
//! one that comes next. Every change is one rename between files of the same
//! folder that are durable already, and the journal says beforehand what is to
//! be changed; so a kill or a power cut leaves the old file or the new one.
//!
//! | file | what |
//! |---|---|
//! | `sotto-relay` | what is run |
//! | `sotto-relay.previous` | what ran before; what `back` returns to |
//! | `sotto-relay.next` | verified, and not yet in place |

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semver::Version;
use sotto_service::private_files::{self, FileError};

use crate::Digest;
use crate::journal::{JournalError, JournalFile, Probation};

/// How often a release on probation may be started: the update itself, and a
/// restart of the machine. Once more, and the guard takes it back.
const STARTS_MAX: u32 = 2;

/// A program, and the folder in which its updates are remembered.
#[derive(Debug, Clone)]
pub struct Slot {
    program: PathBuf,
    journal: JournalFile,
}

/// Why the program was not changed, or not changed back.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The disk said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal does not read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file that was verified is not there as it was.
    #[error("the new program changed on disk after it was verified: nothing was replaced")]
    Changed,
    /// Another update has not ended.
    #[error("version {0} is still on probation: wait until it is over")]
    OnProbation(Version),
    /// There is nothing to go back to.
    #[error("there is no previous program at {0}")]
    NoPrevious(String),
}

/// What the guard did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    /// Nothing is on probation.
    Nothing,
    /// The release on probation is started, for this many times in all.
    Started(Version, u32),
    /// The old one is in place again.
    Returned(Version),
}

type Result<T> = std::result::Result<T, SlotError>;

impl Slot {
    /// `program` is the file that is run; `state` a folder for its journal,
    /// which is made when it is missing. Programs of several names may share it.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(program: &Path, state: &Path) -> Result<Self> {
        private_files::create_dir(state)?;
        Ok(Self {
            program: program.to_owned(),
            journal: JournalFile::new(state, program),
        })
    }

    /// The file that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The file that ran before.
    pub fn previous(&self) -> PathBuf {
        self.beside("previous")
    }

    /// Where the file that comes next is to be put.
    pub fn next(&self) -> PathBuf {
        self.beside("next")
    }

    /// What is remembered.
    pub fn journal(&self) -> &JournalFile {
        &self.journal
    }

    /// Puts an end to what was interrupted, and removes what is left over; the
    /// release that is still on probation, if one is.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn recover(&self) -> Result<Option<Probation>> {
        let journal = self.journal.lock()?;
        let mut content = journal.read()?;
        let Some(probation) = content.probation.clone() else {
            private_files::remove(&self.next())?;
            private_files::remove(&self.beside("copy"))?;
            return Ok(None);
        };
        if self.sum(&self.program)? == probation.sha256 {
            return Ok(Some(probation));
        }
        if self.next().exists() {
            // Killed before the new file was in place.
            content.probation = None;
            journal.write(&content)?;
            private_files::remove(&self.next())?;
        } else {
            // Killed after the old file was back in place.
            content.failed("it was taken back".to_owned());
            journal.write(&content)?;
        }
        Ok(None)
    }

    /// Puts the file at [`next`](Self::next) in place, which has the sum
    /// `sha256`, and keeps what ran before.
    ///
    /// # Errors
    /// When it is another file, or the disk says no: then nothing changed.
    pub fn activate(&self, sha256: Digest, version: &Version, running: &Version) -> Result<()> {
        let journal = self.journal.lock()?;
        let mut content = journal.read()?;
        if let Some(probation) = content.probation {
            return Err(SlotError::OnProbation(probation.version));
        }
        let next = self.next();
        if self.sum(&next)? != sha256 {
            return Err(SlotError::Changed);
        }
        let mode = self.permissions()?;
        fs::set_permissions(&next, mode).map_err(at("make executable", &next))?;
        synced(&next)?;
        self.copy_to(&self.program, &self.previous())?;
        content.probation = Some(Probation {
            version: version.clone(),
            sha256,
            previous: running.clone(),
            previous_sha256: self.sum(&self.program)?,
            since: Timestamp::now(),
            starts: 0,
        });
        journal.write(&content)?;
        fs::rename(&next, &self.program).map_err(at("replace", &self.program))?;
        self.sync_folder()
    }

    /// Puts what ran before in place again, and remembers that the release that
    /// was in place failed.
    ///
    /// # Errors
    /// When there is nothing to go back to, or the disk says no.
    pub fn back(&self, why: &str) -> Result<()> {
        let journal = self.journal.lock()?;
        self.take_back(&journal, why)
    }

    /// The release on probation has proved itself.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn confirm(&self) -> Result<()> {
        let journal = self.journal.lock()?;
        let mut content = journal.read()?;
        if let Some(probation) = content.probation.take() {
            content.confirmed = Some(probation.version);
        }
        Ok(journal.write(&content)?)
    }

    /// To be called before each start of the program, by the program that ran
    /// before: counts the starts of a release on probation, and takes it back
    /// when it was started too often. This is what helps when the updater was
    /// killed, or the machine went down, after the new program was in place.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn guard(&self) -> Result<Guarded> {
        let Some(_) = self.recover()? else {
            return Ok(Guarded::Nothing);
        };
        let journal = self.journal.lock()?;
        let mut content = journal.read()?;
        let Some(probation) = &mut content.probation else {
            return Ok(Guarded::Nothing);
        };
        probation.starts += 1;
        let (version, starts) = (probation.version.clone(), probation.starts);
        if starts > STARTS_MAX {
            self.take_back(&journal, "it was started again and again")?;
            return Ok(Guarded::Returned(version));
        }
        journal.write(&content)?;
        Ok(Guarded::Started(version, starts))
    }

    fn take_back(&self, journal: &crate::journal::Locked<'_>, why: &str) -> Result<()> {
        let previous = self.previous();
        if !previous.exists() {
            return Err(SlotError::NoPrevious(previous.display().to_string()));
        }
        self.copy_to(&previous, &self.program)?;
        let mut content = journal.read()?;
        content.failed(why.to_owned());
        Ok(journal.write(&content)?)
    }

    /// Makes `to` the same as `from`, in one step. A copy, because not every
    /// file system has links.
    fn copy_to(&self, from: &Path, to: &Path) -> Result<()> {
        let copy = self.beside("copy");
        private_files::remove(&copy)?;
        fs::copy(from, &copy).map_err(at("copy", from))?;
        synced(&copy)?;
        fs::rename(&copy, to).map_err(at("replace", to))?;
        self.sync_folder()
    }

    fn permissions(&self) -> Result<Permissions> {
        let metadata = fs::metadata(&self.program).map_err(at("look at", &self.program))?;
        // Whatever the old file's mode was: no set-user-id, and not for others to write.
        Ok(Permissions::from_mode(
            (metadata.permissions().mode() & 0o755) | 0o500,
        ))
    }

    fn sum(&self, path: &Path) -> Result<Digest> {
        let (sum, _) = Digest::of_file(path).map_err(at("read", path))?;
        Ok(sum)
    }

    fn sync_folder(&self) -> Result<()> {
        synced(self.program.parent().unwrap_or(Path::new("/")))
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.program.as_os_str().to_owned();
        name.push(".");
        name.push(what);
        name.into()
    }
}

fn synced(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(at("sync", path))
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError {
    let path = path.to_owned();
    move |error| SlotError::File(FileError::new(doing, path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        folder: tempfile::TempDir,
        slot: Slot,
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn case() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "old").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let slot = Slot::new(&program, &folder.path().join("state")).unwrap();
        Case { folder, slot }
    }

    impl Case {
        fn stage(&self, content: &str) -> Digest {
            fs::write(self.slot.next(), content).unwrap();
            Digest::of(content.as_bytes())
        }

        fn update(&self, content: &str) {
            let sum = self.stage(content);
            self.slot
                .activate(sum, &version("0.2.0"), &version("0.1.0"))
                .unwrap();
        }

        fn runs(&self) -> String {
            fs::read_to_string(self.slot.program()).unwrap()
        }
    }

    #[test]
    fn the_old_program_is_kept_and_comes_back() {
        let case = case();
        case.update("new");
        assert_eq!(case.runs(), "new");
        let mode = fs::metadata(case.slot.program()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o7777, 0o755);
        case.slot.back("it did not get ready").unwrap();
        assert_eq!(case.runs(), "old");
        let journal = case.slot.journal().read().unwrap();
        assert!(journal.has_failed(&version("0.2.0")));
        assert_eq!(journal.probation, None);
        // The program, the previous one, and the state folder.
        assert_eq!(fs::read_dir(case.folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn half_a_file_is_never_put_in_place() {
        let case = case();
        let sum = case.stage("new program");
        fs::write(case.slot.next(), "new prog").unwrap();
        let tried = case
            .slot
            .activate(sum, &version("0.2.0"), &version("0.1.0"));
        assert!(matches!(tried, Err(SlotError::Changed)));
        assert_eq!(case.runs(), "old");
        assert_eq!(case.slot.recover().unwrap(), None);
        assert!(!case.slot.next().exists());
    }

    #[test]
    fn one_update_at_a_time() {
        let case = case();
        case.update("new");
        let sum = case.stage("newer");
        let tried = case
            .slot
            .activate(sum, &version("0.3.0"), &version("0.2.0"));
        assert!(matches!(tried, Err(SlotError::OnProbation(_))));
        case.slot.confirm().unwrap();
        case.slot
            .activate(sum, &version("0.3.0"), &version("0.2.0"))
            .unwrap();
        assert_eq!(case.runs(), "newer");
        assert_eq!(fs::read_to_string(case.slot.previous()).unwrap(), "new");
    }

    #[test]
    fn the_guard_counts_starts_and_returns_the_old_program() {
        let case = case();
        assert_eq!(case.slot.guard().unwrap(), Guarded::Nothing);
        case.update("new");
        let new = version("0.2.0");
        for starts in 1..=STARTS_MAX {
            let guarded = case.slot.guard().unwrap();
            assert_eq!(guarded, Guarded::Started(new.clone(), starts));
        }
        assert_eq!(case.slot.guard().unwrap(), Guarded::Returned(new));
        assert_eq!(case.runs(), "old");
        assert_eq!(case.slot.guard().unwrap(), Guarded::Nothing);
    }

    /// A relay and a gateway, as the units have them.
    #[test]
    fn programs_of_one_machine_do_not_disturb_each_other() {
        let case = case();
        let other = case.folder.path().join("other");
        fs::write(&other, "other").unwrap();
        let other = Slot::new(&other, &case.folder.path().join("state")).unwrap();
        case.update("new");
        assert_eq!(other.guard().unwrap(), Guarded::Nothing);
        assert_eq!(other.recover().unwrap(), None);
        let new = version("0.2.0");
        assert_eq!(
            case.slot.guard().unwrap(),
            Guarded::Started(new.clone(), 1),
            "still on probation"
        );
        case.slot.back("it did not get ready").unwrap();
        assert!(case.slot.journal().read().unwrap().has_failed(&new));
        assert!(!other.journal().read().unwrap().has_failed(&new));
    }

    #[test]
    fn what_was_interrupted_is_brought_to_an_end() {
        // The journal was written, the file not yet renamed.
        let before = case();
        before.update("new");
        fs::rename(before.slot.program(), before.slot.next()).unwrap();
        fs::copy(before.slot.previous(), before.slot.program()).unwrap();
        assert_eq!(before.slot.recover().unwrap(), None);
        let journal = before.slot.journal().read().unwrap();
        assert!(!journal.has_failed(&version("0.2.0")), "it was never tried");

        // The old file was back in place, the journal not yet written.
        let after = case();
        after.update("new");
        after
            .slot
            .copy_to(&after.slot.previous(), after.slot.program())
            .unwrap();
        assert_eq!(after.slot.recover().unwrap(), None);
        let journal = after.slot.journal().read().unwrap();
        assert!(journal.has_failed(&version("0.2.0")));
    }
}
