//! `sotto-demo`: plays the whole product through on this machine, with the
//! programs that a user has, and checks at every step what must hold.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod kills;
mod plaintexts;
mod search;
mod stage;
mod story;
mod strangers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sotto_client_native::tls;
use sotto_e2e::report::Report;

use crate::stage::Stage;

/// Plays Sotto through: a private server, people, files, crashes, strangers.
///
/// Exits with 0 when every check passed. Takes about a minute.
#[derive(Parser)]
struct Args {
    /// Where the report goes.
    #[arg(long, default_value = "target/demo", value_name = "DIR")]
    report: PathBuf,

    /// A file of at least 15 MB to send, instead of the nats-server program.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Keep the folder with the server, the devices and the tap.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_provider();
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("sotto-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    let mut folder = tempfile::Builder::new().prefix("sotto-demo-").tempdir()?;
    folder.disable_cleanup(args.keep);
    println!("Everything happens in {}.", folder.path().display());
    fs::create_dir_all(&args.report).context("making the report's folder")?;

    let mut report = Report::start();
    if let Err(error) = play(folder.path(), &args, &mut report).await {
        report.stopped(&error);
    }
    let passed = report.finish();
    println!("\n{}", report.table());
    let path = args.report.join("report.json");
    report.write(&path)?;
    let verdict = if passed {
        "Every check passed"
    } else {
        "CHECKS FAILED"
    };
    println!("{verdict}; {} says the same as JSON.", path.display());
    Ok(passed)
}

async fn play(folder: &Path, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut stage = Stage::set(folder, args.file.as_deref(), report).await?;
    story::people(&mut stage, report)?;
    story::talk(&mut stage, report)?;
    story::file(&mut stage, report).await?;
    story::catch_up(&mut stage, report)?;
    kills::client(&mut stage, report)?;
    kills::server(&mut stage, report)?;
    strangers::keep_out(&mut stage, report).await?;
    stage.transcript(&args.report)?;
    search::nowhere_else(stage, report).await
}
