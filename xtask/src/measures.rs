//! What is measured rather than checked, and checks that go on for as long as
//! somebody wants.

use anyhow::{Context, bail};

use crate::checks::build;
use crate::shell::{cargo, step};
use crate::wheels;

/// Measures, with everything optimised. Link-time optimisation would cost
/// minutes and is left out.
pub(crate) fn bench(arguments: &[String]) -> anyhow::Result<()> {
    wheels::nats_server()?;
    let optimised = |command: &[&str]| {
        let mut cargo = cargo(command)?;
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
        anyhow::Ok(cargo)
    };
    // The programs are found beside the bench.
    let programs = ["build", "--release", "--locked", "--workspace", "--bins"];
    step("build", &mut optimised(&programs)?)?;
    let bench = ["run", "--release", "--locked", "--package", "sotto-bench"];
    step("bench", optimised(&bench)?.arg("--").args(arguments))
}

/// Plays what `docs/budget.md` has a row for, and writes the page anew.
pub(crate) fn budget() -> anyhow::Result<()> {
    wheels::nats_server()?;
    build()?;
    let mut test = black_box("budget", "nothing_costs_more_than_its_budget")?;
    step("budget", test.env("SOTTO_BUDGET_WRITE", "yes"))
}

/// Has everything go wrong, from a seed on, for as many seconds on one node and
/// as many on three.
pub(crate) fn faults(arguments: &[String]) -> anyhow::Result<()> {
    let mut seconds = 600;
    let mut seed = 1;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let number = rest.next().and_then(|text| text.parse::<u64>().ok());
        let number = number.with_context(|| format!("{argument} needs a number"))?;
        match argument.as_str() {
            "--seconds" => seconds = number,
            "--seed" => seed = number,
            _ => bail!("usage: cargo xtask faults [--seconds N] [--seed N]"),
        }
    }
    wheels::nats_server()?;
    build()?;
    let mut test = black_box("faults", "whatever_goes_wrong")?;
    test.arg("--include-ignored")
        .env("SOTTO_FAULTS_SECONDS", seconds.to_string())
        .env("SOTTO_SEED", seed.to_string());
    step("faults", &mut test)
}

/// Some tests of one file of `e2e/tests`, with what they say.
fn black_box(file: &str, tests: &str) -> anyhow::Result<std::process::Command> {
    let mut command = cargo(&["test", "--workspace", "--locked", "--test"])?;
    command.args([file, tests, "--", "--nocapture", "--test-threads=1"]);
    Ok(command)
}
