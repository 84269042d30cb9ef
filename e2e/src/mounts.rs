//! Tests that mount something.

use std::process::Command;

use anyhow::{Context, ensure};

/// Whether the test of this name runs where it may mount what it likes; if
/// not, it is run there by this. The mounts end with it.
///
/// # Errors
/// When it may not, or fails there.
pub fn are_own(test: &str) -> anyhow::Result<bool> {
    const INSIDE: &str = "SOTTO_TEST_IN_OWN_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !rustix::process::getuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let test_program = std::env::current_exe().context("finding this program")?;
    let status = unshare
        .arg(test_program)
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, "yes")
        .status()
        .context("starting `unshare`, of util-linux")?;
    ensure!(status.success(), "{test}, with mounts of its own: {status}");
    Ok(false)
}
