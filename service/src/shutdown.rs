//! When a server process must stop.

use std::io::{self, IsTerminal, Read};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM, by SIGINT, on a terminal by the end of
/// that, and, with `exit_with_parent`, by the end of standard input: the pipe
/// of a parent closes however the parent dies. Call it inside a tokio runtime.
///
/// # Errors
/// When the system does not allow to handle signals.
pub fn watch(exit_with_parent: bool) -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let on_terminal = is_terminal();
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv(), if on_terminal => {}
        }
        sotto_log::info!("asked to stop");
        stop.cancel();
    });
    if exit_with_parent {
        let stop = token.clone();
        // A thread of its own: a blocking read must not keep the runtime from ending.
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            let mut ignored = [0; 64];
            while matches!(input.read(&mut ignored), Ok(1..)) {}
            sotto_log::info!("the parent process is gone");
            stop.cancel();
        });
    }
    Ok(token)
}

/// Whether SIGHUP says that a terminal has ended.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}
