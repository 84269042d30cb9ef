//! How fast and how large, on this machine, beside raw NATS in the same run.
//! Nothing here asserts a time: figures are for people to compare.

#![expect(
    clippy::print_stdout,
    reason = "the table of a program for the terminal"
)]

mod append;
mod check;
mod cold_start;
mod figures;
mod mint;
mod nats;
mod org;
mod speed;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use figures::Figures;
use org::Size;

/// Measures the directory, its policy and the JWTs, messages and files, beside
/// raw NATS.
///
/// Build it with optimisation: `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(name = "sotto-bench", version)]
struct Arguments {
    /// Print one JSON object in place of the table.
    #[arg(long, global = true)]
    json: bool,

    /// Users of the measured org.
    #[arg(long, default_value_t = 100_000, global = true)]
    users: usize,

    /// Projects of the measured org.
    #[arg(long, default_value_t = 2_000, global = true)]
    projects: usize,

    /// Rooms of the measured org.
    #[arg(long, default_value_t = 20_000, global = true)]
    rooms: usize,

    /// Role changes that are appended.
    #[arg(long, default_value_t = 10_000, global = true)]
    changes: usize,

    #[command(subcommand)]
    part: Option<Part>,
}

/// What to measure; without one, everything of the directory.
#[derive(Debug, Subcommand)]
enum Part {
    /// The directory in memory: cold start, checks, JWTs.
    Directory,
    /// Role changes over a real nats-server, seen by a second gateway.
    Append,
    /// Messages and files through the whole product, beside raw NATS.
    Speed(speed::Load),
    /// Reads a snapshot and says what that took: started by `directory`, so
    /// that memory is of this alone.
    #[command(hide = true)]
    ColdStart {
        /// The snapshot.
        snapshot: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let size = Size {
        users: arguments.users,
        projects: arguments.projects,
        rooms: arguments.rooms,
    };
    let mut figures = Figures::default();
    match &arguments.part {
        Some(Part::ColdStart { snapshot }) => {
            println!("{}", serde_json::to_string(&cold_start::read(snapshot)?)?);
            return Ok(());
        }
        Some(Part::Directory) => directory(size, &mut figures)?,
        Some(Part::Speed(load)) => speed::measure(load, &mut figures).await?,
        Some(Part::Append) => append::measure(arguments.changes, &mut figures).await?,
        None => {
            directory(size, &mut figures)?;
            append::measure(arguments.changes, &mut figures).await?;
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        println!("{figures}");
    }
    Ok(())
}

fn directory(size: Size, figures: &mut Figures) -> anyhow::Result<()> {
    let org = org::Org::build(size)?;
    cold_start::measure(&org, figures)?;
    check::measure(&org, figures);
    mint::measure(&org, figures)
}
