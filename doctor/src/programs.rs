//! Which of the server's programs run: as they announce it themselves, or as
//! the process table shows while they are starting.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use procfs::process::{Process, all_processes};
use sotto_service::readiness::Ready;
use sotto_service::{Layout, private_files};

/// Longest file with nats-server's process, in bytes.
const PID_FILE_MAX: u64 = 64;
/// So many characters of a process' name are kept by the kernel.
const NAME_MAX: usize = 15;

/// The programs of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// `sotto-relay`.
    pub relay: Option<Program>,
    /// `sotto-gateway`.
    pub gateway: Option<Program>,
    /// The nats-server that the relay runs.
    pub nats: Option<Program>,
}

/// One that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its process.
    pub pid: i32,
    /// Whether it says that it serves.
    pub serves: bool,
}

impl Program {
    /// The environment that it was started with, when this may be seen.
    pub fn environment(self) -> Option<HashMap<OsString, OsString>> {
        Process::new(self.pid).ok()?.environ().ok()
    }
}

impl Programs {
    /// Looks for them.
    pub fn find(layout: &Layout) -> Self {
        Self {
            relay: ours(layout, "sotto-relay", &layout.relay_ready()),
            gateway: ours(layout, "sotto-gateway", &layout.gateway_ready()),
            nats: nats_server(layout),
        }
    }

    /// Whether any of them runs.
    pub fn any(&self) -> bool {
        self.relay.is_some() || self.gateway.is_some() || self.nats.is_some()
    }

    /// Those that run, with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Program)> {
        let all = [
            ("sotto-relay", self.relay),
            ("sotto-gateway", self.gateway),
            ("nats-server", self.nats),
        ];
        all.into_iter()
            .filter_map(|(name, program)| Some((name, program?)))
    }
}

fn ours(layout: &Layout, name: &str, ready: &Path) -> Option<Program> {
    let pid = Ready::read(ready).and_then(|ready| i32::try_from(ready.pid).ok());
    // A file of one that was killed may name a process of somebody else by now.
    let serving =
        pid.filter(|&pid| Process::new(pid).is_ok_and(|process| is_called(&process, name)));
    match serving {
        Some(pid) => Some(Program { pid, serves: true }),
        None => starting(layout, name),
    }
}

/// One that does not serve yet, by what it was started with.
fn starting(layout: &Layout, name: &str) -> Option<Program> {
    let mut processes = all_processes().ok()?.filter_map(Result::ok);
    let process = processes
        .find(|process| is_called(process, name) && was_started_for(process, layout.root()))?;
    Some(Program {
        pid: process.pid(),
        serves: false,
    })
}

fn nats_server(layout: &Layout) -> Option<Program> {
    let pid = private_files::read_text(&layout.nats_pid(), PID_FILE_MAX).ok()?;
    let process = Process::new(pid.trim().parse().ok()?).ok()?;
    let config = layout.nats_config();
    let command = process.cmdline().ok()?;
    let is_it = command.iter().any(|argument| Path::new(argument) == config);
    is_it.then(|| Program {
        pid: process.pid(),
        serves: true,
    })
}

fn is_called(process: &Process, name: &str) -> bool {
    let name: String = name.chars().take(NAME_MAX).collect();
    let alive = process.stat().ok().filter(|stat| stat.state != 'Z');
    alive.is_some_and(|stat| stat.comm == name)
}

/// Whether the directory is among the arguments, from where the process stands.
fn was_started_for(process: &Process, root: &Path) -> bool {
    let (Ok(command), Ok(folder)) = (process.cmdline(), process.cwd()) else {
        return false;
    };
    let mut named = command
        .iter()
        .map(|argument| argument.strip_prefix("--dir=").unwrap_or(argument));
    named.any(|path| fs::canonicalize(folder.join(path)).is_ok_and(|path| path == root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_left_behind_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create().unwrap();
        // This very process lives, and is no relay.
        let ready = Ready {
            pid: std::process::id(),
            url: String::new(),
            is_partial: false,
        };
        let json = serde_json::to_vec(&ready).unwrap();
        private_files::write(&layout.relay_ready(), &json).unwrap();
        let pid = std::process::id().to_string();
        private_files::write(&layout.nats_pid(), pid.as_bytes()).unwrap();
        assert!(!Programs::find(&layout).any());
    }
}
