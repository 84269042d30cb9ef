//! What the machines of the tests of `sotto bootstrap` are made of: a Debian like
//! this one, with systemd and sshd, below `target/tools/machine`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail};

use crate::shell::{output, program, step, tools};
use crate::tools::{debian_mirror, unpack_debian};

/// What is on a machine before anybody has done anything to it.
const PACKAGES: &str = "systemd,systemd-sysv,openssh-server,sudo";
/// What nobody reads there.
const LEFT_OUT: [&str; 3] = ["doc", "locale", "man"];

/// Puts it together, unless it is there. Only root can, and has a use for it:
/// for others the tests skip it, too.
pub(crate) fn base() -> anyhow::Result<()> {
    let base = tools().join("machine");
    if base.exists() {
        return Ok(());
    }
    if output(program("id")?.arg("-u"))?.is_none_or(|id| id.trim() != "0") {
        eprintln!("==> machines for `sotto bootstrap`: skipped, only root can have them");
        return Ok(());
    }
    let advice = "install the package mmdebstrap by hand";
    unpack_debian("mmdebstrap", &["mmdebstrap"], runs, advice)?;
    let unfinished = tools().join("machine.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("removing an unfinished machine")?;
    }
    let unpacked = tools().join("mmdebstrap");
    let mut mmdebstrap = match runs(&unpacked)? {
        true => perl(&unpacked)?,
        false => perl(Path::new("/"))?,
    };
    mmdebstrap
        .args(["--quiet", "--mode=root", "--variant=essential"])
        .arg(format!("--include={PACKAGES}"))
        .args([
            "--dpkgopt=force-unsafe-io",
            "--aptopt=Acquire::Languages \"none\"",
        ]);
    for folder in LEFT_OUT {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    mmdebstrap
        .arg(suite()?)
        .arg(&unfinished)
        .arg(debian_mirror()?);
    step("put together a Debian for machines", &mut mmdebstrap)?;
    fs::rename(&unfinished, &base).context("putting the machine in place")
}

/// mmdebstrap below `root`, which is a program for perl, with its helper on PATH.
fn perl(root: &Path) -> anyhow::Result<Command> {
    let mut perl = program("perl")?;
    let binaries = root.join("usr/bin");
    let mut path = vec![binaries.clone()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    perl.env("PATH", env::join_paths(path)?)
        .arg(binaries.join("mmdebstrap"));
    Ok(perl)
}

fn runs(root: &Path) -> anyhow::Result<bool> {
    Ok(root.join("usr/bin/mmdebstrap").exists() && output(perl(root)?.arg("--version"))?.is_some())
}

/// Programs that were built here start on a Debian like this one.
fn suite() -> anyhow::Result<String> {
    let mut release = program("sh")?;
    release.args(["-c", ". /etc/os-release; echo \"$VERSION_CODENAME\""]);
    match output(&mut release)? {
        Some(suite) if !suite.trim().is_empty() => Ok(suite.trim().to_owned()),
        _ => bail!("/etc/os-release does not say which Debian this is"),
    }
}
