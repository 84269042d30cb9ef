//! A file system of a few megabytes.

#![allow(missing_docs, clippy::unwrap_used, reason = "for tests only")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Mounted for one test, unmounted at its end.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount; says so.
    pub fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self(directory)),
            _ => {
                println!("skipped: this user may not mount a small tmpfs");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Somebody else fills it up to `reserve` bytes; removing the file makes
    /// space again.
    pub fn fill(&self, reserve: usize) -> PathBuf {
        let filler = self.path().join("filler");
        let free = rustix::fs::statvfs(self.path()).unwrap();
        let free = usize::try_from(free.f_bavail * free.f_frsize).unwrap();
        fs::write(&filler, vec![1; free - reserve]).unwrap();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
