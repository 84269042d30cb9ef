//! `sotto-relay`: keeps one nats-server running with the settings that make an
//! acknowledged message a stored one, keeps each org's streams, takes in what
//! devices store there, and answers devices that catch up.
//!
//! It never reads a message, holds no key of a user or of the gateway, and
//! knows nothing of the gateway's API: the two meet in NATS and in the
//! directory log.

mod beacons;
mod clock;
mod cluster;
mod fetch;
mod ingest;
mod intake;
mod metrics;
mod nats;
mod nats_server;
mod node;
mod org;
mod quota;
mod renewal;
mod serve;
mod streams;
mod takeover;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cluster::{BootstrapArgs, ClusterArgs, JoinArgs, TurnArgs};
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sotto_service::config::command::{self, ConfigArgs};
use sotto_service::handover::{Handover, Inherited};
use sotto_service::unit::{self, UnitArgs};
use sotto_service::{ServerArgs, exit, logging, shutdown, tls};
use sotto_update::command::UpdateArgs;
use tokio::runtime::Runtime;

/// What releases call this program.
const NAME: &str = "sotto-relay";

/// The relay of a Sotto server.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until it is stopped.
    Run(Run),
    /// Make a server the first node of a cluster.
    Bootstrap(BootstrapArgs),
    /// Make this machine a node of a cluster, with a token of `cluster token`.
    Join(Box<JoinArgs>),
    /// Look after the nodes of a cluster.
    Cluster(ClusterArgs),
    /// Check and show the configuration.
    Config(ConfigArgs),
    /// Update this program, and return to the old one when the new one does not serve.
    Update(UpdateArgs),
    /// Print the systemd unit that runs the relay.
    Unit(UnitArgs),
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    server: ServerArgs,

    /// The nats-server to run, instead of the one that this program carries, or
    /// else of the first that is found beside it or on PATH.
    #[arg(long, env = "SOTTO_NATS_SERVER", value_name = "FILE")]
    nats_server: Option<PathBuf>,

    #[command(flatten)]
    turns: TurnArgs,
}

fn main() -> ExitCode {
    let inherited = Inherited::take();
    tls::install_provider();
    let command = Args::parse().command;
    let ended = Runtime::new().context("cannot start");
    let ended = ended.and_then(|runtime| runtime.block_on(start(command, inherited)));
    exit::code(NAME, ended)
}

async fn start(command: Command, inherited: Inherited) -> Result<()> {
    match command {
        Command::Run(run) => {
            let log = logging::start(&run.server.log)?;
            let handover = Handover::new(inherited, run.server.handover)?;
            let (layout, config) = run.server.load()?;
            let stop = shutdown::watch(run.server.exit_with_parent)?;
            let nats_server = run.nats_server.as_deref();
            let given = serve::Start {
                nats_server,
                turns: run.turns,
                log,
            };
            Box::pin(serve::serve(&layout, &config, given, handover, stop)).await
        }
        Command::Bootstrap(args) => {
            logging::start_quietly()?;
            cluster::bootstrap(&args).await
        }
        Command::Join(args) => {
            logging::start_quietly()?;
            cluster::join(&args).await
        }
        Command::Cluster(args) => {
            logging::start_quietly()?;
            cluster::run(&args).await
        }
        Command::Config(args) => Ok(command::run(&args)?),
        Command::Update(args) => {
            logging::start_quietly()?;
            sotto_update::command::run(args, NAME, env!("CARGO_PKG_VERSION")).await
        }
        Command::Unit(args) => Ok(unit::print(&args, NAME, "relay")?),
    }
}
