//! `update` of a program that serves all the time: a new one is put in place,
//! started, watched, and taken back when it does not serve.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use sotto_service::readiness::Ready;

use super::{Output, SourceArgs, Trust, check_only, own_slot, pin, program, put_in_place, status};
use crate::slot::Guarded;
use crate::{Bounds, Program, Service, Serving, Slot, TrustFile};

/// The arguments of `update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The folder in which updates are remembered.
    #[arg(long, global = true, env = "SOTTO_UPDATE_DIR", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: UpdateCommand,
}

#[derive(Debug, Subcommand)]
enum UpdateCommand {
    /// Pin the root of trust, once: the file that came with the first release.
    Trust(Trust),
    /// Say whether there is a newer release.
    Check(SourceArgs),
    /// Install the newest release, and return to this one when it does not serve.
    Apply(Apply),
    /// Say what is pinned, seen, on probation and failed.
    Status,
    /// Return to the program that ran before.
    Back(Restart),
    /// Count a start, and take back a release that is started again and again.
    /// For a unit's ExecStartPre, run by the previous program.
    Guard(Guard),
}

#[derive(Debug, Args)]
struct Restart {
    /// The systemd unit: it is reloaded, by which its program hands over, or
    /// restarted where it knows no reload.
    #[arg(long, value_name = "UNIT", conflicts_with = "restart")]
    unit: Option<String>,
    /// Instead: the command that has the program hand over, or restarts it.
    #[arg(last = true, value_name = "COMMAND")]
    restart: Vec<String>,
    /// The file by which the running program says that it is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: PathBuf,
    /// Seconds from the start until it must be ready.
    #[arg(
        long,
        env = "SOTTO_UPDATE_READY_SECONDS",
        default_value = "120",
        value_name = "SECONDS"
    )]
    ready_within: u32,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    from: SourceArgs,
    #[command(flatten)]
    restart: Restart,
    /// Seconds for which it has to stay ready.
    #[arg(
        long,
        env = "SOTTO_UPDATE_PROBATION_SECONDS",
        default_value = "600",
        value_name = "SECONDS"
    )]
    probation: u32,
    /// Try a release again that failed on this machine.
    #[arg(long)]
    again: bool,
}

#[derive(Debug, Args)]
struct Guard {
    /// The program that is about to be started.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
}

/// Does what was asked, for the program `name` of this version, which is the
/// one that is running.
///
/// # Errors
/// When it cannot be done, or was refused.
pub async fn run(args: UpdateArgs, name: &str, version: &str) -> anyhow::Result<()> {
    let state = args.state.context(
        "name the folder in which updates are remembered: --state DIR, or SOTTO_UPDATE_DIR",
    )?;
    let output = Output { json: args.json };
    let program = program(name, version)?;
    let trust = TrustFile::new(&state);
    match args.command {
        UpdateCommand::Trust(args) => pin(&trust, &args, &output),
        UpdateCommand::Check(from) => check_only(&trust, &from, &program, &output).await,
        UpdateCommand::Apply(args) => apply(&state, &program, &args, &output).await,
        UpdateCommand::Status => status(&trust, &own_slot(&state)?, &program, &output),
        UpdateCommand::Back(args) => back(&own_slot(&state)?, &args, &output),
        UpdateCommand::Guard(args) => guard(&Slot::new(&args.program, &state)?, &output),
    }
}

async fn apply(
    state: &Path,
    program: &Program,
    args: &Apply,
    output: &Output,
) -> anyhow::Result<()> {
    let slot = own_slot(state)?;
    let bounds = Bounds {
        ready: Duration::from_secs(args.restart.ready_within.into()),
        probation: Duration::from_secs(args.probation.into()),
        ..Bounds::default()
    };
    let mut service = service(&slot, &args.restart)?;
    let from = (&args.from, args.again);
    put_in_place(state, &slot, program, from, (&mut service, bounds), output).await
}

fn back(slot: &Slot, args: &Restart, output: &Output) -> anyhow::Result<()> {
    slot.back("somebody took it back")?;
    let mut service = service(slot, args)?;
    service.restart().context("the program does not restart")?;
    output.back();
    Ok(())
}

fn guard(slot: &Slot, output: &Output) -> anyhow::Result<()> {
    match slot.guard()? {
        Guarded::Nothing => {}
        Guarded::Started(version, starts) => {
            let words = format!("Version {version} is on probation: start {starts}.");
            output.say(&words, json!({ "probation": version, "starts": starts }));
        }
        Guarded::Returned(version) => {
            let words = format!("Version {version} does not stay up: the old one is back.");
            output.say(&words, json!({ "returned": version }));
        }
    }
    Ok(())
}

fn service(slot: &Slot, args: &Restart) -> anyhow::Result<Restarted> {
    let systemctl = |verb: &str, unit: &String| ["systemctl", verb, unit].map(str::to_owned);
    let (restart, start) = match &args.unit {
        Some(unit) => (
            systemctl("reload-or-restart", unit).to_vec(),
            systemctl("restart", unit).to_vec(),
        ),
        None => (args.restart.clone(), args.restart.clone()),
    };
    ensure!(
        !restart.is_empty(),
        "say how the program is restarted: --unit UNIT, or -- COMMAND"
    );
    Ok(Restarted {
        restart,
        start,
        ready_file: args.ready_file.clone(),
        program: slot.program().to_owned(),
    })
}

/// A program that a command restarts, and that says in a file that it is ready.
struct Restarted {
    /// How what serves hands over.
    restart: Vec<String>,
    /// How it is started where nobody serves who could: a process that starts
    /// and never serves would not hear of it.
    start: Vec<String>,
    ready_file: PathBuf,
    program: PathBuf,
}

impl Service for Restarted {
    fn restart(&mut self) -> io::Result<()> {
        let command = match self.serving().is_some() {
            true => &self.restart,
            false => &self.start,
        };
        let (command, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let status = std::process::Command::new(command)
            .args(arguments)
            .status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("`{command}` ended with {status}")))
    }

    fn ready(&mut self) -> Option<Serving> {
        let (ready, runs) = self.serving()?;
        (runs == self.program).then_some(Serving {
            process: ready.pid,
            is_partial: ready.is_partial,
        })
    }
}

impl Restarted {
    /// Who says that it serves, and what that process runs: a file that a killed
    /// process left behind names a process that is gone, or another program; one
    /// that was replaced is marked by the system.
    fn serving(&self) -> Option<(Ready, PathBuf)> {
        let ready = Ready::read(&self.ready_file)?;
        let runs = std::fs::read_link(format!("/proc/{}/exe", ready.pid)).ok()?;
        Some((ready, runs))
    }
}
