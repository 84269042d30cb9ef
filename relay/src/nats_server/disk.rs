//! How much room the streams have. nats-server does not survive a full disk
//! well: a stream that could not write once takes nothing more, and answers
//! nothing, until the server is started again. So it gets a limit below what
//! there is, at which it refuses with an error that the sender sees.

use std::fs;
use std::io;
use std::path::Path;

/// What the streams leave free, as a part of what is free at the start.
const LEFT_FREE: u64 = 10;
/// With less than this free, in bytes, a disk counts as full.
const SPACE_MIN: u64 = 16 * 1024 * 1024;

/// Bytes that the streams below `store` may take in all: what they have and
/// most of what is free. (nats-server's own default counts only what is free,
/// so that a server with much in store would refuse everything after a restart.)
///
/// # Errors
/// When the file system does not answer.
pub(super) fn limit(store: &Path) -> io::Result<u64> {
    let free = available(store)?;
    Ok(used(store)?.saturating_add(free - free / LEFT_FREE))
}

/// Whether so little is free that nats-server may not be able to write.
pub fn is_full(path: &Path) -> bool {
    available(path).is_ok_and(|free| free < SPACE_MIN)
}

/// Bytes that are free on the file system of `path`.
///
/// # Errors
/// When the file system does not answer.
fn available(path: &Path) -> io::Result<u64> {
    let file_system = rustix::fs::statvfs(path)?;
    Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
}

fn used(folder: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes = bytes.saturating_add(if metadata.is_dir() {
            used(&entry.path())?
        } else {
            metadata.len()
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_not_counted_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), [0; 5_000]).unwrap();
        fs::write(folder.path().join("d"), [0; 70]).unwrap();
        assert_eq!(used(folder.path()).unwrap(), 5_070);
        assert!(limit(folder.path()).unwrap() > 5_070);
    }
}
