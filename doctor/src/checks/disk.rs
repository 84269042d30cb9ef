//! How much room the streams have, and on what they are kept. How fast that is
//! and whether it keeps its word is for `speed`.

use std::path::Path;

use procfs::process::Process;

use super::speed;
use crate::finding::{Check, Finding};
use crate::server::Server;

/// Less than this is a problem, in bytes.
const SPACE_MIN: u64 = 1_000_000_000;
/// Parts of the whole below which there is a problem, and a warning, in
/// hundredths.
const PROBLEM_BELOW: u64 = 2;
const WARNING_BELOW: u64 = 10;

/// What a folder is kept on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The file system, as `/proc/self/mountinfo` calls it.
    pub kind: String,
    /// Of what it is made, for instance a partition.
    pub source: String,
}

/// Looks at the disk of the streams.
pub(crate) fn check(server: &Server) -> Vec<Finding> {
    let streams = server.layout.jetstream();
    // On a new server the folder may be missing.
    let folder = match streams.is_dir() {
        true => streams,
        false => server.layout.root().to_owned(),
    };
    let mut findings = vec![space(&folder)];
    let mount = mount_of(&folder);
    findings.extend(mount.as_ref().and_then(judge_mount));
    findings.push(speed::check(&folder, mount.as_ref()));
    findings
}

fn space(folder: &Path) -> Finding {
    match rustix::fs::statvfs(folder) {
        Ok(disk) => {
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            judge_space(bytes(disk.f_bavail), bytes(disk.f_blocks))
        }
        Err(error) => Finding::not_checked(
            Check::Disk,
            format!(
                "the disk of {} does not say how full it is: {error}",
                folder.display()
            ),
            "run this as the user that the server runs as",
        ),
    }
}

fn judge_space(free: u64, total: u64) -> Finding {
    let hundredths = free.saturating_mul(100).checked_div(total).unwrap_or(0);
    let what = format!(
        "{:.1} GB of {:.1} GB are free for streams ({hundredths} %)",
        gigabytes(free),
        gigabytes(total)
    );
    if free < SPACE_MIN || hundredths < PROBLEM_BELOW {
        let advice = "make room or give the streams a larger disk now: a full disk takes no message, and nats-server does not survive it well";
        return Finding::problem(Check::Disk, what, advice);
    }
    match hundredths < WARNING_BELOW {
        true => Finding::warning(
            Check::Disk,
            what,
            "make room, or set [limits] in server.toml so that organisations cannot fill the disk",
        ),
        false => Finding::ok(Check::Disk, what),
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// What is mounted where the folder is.
fn mount_of(folder: &Path) -> Option<Mount> {
    let mounts = Process::myself().ok()?.mountinfo().ok()?.into_iter();
    // Of two at the same place the later one covers the other.
    let mount = mounts
        .filter(|mount| folder.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())?;
    Some(Mount {
        source: mount.mount_source.unwrap_or_default(),
        kind: mount.fs_type,
    })
}

/// File systems that are no disk of this machine.
fn judge_mount(mount: &Mount) -> Option<Finding> {
    let Mount { kind, source } = mount;
    let (what, advice) = match kind.as_str() {
        "tmpfs" | "ramfs" => (
            format!("the server is kept in memory ({kind})"),
            "move its directory to a disk: all of it is gone when this machine stops",
        ),
        "overlay" | "aufs" => (
            format!("the server is kept in a layer of a container ({kind})"),
            "put its directory on a volume: it goes with the container",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse.sshfs" => (
            format!("the server is kept on another machine ({kind}, {source})"),
            "move its directory to a disk of this machine: nats-server's streams are not made for network file systems",
        ),
        _ => return None,
    };
    Some(Finding::warning(Check::Disk, what, advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn little_room_is_said_before_there_is_none() {
        for (free, total, level) in [
            (50 * GB, 100 * GB, Level::Ok),
            (10 * GB, 100 * GB, Level::Ok),
            (9 * GB, 100 * GB, Level::Warning),
            (2 * GB, 100 * GB, Level::Warning),
            (GB * 19 / 10, 100 * GB, Level::Problem),
            (GB - 1, 2 * GB, Level::Problem),
            (GB, 2 * GB, Level::Ok),
            (0, 0, Level::Problem),
        ] {
            let finding = judge_space(free, total);
            assert_eq!(finding.level, level, "{}", finding.what);
        }
        assert!(
            judge_space(15 * GB / 10, 3 * GB)
                .what
                .contains("1.5 GB of 3.0 GB")
        );
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let mount = |kind: &str| Mount {
            kind: kind.to_owned(),
            source: "box:/export".to_owned(),
        };
        for kind in ["tmpfs", "overlay", "nfs4"] {
            let finding = judge_mount(&mount(kind)).unwrap();
            assert_eq!(finding.level, Level::Warning);
            assert!(finding.what.contains(kind));
        }
        assert_eq!(judge_mount(&mount("ext4")), None);
    }

    #[test]
    fn every_folder_is_on_something() {
        assert!(mount_of(Path::new("/")).is_some());
        assert_eq!(mount_of(Path::new("/proc/self")).unwrap().kind, "proc");
    }
}
