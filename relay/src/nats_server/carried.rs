//! The nats-server that a release build carries inside, so that one file is
//! all that an operator copies.
//!
//! What is started is what was built in: the file on disk is compared with its
//! SHA-256 sum before every start, and made anew when it is another.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sotto_service::private_files::{self, FileError};
use sotto_update::Digest;

/// What this build carries; nothing, unless it has the feature `bundled-nats`.
pub(super) const CARRIED: Option<Carried> = include!(concat!(env!("OUT_DIR"), "/carried.rs"));

/// A program within this one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    /// What the file is called; processes are recognised by it.
    name: &'static str,
    /// The file, as gzip.
    compressed: &'static [u8],
    /// Length of the file, in bytes.
    length: u64,
    /// SHA-256 sum of the file.
    sha256: &'static str,
}

/// Why it is not there to be started.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    /// This program's own file was changed.
    #[error("the nats-server inside this program is damaged: install the program anew")]
    Damaged,
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Carried {
    /// Where it is below `folder`, whole and as it was built in.
    pub fn unpack(&self, folder: &Path) -> Result<PathBuf, CarriedError> {
        let own = folder.join(self.sha256);
        let path = own.join(self.name);
        if !self.is_at(&path) {
            let program = self.decompressed()?;
            remove(&own)?;
            private_files::create_dir(&own)?;
            private_files::write_program(&path, &program)?;
        }
        Ok(path)
    }

    /// Removes what earlier releases left below `folder`.
    pub fn remove_others(&self, folder: &Path) -> Result<(), CarriedError> {
        let failed = |error| FileError::new("read", folder, error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != self.sha256 {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> bool {
        let is_program = fs::symlink_metadata(path).is_ok_and(|metadata| {
            let may_run = metadata.permissions().mode() & 0o100 != 0;
            metadata.is_file() && metadata.len() == self.length && may_run
        });
        is_program && Digest::of_file(path).is_ok_and(|(sum, _)| self.is_sum(sum))
    }

    fn decompressed(&self) -> Result<Vec<u8>, CarriedError> {
        let mut program = Vec::new();
        let read = GzDecoder::new(self.compressed)
            .take(self.length + 1)
            .read_to_end(&mut program);
        match read {
            Ok(_) if self.is_sum(Digest::of(&program)) => Ok(program),
            _ => Err(CarriedError::Damaged),
        }
    }

    fn is_sum(&self, sum: Digest) -> bool {
        sum.to_string() == self.sha256
    }
}

/// A folder and what is in it; one that is not there is fine.
fn remove(folder: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FileError::new("remove", folder, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn carried(file: &[u8]) -> Carried {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(file).unwrap();
        Carried {
            name: "nats-server",
            compressed: gzip.finish().unwrap().leak(),
            length: file.len() as u64,
            sha256: Digest::of(file).to_string().leak(),
        }
    }

    fn said(path: &Path) -> String {
        let output = Command::new(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    const OLD: &[u8] = b"#!/bin/sh\necho old\n";
    const NEW: &[u8] = b"#!/bin/sh\necho new\n";

    #[test]
    fn it_runs_and_replaces_that_of_an_earlier_release() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("bin");
        let old = carried(OLD).unpack(&folder).unwrap();
        assert_eq!(said(&old), "old\n");
        let new = carried(NEW).unpack(&folder).unwrap();
        assert_eq!(said(&new), "new\n");
        assert_eq!(said(&old), "old\n");
        carried(NEW).remove_others(&folder).unwrap();
        assert_eq!(said(&new), "new\n");
        assert!(!old.exists());
        for private in [folder.as_path(), new.parent().unwrap(), &new] {
            let mode = private.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", private.display());
        }
        // And is left alone while it is the one.
        let made = new.metadata().unwrap().modified().unwrap();
        carried(NEW).unpack(&folder).unwrap();
        assert_eq!(new.metadata().unwrap().modified().unwrap(), made);
    }

    #[test]
    fn what_is_not_it_is_never_started() {
        let folder = tempfile::tempdir().unwrap();
        let carried = carried(NEW);
        let path = carried.unpack(folder.path()).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        let spoil: [&dyn Fn(); 5] = [
            // Another one of the same length, half of one, one that cannot be
            // run, a link to something else, and a folder.
            &|| fs::write(&path, OLD).unwrap(),
            &|| fs::write(&path, &NEW[..9]).unwrap(),
            &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(),
            &|| {
                fs::copy(&path, &elsewhere).unwrap();
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            },
            &|| {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            },
        ];
        for spoil in spoil {
            spoil();
            assert!(!carried.is_at(&path));
            assert_eq!(carried.unpack(folder.path()).unwrap(), path);
            assert!(carried.is_at(&path));
            assert_eq!(said(&path), "new\n");
        }
    }

    #[test]
    fn a_damaged_program_unpacks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let whole = carried(NEW);
        let half = &whole.compressed[..whole.compressed.len() / 2];
        // Far larger than it says: not more than that is unpacked.
        let bomb = carried(&vec![0; 1 << 24]).compressed;
        for compressed in [half, b"no gzip", bomb, carried(OLD).compressed] {
            let damaged = Carried {
                compressed,
                ..whole
            };
            let error = damaged.unpack(folder.path()).unwrap_err();
            assert!(matches!(error, CarriedError::Damaged), "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
