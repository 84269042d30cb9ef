//! The nats-server of a relay that was killed, or that hands over, lives on.
//! Two servers on one store would destroy it, so it is stopped before another
//! is started.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sotto_update::Digest;

use super::supervisor::{CONFIG_FLAG, STOP_TIMEOUT};

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Stops every nats-server that runs with this configuration file. Blocks
/// until they are gone.
///
/// # Errors
/// When one cannot be stopped.
pub(super) fn stop(config: &Path) -> io::Result<()> {
    for (pid, process) in find(config)? {
        stop_process(pid, &process)?;
    }
    Ok(())
}

/// The one nats-server that runs with this configuration file, and whether its
/// program is this one.
///
/// # Errors
/// When it cannot be told.
pub(super) fn running(config: &Path, program: &Path) -> io::Result<Option<(OwnedFd, bool)>> {
    let mut found = find(config)?.into_iter();
    let (Some((pid, process)), None) = (found.next(), found.next()) else {
        return Ok(None);
    };
    // What it was started from, though that may have been replaced or removed.
    let started = format!("/proc/{}/exe", pid.as_raw_nonzero());
    let (started, _) = Digest::of_file(Path::new(&started))?;
    let (program, _) = Digest::of_file(program)?;
    Ok(Some((process, started == program)))
}

fn find(config: &Path) -> io::Result<Vec<(Pid, OwnedFd)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name();
        let pid = pid.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if !runs_with(pid, config) {
            continue;
        }
        // From here on the descriptor stands for this very process, so look
        // again: the number may have been given to another one in between.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && runs_with(pid, config)
        {
            found.push((pid, process));
        }
    }
    Ok(found)
}

fn stop_process(pid: Pid, process: &OwnedFd) -> io::Result<()> {
    sotto_log::info!(
        pid = pid.as_raw_nonzero().get(),
        "stopping a nats-server that was left behind"
    );
    for (signal, timeout) in [(Signal::TERM, STOP_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        // An error says that it is gone, which is what is wanted.
        let _ = pidfd_send_signal(process, signal);
        // A process' descriptor becomes readable when it ends.
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        if poll(&mut ended, Some(&timeout))? > 0 {
            return Ok(());
        }
    }
    let problem = format!("process {} does not end", pid.as_raw_nonzero());
    Err(io::Error::new(io::ErrorKind::TimedOut, problem))
}

/// Whether the process was started with `-c <config>`.
fn runs_with(pid: Pid, config: &Path) -> bool {
    let Ok(command) = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else {
        return false;
    };
    let arguments: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
    arguments.array_windows().any(|[flag, value]| {
        *flag == CONFIG_FLAG.as_bytes() && *value == config.as_os_str().as_bytes()
    })
}
