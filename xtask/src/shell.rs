//! Running other programs, each as a step that is named before and timed after,
//! and the folders that they work in.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, ffi, fs};

use anyhow::{Context, bail};

/// The checkout.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A program that cargo has built.
pub(crate) fn built(name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(target).join("debug").join(name)
}

/// Where tools are installed.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Makes the folder of downloads anew, with this folder in it.
pub(crate) fn make_anew(download: &Path, inside: &str) -> anyhow::Result<()> {
    if download.exists() {
        fs::remove_dir_all(download).context("removing an old download")?;
    }
    fs::create_dir_all(download.join(inside)).context("making target/tools/download")
}

/// A program to be run in the checkout, with the installed tools on its PATH.
pub(crate) fn program(name: impl AsRef<ffi::OsStr>) -> anyhow::Result<Command> {
    let mut path = vec![tools(), tools().join("bin")];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new(name);
    command
        .current_dir(root())
        .env("PATH", env::join_paths(path).context("reading PATH")?);
    Ok(command)
}

/// The cargo that runs this, or a subcommand of it.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))?;
    command.args(arguments);
    Ok(command)
}

/// Runs a step whose output is for the person; fails when the program does.
pub(crate) fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("\n==> {name}");
    let started = Instant::now();
    let status = command.status();
    let status = status.with_context(|| format!("{name}: cannot start {command:?}"))?;
    let seconds = started.elapsed().as_secs_f32();
    if !status.success() {
        bail!("{name} failed after {seconds:.1} s ({status})");
    }
    eprintln!("==> {name}: ok after {seconds:.1} s");
    Ok(())
}

/// What a program prints when all is well; `None` when it is missing or fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Option<String>> {
    match command.stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot start {command:?}")),
    }
}
