//! `sotto-gateway`: makes a private server's directory and serves its accounts.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sotto_gateway::accounts_cli::{self, AccountsArgs};
use sotto_gateway::break_glass::{self, AdmitArgs, LiftArgs};
use sotto_gateway::provision::{self, InitArgs, OrgAddArgs};
use sotto_gateway::run;
use sotto_service::config::command::{self, ConfigArgs};
use sotto_service::handover::Inherited;
use sotto_service::unit::{self, UnitArgs};
use sotto_service::{ServerArgs, exit, logging, tls};
use sotto_update::command::UpdateArgs;

/// What releases call this program.
const NAME: &str = "sotto-gateway";

/// Accounts, keys and rooms of a private Sotto server, over HTTPS.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the data directory of a new server.
    Init(InitArgs),
    /// Manage the organisations of a server.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Manage the NATS accounts of a server.
    Accounts(AccountsArgs),
    /// Serve until SIGTERM or SIGINT.
    Run(ServerArgs),
    /// Check and show the configuration.
    Config(ConfigArgs),
    /// Update this program, and return to the old one when the new one does not serve.
    Update(UpdateArgs),
    /// Print the systemd unit that runs the gateway.
    Unit(UnitArgs),
}

#[derive(Subcommand)]
enum OrgCommand {
    /// Add an organisation; restart the relay and the gateway to serve it.
    Add(OrgAddArgs),
    /// Let a user back in who lost their factors. Every member is told.
    Admit(AdmitArgs),
    /// End the policy of a level that nobody can meet. Every member is told.
    Lift(LiftArgs),
}

fn main() -> ExitCode {
    let inherited = Inherited::take();
    tls::install_provider();
    exit::code(NAME, start(Args::parse().command, inherited))
}

fn start(command: Command, inherited: Inherited) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    match command {
        Command::Init(args) => provision::init(&args),
        Command::Org(OrgCommand::Add(args)) => {
            logging::start_quietly()?;
            runtime.block_on(provision::add_org(&args))
        }
        Command::Org(OrgCommand::Admit(args)) => {
            logging::start_quietly()?;
            runtime.block_on(break_glass::admit(&args))
        }
        Command::Org(OrgCommand::Lift(args)) => {
            logging::start_quietly()?;
            runtime.block_on(break_glass::lift(&args))
        }
        Command::Accounts(args) => {
            logging::start_quietly()?;
            runtime.block_on(accounts_cli::run(&args))
        }
        Command::Run(args) => {
            let log = logging::start(&args.log)?;
            runtime.block_on(run::run(&args, log, inherited))
        }
        Command::Config(args) => Ok(command::run(&args)?),
        Command::Update(args) => {
            logging::start_quietly()?;
            let version = env!("CARGO_PKG_VERSION");
            runtime.block_on(sotto_update::command::run(args, NAME, version))
        }
        Command::Unit(args) => Ok(unit::print(&args, NAME, "gateway")?),
    }
}
