//! `update` of a program that people start themselves, such as `sotto`: nothing
//! runs all the time that would have to be restarted and watched, so a new
//! program is kept when it starts and says its version.

use std::path::Path;
use std::time::Duration;
use std::{io, process};

use clap::{Args, Subcommand};

use super::{Output, SourceArgs, Trust, check_only, pin, program, put_in_place, status};
use crate::{Bounds, Service, Serving, TrustFile};

/// The arguments of `update` of such a program.
#[derive(Debug, Args)]
pub struct ToolUpdateArgs {
    #[command(subcommand)]
    command: ToolCommand,
}

#[derive(Debug, Subcommand)]
enum ToolCommand {
    /// Pin the root of trust, once: the file that came with the first release.
    Trust(Trust),
    /// Say whether there is a newer release.
    Check(SourceArgs),
    /// Put the newest release in the place of this program.
    Apply(Apply),
    /// Say what is pinned, seen and failed.
    Status,
    /// Return to the program that was here before.
    Back,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    from: SourceArgs,
    /// Try a release again that failed on this machine.
    #[arg(long)]
    again: bool,
}

/// Does what was asked, for the program `name` of this version, which is the
/// one that is running; `state` is the folder in which updates are remembered.
///
/// # Errors
/// When it cannot be done, or was refused.
pub async fn run(
    args: ToolUpdateArgs,
    state: &Path,
    json: bool,
    (name, version): (&str, &str),
) -> anyhow::Result<()> {
    let output = Output { json };
    let program = program(name, version)?;
    let trust = TrustFile::new(state);
    match args.command {
        ToolCommand::Trust(args) => pin(&trust, &args, &output),
        ToolCommand::Check(from) => check_only(&trust, &from, &program, &output).await,
        ToolCommand::Apply(Apply { from, again }) => {
            let slot = super::own_slot(state)?;
            let mut tool = Tool(slot.program());
            let started = (&mut tool as &mut dyn Service, BOUNDS);
            put_in_place(state, &slot, &program, (&from, again), started, &output).await
        }
        ToolCommand::Status => status(&trust, &super::own_slot(state)?, &program, &output),
        ToolCommand::Back => {
            super::own_slot(state)?.back("somebody took it back")?;
            output.back();
            Ok(())
        }
    }
}

/// It starts or does not: there is nothing to wait for.
const BOUNDS: Bounds = Bounds {
    ready: Duration::ZERO,
    probation: Duration::ZERO,
    look: Duration::ZERO,
};

/// The program's file.
struct Tool<'a>(&'a Path);

impl Service for Tool<'_> {
    fn restart(&mut self) -> io::Result<()> {
        let version = process::Command::new(self.0).arg("--version").output()?;
        match version.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(version.status.to_string())),
        }
    }

    fn ready(&mut self) -> Option<Serving> {
        Some(Serving {
            process: process::id(),
            is_partial: false,
        })
    }
}
