//! Programs as processes. `sotto-e2e` has more of this, and the whole client
//! behind it, which these tests do without.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

/// A program that runs. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<JoinHandle<String>>,
}

/// How a program ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            stderr: Some(std::thread::spawn(move || {
                let mut text = Vec::new();
                stderr.read_to_end(&mut text).ok();
                String::from_utf8_lossy(&text).into_owned()
            })),
            child,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What a public end says that dialers are to be told.
    pub fn said_to(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let said: serde_json::Value = match serde_json::from_str(&line) {
            Ok(said) => said,
            Err(_) => panic!("{line:?}: {}", self.reap().stderr),
        };
        said["to"].as_str().unwrap().to_owned()
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.reap()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        self.reap()
    }

    fn reap(&mut self) -> Ended {
        Ended {
            status: self.child.wait().unwrap(),
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Bytes of memory that a program has.
pub fn resident(running: &Running) -> usize {
    let pid = running.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes = line.trim().trim_end_matches(" kB");
    kilobytes.parse::<usize>().unwrap() * 1_024
}

/// Each connection is an open file: as many as this machine lets this process
/// have, and how many that are.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.map_or(usize::MAX, |most| most as usize)
}

/// The nats-server that `cargo xtask setup` unpacks, or the one that
/// `SOTTO_NATS_SERVER` names.
pub fn nats_server() -> PathBuf {
    if let Some(path) = std::env::var_os("SOTTO_NATS_SERVER") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let mut candidates = here
        .ancestors()
        .map(|folder| folder.join("tools/nats-server"));
    candidates
        .find(|path| path.is_file())
        .expect("run `cargo xtask setup` first")
}
