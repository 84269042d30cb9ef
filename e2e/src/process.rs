//! Programs as processes: finding them, reading their JSON lines as they come,
//! ending them gently or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long any one thing that a person waits for may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program of this build: beside this one, or one folder up from a test.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = env::current_exe().context("finding this program")?;
    let candidates = here.ancestors().skip(1).take(2);
    let mut candidates = candidates.map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!(
            "{name} is not beside {}: run `cargo build --workspace --bins` first",
            here.display()
        )
    })
}

/// The nats-server that `cargo xtask setup` unpacks, or the one that
/// `SOTTO_NATS_SERVER` names.
///
/// # Errors
/// When there is none.
pub fn nats_server() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("SOTTO_NATS_SERVER") {
        return Ok(path.into());
    }
    let here = env::current_exe().context("finding this program")?;
    let mut candidates = here
        .ancestors()
        .map(|folder| folder.join("tools/nats-server"));
    let found = candidates.find(|path| path.is_file());
    found.context("nats-server is not there: run `cargo xtask setup` first")
}

/// `systemd-analyze`, of this machine or as `cargo xtask setup` unpacks it.
///
/// # Errors
/// When there is none.
pub fn systemd_analyze() -> anyhow::Result<Command> {
    let installed = Command::new("systemd-analyze").arg("--version").output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Ok(Command::new("systemd-analyze"));
    }
    let here = env::current_exe().context("finding this program")?;
    let mut candidates = here.ancestors().map(|folder| folder.join("tools/systemd"));
    let found = candidates.find(|path| path.is_dir());
    let root = found.context("systemd-analyze is not there: run `cargo xtask setup` first")?;
    let libraries = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|machine| {
        let folder = root.join("usr/lib").join(machine);
        [
            folder.join("systemd"),
            folder,
            root.join("lib").join(machine),
        ]
    });
    let mut command = Command::new(root.join("usr/bin/systemd-analyze"));
    command
        .env("LD_LIBRARY_PATH", env::join_paths(libraries.concat())?)
        .env("SYSTEMD_UNIT_PATH", root.join("lib/systemd/system"));
    Ok(command)
}

/// What a finished program left behind.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, one JSON value a line.
    pub lines: Vec<Value>,
    /// What it told the person.
    pub stderr: String,
}

