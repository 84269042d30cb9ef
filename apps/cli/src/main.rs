//! `sotto`: the client at a terminal, and `sotto up`, a private server on one
//! machine. Decides nothing about rooms, keys or messages.

mod advice;
mod arguments;
mod commands;
mod device;
mod new_file;
mod output;
mod prompt;
mod qr;
mod secrets;
mod table;
mod times;

use std::io;
use std::panic;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use sotto_client_native::files::TransferError;
use sotto_client_native::gateway::GatewayError;
use sotto_client_native::session::CommandError;
use sotto_client_native::{redb_store, tls};
use tracing_subscriber::EnvFilter;

use arguments::Arguments;
use device::Away;
use output::Output;

fn main() -> ExitCode {
    tls::install_provider();
    quiet_panics_of_redb();
    let arguments = Arguments::parse();
    let output = Output::new(arguments.global.json);
    match start(arguments, output) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = exit_code(&error);
            output.fail(&format!("{error:#}"), code, advice::needed(&error));
            ExitCode::from(code)
        }
    }
}

fn start(arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("SOTTO_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    let runtime = tokio::runtime::Runtime::new().context("cannot start")?;
    let result = runtime.block_on(commands::run(arguments, output));
    // A prompt that still waits for a key must not hold the program.
    runtime.shutdown_background();
    result
}

/// redb may panic over damaged files; the store makes an error of it, which is
/// all that a person should see.
fn quiet_panics_of_redb() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !redb_store::guards_this_thread() {
            shown(info);
        }
    }));
}

/// What programs are told of an error; README.md says the same to people.
fn exit_code(error: &anyhow::Error) -> u8 {
    let unreachable = matches!(error.downcast_ref(), Some(GatewayError::Unreachable { .. }));
    if unreachable || error.is::<Away>() {
        3
    } else if advice::needed(error).is_some() {
        4
    } else if is_held(error) {
        5
    } else {
        1
    }
}

/// Whether the server does not take something for now that waits here.
fn is_held(error: &anyhow::Error) -> bool {
    let refused = matches!(error.downcast_ref(), Some(TransferError::Refused(_)));
    refused || matches!(error.downcast_ref(), Some(CommandError::Held(_)))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
