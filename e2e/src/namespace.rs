//! A network namespace that has nothing but its own loopback and doors.
//!
//! Needs `unshare` and `nsenter` of util-linux, and `ip` of iproute2.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use sotto_faults::Door;

use crate::process::binary;

/// What is in it is cut off when it is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    doors: Child,
}

impl Namespace {
    /// Makes one with these doors.
    ///
    /// # Errors
    /// When the machine does not let us have one.
    pub(crate) fn open(doors: &[Door]) -> anyhow::Result<Self> {
        let mut doors = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(binary("sotto-faults")?)
            .arg("doors")
            .args(doors.iter().map(Door::to_string))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting `unshare`, of util-linux")?;
        let said = doors.stderr.take().context("no standard error")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(
            line.trim() == "open",
            "no network namespace can be made here: {line}"
        );
        Ok(Self { doors })
    }

    /// What comes before a command that is to run in it.
    pub(crate) fn enter(&self) -> [String; 6] {
        [
            "nsenter".to_owned(),
            "--preserve-credentials".to_owned(),
            "--user".to_owned(),
            "--net".to_owned(),
            "--target".to_owned(),
            self.doors.id().to_string(),
        ]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Ignored: it may have ended already.
        self.doors.kill().ok();
        self.doors.wait().ok();
    }
}
