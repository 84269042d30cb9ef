//! `sotto-release`: makes and signs what updaters install. Describes a release
//! in the formats that others read (CycloneDX, in-toto, DSSE, SHA256SUMS), and
//! keeps the folder of releases (crate `sotto-update`).
//!
//! It builds nothing: `cargo xtask release` does, and hands the programs over.
//! It is never part of what is installed.

mod assemble;
mod ceremony;
mod contents;
mod envelope;
mod keys;
mod licences;
mod nats_server;
mod provenance;
mod sbom;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sotto_service::{exit, tls};

/// Makes and signs releases of Sotto.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key: FILE is secret, FILE.pub goes into a root of trust.
    Key(keys::KeyArgs),
    /// Write a root of trust that nobody has signed yet.
    Root(ceremony::RootArgs),
    /// Add the signature of one key to a root of trust or to a draft.
    Sign(ceremony::SignArgs),
    /// Make a folder of releases, or change its keys, with a signed root.
    Trust(ceremony::TrustArgs),
    /// Draft a release: it then waits in draft.json for signatures.
    Draft(ceremony::DraftArgs),
    /// Publish the draft.
    Publish(ceremony::PublishArgs),
    /// Say anew that there is nothing newer, before the last time expires.
    Refresh(ceremony::PublishArgs),
    /// Describe built programs, sign them, publish them into a folder, and see
    /// that the updater takes them.
    Assemble(assemble::AssembleArgs),
    /// Check the signatures below a provenance, and the files that it names.
    Verify(provenance::VerifyArgs),
}

fn main() -> ExitCode {
    tls::install_provider();
    exit::code("sotto-release", start(Args::parse().command))
}

fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Key(args) => keys::make(&args),
        Command::Root(args) => ceremony::root(&args),
        Command::Sign(args) => ceremony::sign(&args),
        Command::Trust(args) => ceremony::trust(&args),
        Command::Draft(args) => ceremony::draft(&args),
        Command::Publish(args) => ceremony::publish(&args),
        Command::Refresh(args) => ceremony::refresh(&args),
        Command::Assemble(args) => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(assemble::assemble(&args))
        }
        Command::Verify(args) => provenance::verify(&args),
    }
}
