//! The nats-server of a relay that was killed lives on. Two servers on one
//! store would destroy it, so it is stopped before another is started.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::supervisor::{CONFIG_FLAG, STOP_TIMEOUT};

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Stops every nats-server that runs with this configuration file. Blocks
/// until they are gone.
///
/// # Errors
/// When one cannot be stopped.
pub(super) fn stop(config: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name();
        let pid = pid.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if runs_with(pid, config) {
            stop_process(pid, config)?;
        }
    }
    Ok(())
}

fn stop_process(pid: Pid, config: &Path) -> io::Result<()> {
    // From here on the descriptor stands for this very process, so look again:
    // the number may have been given to another one in between.
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) if runs_with(pid, config) => process,
        _ => return Ok(()),
    };
    tracing::info!(
        pid = pid.as_raw_nonzero().get(),
        "stopping a nats-server that was left behind"
    );
    for (signal, timeout) in [(Signal::TERM, STOP_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        // An error says that it is gone, which is what is wanted.
        let _ = pidfd_send_signal(&process, signal);
        // A process' descriptor becomes readable when it ends.
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
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