impl Outcome {
    /// The printed values, if the program says that all went well.
    ///
    /// # Errors
    /// With what the program told the person.
    pub fn success(self) -> anyhow::Result<Vec<Value>> {
        if !self.status.success() {
            bail!("{}: {}", self.status, self.stderr.trim());
        }
        Ok(self.lines)
    }
}

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a program whose standard output is JSON lines; `input` is what
    /// it reads, and with `None` its standard input stays open until it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, input: Option<String>) -> anyhow::Result<Self> {
        let name = describe(&command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        if let Some(input) = input {
            let mut stdin = child.stdin.take().context("no standard input")?;
            // Ignored: a program that was killed does not read on.
            thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
        }
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut stderr = child.stderr.take().context("no standard error")?;
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            // Ignored: what came before the error is still of use.
            stderr.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self {
            name,
            child,
            lines,
            seen: Vec::new(),
            stderr: Some(stderr),
        })
    }

    /// Its process id.
    ///
    /// # Errors
    /// Never for a process of this system.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        Pid::from_raw(self.child.id().try_into()?).context("not a process id")
    }

    /// Fails when it has ended, with what it said.
    ///
    /// # Errors
    /// See above.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait().context("asking after a process")?;
        if ended.is_none() {
            return Ok(());
        }
        let (name, outcome) = (self.name.clone(), self.reap()?);
        bail!(
            "{name} ended ({}): {}",
            outcome.status,
            outcome.stderr.trim()
        )
    }

    /// Types one line to it.
    ///
    /// # Errors
    /// When it does not read any more.
    pub fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .context("its input was given already")?;
        writeln!(stdin, "{line}").with_context(|| format!("typing to {}", self.name))
    }

    /// Every line until now.
    pub fn seen(&mut self) -> &[Value] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Waits for a line for which `found` gives something; looks at earlier
    /// lines, too.
    ///
    /// # Errors
    /// When the program ends before, or [`PATIENCE`] does.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        found: impl Fn(&Value) -> Option<T>,
    ) -> anyhow::Result<T> {
        if let Some(result) = self.seen.iter().find_map(&found) {
            return Ok(result);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let result = found(&line);
                    self.seen.push(line);
                    if let Some(result) = result {
                        return Ok(result);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{}: no {what} within {PATIENCE:?}", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let (name, outcome) = (self.name.clone(), self.reap()?);
                    bail!(
                        "{name} ended ({}) before {what}: {}",
                        outcome.status,
                        outcome.stderr.trim()
                    )
                }
            }
        }
    }

    /// Ends it the hard way, as a power cut would: SIGKILL.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> anyhow::Result<Outcome> {
        self.child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        self.reap()
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Errors
    /// When it does not end within [`PATIENCE`].
    pub fn interrupt(self) -> anyhow::Result<Outcome> {
        kill_process(self.pid()?, Signal::INT)
            .with_context(|| format!("interrupting {}", self.name))?;
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within [`PATIENCE`].
    pub fn finish(self) -> anyhow::Result<Outcome> {
        self.finish_unreaped(|| ())
    }

    /// Waits for its end; `ended` is called while its process id is still its
    /// own, so that nobody else is killed in its place.
    ///
    /// # Errors
    /// When it does not end within [`PATIENCE`].
    pub fn finish_unreaped(mut self, ended: impl FnOnce()) -> anyhow::Result<Outcome> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    ended();
                    return self.reap();
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not end within {PATIENCE:?}", self.name)
                }
            }
        }
    }

    fn reap(&mut self) -> anyhow::Result<Outcome> {
        let status = self
            .child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        self.seen();
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok());
        Ok(Outcome {
            status,
            lines: std::mem::take(&mut self.seen),
            stderr: stderr.unwrap_or_default(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ignored: it may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let mut text = program.to_string_lossy().into_owned();
    for argument in command
        .get_args()
        .map(|argument| argument.to_string_lossy())
    {
        let shown: String = argument.chars().take(40).collect();
        text.push(' ');
        text.push_str(&shown);
    }
    text
}

/// The running process of this name whose command line mentions `folder`.
///
/// # Errors
/// When the process table cannot be read.
pub fn find(name: &str, folder: &Path) -> anyhow::Result<Option<Pid>> {
    let folder = folder.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let path = entry.context("reading /proc")?.path();
        let pid = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        // Errors: the process ended while we looked.
        let (Some(pid), Ok(line)) = (pid, fs::read(path.join("cmdline"))) else {
            continue;
        };
        let program = line.split(|&byte| byte == 0).next().unwrap_or_default();
        let mentions = line.windows(folder.len()).any(|window| window == folder);
        if mentions && program.ends_with(name.as_bytes()) {
            return Ok(Pid::from_raw(pid));
        }
    }
    Ok(None)
}

/// Has a program see a clock that is so many days fast; slow, when negative.
///
/// # Errors
/// When what does it is not there.
pub fn with_clock_off(command: &mut Command, days: i32) -> anyhow::Result<()> {
    let here = std::env::current_exe().context("finding this program")?;
    let tools = here.ancestors().map(|folder| folder.join("tools/faketime"));
    let roots = tools.chain([PathBuf::from("/")]);
    let machines = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let mut libraries = roots.flat_map(|root| {
        machines.map(|machine| root.join(format!("usr/lib/{machine}/faketime/libfaketimeMT.so.1")))
    });
    let library = libraries.find(|library| library.is_file());
    let library = library.context("libfaketime is not there: run `cargo xtask setup` first")?;
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{days:+}d"))
        // What it waits for is as long as ever.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Ends all processes of this name whose command line mentions `folder`, as a
/// power cut would.
///
/// # Errors
/// When the process table cannot be read.
pub fn kill_all(name: &str, folder: &Path) -> anyhow::Result<()> {
    while let Some(pid) = find(name, folder)? {
        // Ignored: they may end by themselves at any moment.
        kill_process(pid, Signal::KILL).ok();
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Sends SIGKILL.
///
/// # Errors
/// When there is no such process.
pub fn kill(pid: Pid) -> anyhow::Result<()> {
    kill_process(pid, Signal::KILL).with_context(|| format!("killing process {pid:?}"))
}
