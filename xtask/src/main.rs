//! `cargo xtask TASK`: sets up what building and testing need and runs the
//! project's checks. Writes only below `target/`.

#![expect(
    clippy::print_stderr,
    reason = "progress for the person at the terminal"
)]

mod checks;
mod documents;
mod fuzz;
mod machines;
mod measures;
mod release;
mod shell;
mod tools;
mod wheels;

use std::env;
use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo xtask TASK

  setup          unpack nats-server, slapd, systemd, Consul and Chromium under target/tools
  demo [ARGS]    build, then play the whole product through on this machine (demo --help)
  test [ARGS]    build, then run every test; ARGS go to the test runner
  bench [ARGS]   build with optimisation, then measure (bench --help)
  budget         measure bytes and round trips, and write docs/budget.md anew
  faults [ARGS]  have everything go wrong: --seconds N, --seed N
  fuzz [ARGS]    fuzz every target for a minute: SECONDS, names of targets
  release MODE   build reproducibly, describe and sign (release alone says how)
  documents      check that documents name only what exists, and make a book of them
  ci             formatting, lints, documents, dependencies, tests and the demo";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, [])) if task == "setup" => tools::all(),
        Some((task, rest)) if task == "demo" => checks::demo(rest),
        Some((task, rest)) if task == "test" => checks::test(rest),
        Some((task, rest)) if task == "bench" => measures::bench(rest),
        Some((task, [])) if task == "budget" => measures::budget(),
        Some((task, rest)) if task == "faults" => measures::faults(rest),
        Some((task, rest)) if task == "fuzz" => fuzz::run(rest),
        Some((task, rest)) if task == "release" => release::run(rest),
        Some((task, [])) if task == "documents" => documents::check(),
        Some((task, [])) if task == "ci" => checks::all(),
        _ => bail!("{USAGE}"),
    }
}
