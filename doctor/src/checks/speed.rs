//! How long the disk takes to keep what it is told to keep: each message waits
//! for it. The file that is written has no name and is gone when it is closed.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::disk::Mount;
use crate::finding::{Check, Finding};

/// How long is written, and how often at most.
const TIME: Duration = Duration::from_secs(1);
const TIMES: usize = 5_000;
/// What is written each time, in bytes.
const BLOCK: usize = 4 * 1024;
/// A median below this is none of a disk that empties its cache: the fastest
/// with batteries take about twice as long through a file system.
const SUSPICIOUS: Duration = Duration::from_micros(25);
/// A median above this is felt by people.
const SLOW: Duration = Duration::from_millis(50);
/// What nobody can tell from outside.
const PROOF: &str = "only pulling the plug proves it";

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figures {
    median: Duration,
    /// 99 of 100 took no longer.
    p99: Duration,
}

/// Writes, and looks at the clock.
pub(crate) fn check(folder: &Path, mount: Option<&Mount>) -> Finding {
    match measure(folder).map(figures) {
        Ok(Some(figures)) => judge(figures, mount),
        Ok(None) => Finding::not_checked(
            Check::Disk,
            "not one write was through within a second",
            "look for a disk that fails: `dmesg` shows its errors",
        ),
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Finding::problem(
            Check::Disk,
            format!("the file system of {} can only be read", folder.display()),
            "mount it so that it can be written to; if it was, the kernel has found errors on the disk, which `dmesg` shows: replace it",
        ),
        Err(error) => Finding::not_checked(
            Check::Disk,
            format!("nothing can be written to {}: {error}", folder.display()),
            "run this as the user that the server runs as; if you do, the server cannot write either",
        ),
    }
}

fn measure(folder: &Path) -> io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0x5a; BLOCK];
    let mut times = Vec::with_capacity(TIMES);
    let started = Instant::now();
    while times.len() < TIMES && started.elapsed() < TIME {
        file.write_all(&block)?;
        let before = Instant::now();
        file.sync_data()?;
        times.push(before.elapsed());
    }
    Ok(times)
}

fn figures(mut times: Vec<Duration>) -> Option<Figures> {
    times.sort_unstable();
    let at = |hundredths: usize| {
        let index = times.len().saturating_mul(hundredths) / 100;
        times.get(index.min(times.len().saturating_sub(1))).copied()
    };
    Some(Figures {
        median: at(50)?,
        p99: at(99)?,
    })
}

fn judge(figures: Figures, mount: Option<&Mount>) -> Finding {
    let Figures { median, p99 } = figures;
    let kind = mount.map_or("an unknown file system", |mount| mount.kind.as_str());
    let source = mount.map_or("", |mount| mount.source.as_str());
    let on = match source.is_empty() || source == kind {
        true => kind.to_owned(),
        false => format!("{kind} on {source}"),
    };
    let what = format!(
        "4 KiB are written and synced in {:.3} ms (median), {:.3} ms (99 of 100), {on}",
        milliseconds(median),
        milliseconds(p99)
    );
    // Of these it is known that nothing reaches a disk.
    if matches!(kind, "tmpfs" | "ramfs") {
        return Finding::ok(Check::Disk, format!("{what}: memory, which keeps nothing"));
    }
    if median < SUSPICIOUS {
        return Finding::warning(
            Check::Disk,
            format!(
                "{what}: no disk is so fast, so that the disk or what pretends to be one (a hypervisor, a container) probably says that it has kept what it has not; {PROOF}"
            ),
            "have whoever runs the machine or its hypervisor turn on flushing (a cache mode other than `unsafe`), or use a disk with power-loss protection",
        );
    }
    if median > SLOW {
        return Finding::warning(
            Check::Disk,
            format!("{what}: every message waits for that"),
            "move the server to a faster disk, or find out what else keeps this one busy",
        );
    }
    let what = format!("{what}: as long as an honest disk takes, though {PROOF}");
    Finding::ok(Check::Disk, what)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn judged(median_us: u64, kind: &str) -> Finding {
        let figures = Figures {
            median: Duration::from_micros(median_us),
            p99: Duration::from_micros(median_us * 3),
        };
        let mount = Mount {
            kind: kind.to_owned(),
            source: "/dev/vda1".to_owned(),
        };
        judge(figures, Some(&mount))
    }

    #[test]
    fn a_disk_that_is_too_fast_is_not_believed() {
        assert_eq!(judged(5, "ext4").level, Level::Warning);
        assert!(judged(5, "ext4").what.contains("pulling the plug"));
        assert_eq!(judged(5, "tmpfs").level, Level::Ok);
        assert!(judged(5, "tmpfs").what.contains("keeps nothing"));
    }

    #[test]
    fn figures_and_the_disk_are_named() {
        let fine = judged(812, "ext4");
        assert_eq!(fine.level, Level::Ok);
        for said in [
            "0.812 ms",
            "2.436 ms",
            "ext4 on /dev/vda1",
            "pulling the plug",
        ] {
            assert!(fine.what.contains(said), "{}", fine.what);
        }
        assert_eq!(judged(80_000, "ext4").level, Level::Warning);
    }

    #[test]
    fn a_few_slow_ones_do_not_move_the_median() {
        let mut times = vec![Duration::from_millis(1); 98];
        times.extend([Duration::from_millis(900); 2]);
        let figures = figures(times).unwrap();
        assert_eq!(figures.median, Duration::from_millis(1));
        assert_eq!(figures.p99, Duration::from_millis(900));
        assert_eq!(super::figures(Vec::new()), None);
    }

    #[test]
    fn nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!measure(folder.path()).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
