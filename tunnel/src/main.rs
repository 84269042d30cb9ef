//! `sotto-tunnel`: both ends of a tunnel.

use std::hint::black_box;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sotto_service::handover::Inherited;
use sotto_service::{exit, logging, tls};
use sotto_tunnel::dial::{self, DialArgs, KeyArgs};
use sotto_tunnel::serve::{self, ServeArgs};
use sotto_update::command::UpdateArgs;

/// What releases call this program.
const NAME: &str = "sotto-tunnel";
/// See [`keep_freed_memory`].
const FREED: usize = 8 * 1024 * 1024;

/// A private server behind a public machine that learns nothing.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The public end: pass connections on to who announces their names.
    Serve(ServeArgs),
    /// The private end: announce names, and serve them from here.
    Dial(DialArgs),
    /// Print the private end's public key; the first time, make it.
    Key(KeyArgs),
    /// Update this program, and return to the old one when the new one does not serve.
    Update(UpdateArgs),
}

fn main() -> ExitCode {
    let inherited = Inherited::take();
    tls::install_provider();
    keep_freed_memory();
    exit::code(NAME, start(Args::parse().command, inherited))
}

/// glibc returns memory to the system as soon as 128 KiB of it are free, and
/// taking it again halves the speed of a full stream. Once a block of this size
/// was freed, it keeps up to twice as much (mallopt(3), `M_MMAP_THRESHOLD`).
fn keep_freed_memory() {
    drop(black_box(Vec::<u8>::with_capacity(FREED)));
}

fn start(command: Command, inherited: Inherited) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    match command {
        Command::Serve(args) => {
            logging::start(args.log())?;
            runtime.block_on(serve::serve(&args, inherited))
        }
        Command::Dial(args) => {
            logging::start(args.log())?;
            runtime.block_on(dial::dial(args, inherited))
        }
        Command::Key(args) => dial::print_key(&args),
        Command::Update(args) => {
            logging::start_quietly()?;
            let version = env!("CARGO_PKG_VERSION");
            runtime.block_on(sotto_update::command::run(args, NAME, version))
        }
    }
}
