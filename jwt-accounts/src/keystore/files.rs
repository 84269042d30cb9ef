//! Owner-only files that are whole and durable once their name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeyStoreError;

/// Largest file that is read, in bytes: an account with many revocations.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// A folder that nobody looks into yet.
pub(super) struct NewDir(PathBuf);

impl NewDir {
    /// Makes a folder in a new one.
    pub(super) fn within(parent: &Path, name: &str) -> Result<Self, KeyStoreError> {
        let path = parent.join(name);
        make_dir(&path)?;
        Ok(Self(path))
    }

    /// Writes a file, durably.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), KeyStoreError> {
        write_new(&self.0.join(name), text)
    }

    /// Makes the names in it durable.
    pub(super) fn finish(self) -> Result<(), KeyStoreError> {
        sync_dir(&self.0)
    }
}

/// Makes a folder with all that `fill` puts into it, or nothing.
pub(super) fn create_dir(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), KeyStoreError>,
) -> Result<(), KeyStoreError> {
    if path.exists() {
        return Err(KeyStoreError::Exists(path.to_owned()));
    }
    let new = beside(path);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new)(error)),
        _ => {}
    }
    make_dir(&new)?;
    fill(&new)?;
    sync_dir(&new)?;
    fs::rename(&new, path).map_err(failed(path))?;
    sync_parent(path)
}

/// Makes a folder with these files, each at its path within, or nothing.
pub(crate) fn create_tree(
    path: &Path,
    tree: &BTreeMap<PathBuf, Zeroizing<String>>,
) -> Result<(), KeyStoreError> {
    let parents = tree.keys().flat_map(|file| file.ancestors().skip(1));
    // Each folder comes before those in it.
    let dirs: BTreeSet<&Path> = parents.filter(|dir| !dir.as_os_str().is_empty()).collect();
    create_dir(path, |new| {
        for dir in &dirs {
            make_dir(&new.join(dir))?;
        }
        for (file, text) in tree {
            write_new(&new.join(file), text)?;
        }
        dirs.iter().try_for_each(|dir| sync_dir(&new.join(dir)))
    })
}

/// Replaces a file's text by another, or leaves it as it was.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), KeyStoreError> {
    let new = beside(path);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new)(error)),
        _ => {}
    }
    write_new(&new, text)?;
    fs::rename(&new, path).map_err(failed(path))?;
    sync_parent(path)
}

/// Removes a file, durably.
pub(super) fn remove(path: &Path) -> Result<(), KeyStoreError> {
    fs::remove_file(path).map_err(failed(path))?;
    sync_parent(path)
}

/// Keeps other processes, and other threads of this one, from the same folder
/// until what is returned is dropped.
pub(super) fn lock(path: &Path) -> Result<File, KeyStoreError> {
    let dir = File::open(path).map_err(failed(path))?;
    dir.lock().map_err(failed(path))?;
    Ok(dir)
}

/// Reads a file that only its owner can read.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, KeyStoreError> {
    let file = File::open(path).map_err(failed(path))?;
    let metadata = file.metadata().map_err(failed(path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyStoreError::Exposed(path.to_owned()));
    }
    if metadata.len() > FILE_MAX {
        return Err(KeyStoreError::Damaged(path.to_owned()));
    }
    // Reserved in one piece, so that growing leaves no copies behind.
    let capacity = usize::try_from(metadata.len()).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    match file.take(FILE_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KeyStoreError::Damaged(path.to_owned()))
        }
        Err(error) => Err(failed(path)(error)),
    }
}

/// The names in a folder.
pub(super) fn list(path: &Path) -> Result<Vec<String>, KeyStoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let name = entry.map_err(failed(path))?.file_name();
        names.extend(name.into_string().ok());
    }
    Ok(names)
}

fn write_new(path: &Path, text: &str) -> Result<(), KeyStoreError> {
    let options = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = options.map_err(failed(path))?;
    file.write_all(text.as_bytes()).map_err(failed(path))?;
    file.sync_all().map_err(failed(path))
}

fn make_dir(path: &Path) -> Result<(), KeyStoreError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(failed(path))
}

fn sync_dir(path: &Path) -> Result<(), KeyStoreError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(failed(path))
}

fn sync_parent(path: &Path) -> Result<(), KeyStoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Where the next version of `path` is prepared; no name of ours has a dot first.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError {
    let path = path.to_owned();
    move |error| KeyStoreError::Io { path, error }
}
