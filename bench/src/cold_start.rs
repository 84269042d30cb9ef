//! Reading a snapshot: time, and the memory of a process that does only this.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sotto_jwt_accounts::directory::snapshot;

use crate::figures::{Figures, Goal};
use crate::org::{self, Org};

/// What one cold start took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ColdStart {
    seconds: f64,
    /// Most memory that the process had at once.
    peak_bytes: u64,
}

pub(crate) fn measure(org: &Org, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("snapshot");
    let started = Instant::now();
    let mut written = Vec::new();
    snapshot::write(&org.state, &mut written)?;
    let seconds = started.elapsed().as_secs_f64();
    fs::write(&path, &written)?;
    figures.note("snapshot written in", seconds, "s", None);
    let megabytes = in_megabytes(written.len() as u64);
    figures.note("snapshot", megabytes, "MB", None);
    drop(written);

    let started = Command::new(std::env::current_exe()?)
        .arg("cold-start")
        .arg(&path)
        .output()?;
    ensure!(started.status.success(), "the cold start failed");
    let cold: ColdStart = serde_json::from_slice(&started.stdout)?;
    let goal = Some(Goal::AtMost(2.0));
    figures.note("cold start from snapshot", cold.seconds, "s", goal);
    let goal = Some(Goal::AtMost(300.0));
    let megabytes = in_megabytes(cold.peak_bytes);
    figures.note(
        "cold start from snapshot, peak memory",
        megabytes,
        "MB",
        goal,
    );
    Ok(())
}

/// Reads a snapshot as a gateway does when it starts.
pub(crate) fn read(path: &Path) -> anyhow::Result<ColdStart> {
    let started = Instant::now();
    let file = BufReader::new(File::open(path)?);
    let state = snapshot::read(file, &org::name()?, &org::gateway_key())?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(state.org().is_some(), "the snapshot holds no org");
    let peak_bytes = peak_memory()?;
    Ok(ColdStart {
        seconds,
        peak_bytes,
    })
}

/// `VmHWM` of this process.
fn peak_memory() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes
        .context("no VmHWM in /proc/self/status")?
        .parse()?;
    Ok(kilobytes * 1_024)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes with two digits")]
fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
