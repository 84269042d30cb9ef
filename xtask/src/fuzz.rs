//! Fuzzing: every target of `fuzz` for a while, from the seeds that are kept
//! there and from what earlier runs have found on this machine.

use std::fs;

use anyhow::{Context, bail};

use crate::shell::{cargo, output, root, step};
use crate::wheels;

/// How long a target is run when nothing else is said.
const SECONDS: u32 = 60;
/// Nothing that a target is given may take longer, in seconds, or need more
/// memory, in MB.
const TIMEOUT: u32 = 10;
const MEMORY: u32 = 1_024;
/// How targets are built, and so must be run, too.
const BUILT: [&str; 4] = ["--sanitizer", "none", "--codegen-units", "16"];

/// Builds all targets and runs them, or those named, one after the other.
///
/// Without a sanitizer: there is no `unsafe` here for one to look at, it would
/// ask for a nightly compiler, and make everything several times as slow.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let (seconds, named) = read(arguments)?;
    wheels::cargo_fuzz()?;
    let targets = targets()?;
    if let Some(unknown) = named.iter().find(|name| !targets.contains(name)) {
        bail!(
            "there is no target {unknown:?}, but there are {}",
            targets.join(", ")
        );
    }
    step("fuzz targets", cargo(&["fuzz", "build"])?.args(BUILT))?;
    for target in targets {
        if !named.is_empty() && !named.contains(&target) {
            continue;
        }
        let corpus = root().join("fuzz/corpus").join(&target);
        fs::create_dir_all(&corpus).context("making a folder for what is found")?;
        let seeds = root().join("fuzz/seeds").join(&target);
        let mut fuzz = cargo(&["fuzz", "run"])?;
        fuzz.args(BUILT).arg(&target).arg(&corpus);
        if seeds.is_dir() {
            fuzz.arg(&seeds);
        }
        fuzz.arg("--").args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            "-print_final_stats=1".to_owned(),
        ]);
        step(&format!("fuzz {target} for {seconds} s"), &mut fuzz)?;
    }
    Ok(())
}

/// Seconds, if the first argument is a number, and names of targets.
fn read(arguments: &[String]) -> anyhow::Result<(u32, &[String])> {
    match arguments.split_first() {
        Some((first, rest)) if first.starts_with(|c: char| c.is_ascii_digit()) => {
            let seconds = first.parse().ok().filter(|seconds| *seconds > 0);
            let seconds = seconds.with_context(|| format!("{first:?} is no number of seconds"))?;
            Ok((seconds, rest))
        }
        _ => Ok((SECONDS, arguments)),
    }
}

fn targets() -> anyhow::Result<Vec<String>> {
    let listed = output(&mut cargo(&["fuzz", "list"])?)?;
    let listed = listed.context("`cargo fuzz list` says nothing")?;
    Ok(listed.lines().map(str::to_owned).collect())
}
