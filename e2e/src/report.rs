//! What was checked, how it came out and how long it took: shown as it
//! happens, as a table at the end, and as JSON.

#![expect(
    clippy::print_stdout,
    reason = "the report of a program for the terminal"
)]

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::Path;
use std::time::Instant;
use std::{fs, mem};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
struct Check {
    what: String,
    passed: bool,
    /// What was seen.
    found: String,
    /// Since the check before.
    seconds: f64,
}

/// A part of the story with its checks.
#[derive(Debug, Clone, Default, Serialize)]
struct Step {
    name: String,
    seconds: f64,
    checks: Vec<Check>,
}

/// Everything so far.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    step_started: Instant,
    check_started: Instant,
    step: Step,
    finished: Vec<Step>,
    figures: BTreeMap<String, Value>,
}

impl Report {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            step_started: now,
            check_started: now,
            step: Step::default(),
            finished: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    /// Ends the step before and begins the next.
    pub fn step(&mut self, name: &str) {
        self.end_step();
        self.step.name = name.to_owned();
        println!("\n[{:6.1} s] {name}", self.started.elapsed().as_secs_f64());
    }

    /// Notes whether something holds, and what was seen.
    pub fn check(&mut self, what: &str, passed: bool, found: impl Display) {
        let check = Check {
            what: what.to_owned(),
            passed,
            found: found.to_string(),
            seconds: self.check_started.elapsed().as_secs_f64(),
        };
        self.check_started = Instant::now();
        println!("           {} {what}: {}", mark(passed), check.found);
        self.step.checks.push(check);
    }

    /// Notes that the story could not go on.
    pub fn stopped(&mut self, error: &anyhow::Error) {
        self.check("the step ran to its end", false, format!("{error:#}"));
    }

    /// Notes a number that is nobody's fault.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Ends the last step; whether all checks passed, and there were any.
    pub fn finish(&mut self) -> bool {
        self.end_step();
        let mut checks = self
            .finished
            .iter()
            .flat_map(|step| &step.checks)
            .peekable();
        checks.peek().is_some() && checks.all(|check| check.passed)
    }

    /// Steps, what was checked, time.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let widest = |width: usize, check: &Check| width.max(check.what.chars().count());
        let checks = self.finished.iter().flat_map(|step| &step.checks);
        let width = checks.fold(0, widest);
        for step in &self.finished {
            // Ignored: writing to a string does not fail.
            writeln!(
                table,
                "{:<width$}  {:>7.1} s",
                step.name,
                step.seconds,
                width = width + 7
            )
            .ok();
            for check in &step.checks {
                let Check {
                    what,
                    passed,
                    seconds,
                    ..
                } = check;
                writeln!(
                    table,
                    "  {}  {what:<width$}  {seconds:>7.1} s",
                    mark(*passed)
                )
                .ok();
            }
        }
        table
    }

    /// Writes everything as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let report = serde_json::json!({
            "passed": self.finished.iter().flat_map(|step| &step.checks).all(|check| check.passed),
            "seconds": self.started.elapsed().as_secs_f64(),
            "steps": self.finished,
            "figures": self.figures,
        });
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json).with_context(|| format!("writing {}", path.display()))
    }

    fn end_step(&mut self) {
        let mut step = mem::take(&mut self.step);
        step.seconds = self.step_started.elapsed().as_secs_f64();
        if !step.name.is_empty() {
            self.finished.push(step);
        }
        self.step_started = Instant::now();
        self.check_started = Instant::now();
    }
}

fn mark(passed: bool) -> &'static str {
    if passed { "ok  " } else { "FAIL" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_fails_the_report() {
        let mut report = Report::start();
        report.step("1 first");
        report.check("something", true, "seen");
        assert!(report.finish());
        report.step("2 second");
        report.check("something else", false, "nothing");
        assert!(!report.finish());
        assert!(report.table().contains("FAIL  something else"));
    }

    #[test]
    fn a_report_without_checks_has_not_passed() {
        assert!(!Report::start().finish());
    }
}
