//! Files that only their owner may read and that are whole after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file system said no.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {problem}{}", path.display(), advice(problem))]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    problem: io::Error,
}

sotto_log::log_safe!(FileError);

impl FileError {
    /// What was attempted, on which path, and what the system answered.
    pub fn new(doing: &'static str, path: impl Into<PathBuf>, problem: io::Error) -> Self {
        let path = path.into();
        Self {
            doing,
            path,
            problem,
        }
    }
}

/// What to do, where the disk is to blame.
fn advice(problem: &io::Error) -> &'static str {
    match problem.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            "; mount its file system so that it can be written to; if it was, the kernel has found errors on the disk, which `dmesg` shows"
        }
        ErrorKind::StorageFull => "; free some space",
        _ => "",
    }
}

/// Makes a folder of mode 0700, and those above it, where they are missing.
///
/// # Errors
/// When the file system refuses.
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| FileError::new("make the folder", path, error))
}

/// Puts `content` at `path` with mode 0600, in one step: after a crash there
/// is the old file or the new one.
///
/// # Errors
/// When the file is not durable.
pub fn write(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace(path, content, 0o600).map_err(|error| FileError::new("write", path, error))
}

/// The same for a program that its owner may start: with mode 0700.
///
/// # Errors
/// When the file is not durable.
pub fn write_program(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace(path, content, 0o700).map_err(|error| FileError::new("write", path, error))
}

/// Reads a file of at most `max` bytes as text.
///
/// # Errors
/// When it is missing, longer, or not UTF-8.
pub fn read_text(path: &Path, max: u64) -> Result<String, FileError> {
    read(path, max)
        .and_then(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
        })
        .map_err(|error| FileError::new("read", path, error))
}

/// Waits until no other process holds the folder, and holds it until what is
/// returned is dropped.
///
/// # Errors
/// When the folder is missing.
pub fn lock(folder: &Path) -> Result<File, FileError> {
    let locked = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    locked.map_err(|error| FileError::new("lock", folder, error))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// When it is still there.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::new("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > max {
        let problem = format!("it is longer than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    fs::read(path)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = match path.parent().ok_or(io::ErrorKind::InvalidInput)? {
        // What a bare name says.
        none if none.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_file_is_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, b"long first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(read_text(&path, 6).unwrap(), "second");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        let error = read_text(&path, 10).unwrap_err().to_string();
        assert!(
            error.contains("big") && error.contains("No such file"),
            "{error}"
        );
        fs::write(&path, [b'a'; 11]).unwrap();
        let error = read_text(&path, 10).unwrap_err().to_string();
        assert!(error.contains("big") && error.contains("longer"), "{error}");
        fs::write(&path, [0xff]).unwrap();
        assert!(
            read_text(&path, 10)
                .unwrap_err()
                .to_string()
                .contains("not text")
        );
    }
}
