//! Reading below a folder that somebody else filled: no link is followed at any
//! depth, and the bytes and names read in all are bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::NscError;

/// Bytes that are read of one store in all.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Names that are read of one store in all.
const NAMES_MAX: usize = 65_536;

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Public,
    OwnerOnly,
}

/// The folder, and how much may still be read.
pub(super) struct Folder {
    path: PathBuf,
    root: File,
    bytes_left: usize,
    names_left: usize,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, NscError> {
        let root = File::open(path).map_err(|error| NscError::Io {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self {
            path: path.to_owned(),
            root,
            bytes_left: BYTES_MAX,
            names_left: NAMES_MAX,
        })
    }

    /// What a path within is called outside.
    pub(super) fn full(&self, within: &Path) -> PathBuf {
        self.path.join(within)
    }

    /// The names in a folder within, sorted; none when it is not there.
    pub(super) fn names(&mut self, within: &Path) -> Result<Vec<String>, NscError> {
        let full = self.full(within);
        let Some(dir) = self.descend(within, OFlags::DIRECTORY)? else {
            return Ok(Vec::new());
        };
        let failed = |error: Errno| NscError::Io {
            path: full.clone(),
            error: error.into(),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.names_left = self
                .names_left
                .checked_sub(1)
                .ok_or_else(|| NscError::TooMany(full.clone()))?;
            names.extend(name.to_str().map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The text of a file within; none when it is not there.
    pub(super) fn read(
        &mut self,
        within: &Path,
        max: usize,
        secrecy: Secrecy,
    ) -> Result<Option<Zeroizing<String>>, NscError> {
        let full = self.full(within);
        // A pipe is opened at once, and refused below.
        let Some(file) = self.descend(within, OFlags::NONBLOCK)? else {
            return Ok(None);
        };
        let failed = |error: io::Error| NscError::Io {
            path: full.clone(),
            error,
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(NscError::Link(full));
        }
        if secrecy == Secrecy::OwnerOnly && metadata.permissions().mode() & 0o077 != 0 {
            return Err(NscError::Exposed(full));
        }
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if size > max.min(self.bytes_left) {
            return Err(NscError::TooLarge(full));
        }
        self.bytes_left -= size;
        // Reserved in one piece, so that growing leaves no copies behind.
        let mut text = Zeroizing::new(String::with_capacity(size));
        match file.take(metadata.len()).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(NscError::Unfit {
                path: full,
                problem: "this is not text",
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens what is at a path, name by name; none when it is not there.
    fn descend(&self, within: &Path, last: OFlags) -> Result<Option<File>, NscError> {
        let always = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut names = within.components().peekable();
        let mut opened: Option<File> = None;
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let kind = if is_last { last } else { OFlags::DIRECTORY };
            let parent = opened.as_ref().unwrap_or(&self.root);
            match rustix::fs::openat(parent, name.as_os_str(), always | kind, Mode::empty()) {
                Ok(file) => opened = Some(file.into()),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(NscError::Link(self.full(within)));
                }
                Err(error) => {
                    return Err(NscError::Io {
                        path: self.full(within),
                        error: error.into(),
                    });
                }
            }
        }
        Ok(opened)
    }
}
