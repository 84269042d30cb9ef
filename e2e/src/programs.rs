//! Programs that are replaced while they serve: copies of this build's own,
//! another build of each, and what passes between a process and its successor.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sotto_service::readiness::Ready;

use crate::process::{PATIENCE, binary, nats_server};

const NATS_SERVER: &str = "nats-server";
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(5);

/// A folder of programs.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    /// What all are told by the environment.
    variables: Vec<(&'static str, String)>,
}

/// How long a handover took.
#[derive(Debug, Clone, Copy)]
pub struct HandedOver {
    /// Who serves now.
    pub pid: u32,
    /// From the signal until the successor said that it serves.
    pub ready: Duration,
    /// From the signal until the predecessor was gone.
    pub gone: Duration,
}

impl Programs {
    /// In a folder that is there. Processes stand by for a second only, and
    /// wait so long for a successor to serve.
    ///
    /// # Errors
    /// When nats-server is not there.
    pub fn new(folder: &Path, ready_within: Duration) -> anyhow::Result<Self> {
        let nats = folder.join(NATS_SERVER);
        fs::copy(nats_server()?, &nats).context("copying nats-server")?;
        Ok(Self {
            folder: folder.to_owned(),
            variables: vec![
                ("SOTTO_NATS_SERVER", nats.display().to_string()),
                ("SOTTO_STAND_BY_SECONDS", "1".to_owned()),
                (
                    "SOTTO_SUCCESSOR_READY_SECONDS",
                    ready_within.as_secs().to_string(),
                ),
            ],
        })
    }

    /// Tells all of them this, too, by the environment.
    pub fn told(mut self, variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter();
        self.variables
            .extend(variables.map(|(name, value)| (*name, (*value).to_owned())));
        self
    }

    /// Runs a program of a place, such as a node.
    ///
    /// # Errors
    /// When it was not built.
    pub fn command(&self, place: &str, name: &str) -> anyhow::Result<Command> {
        let program = self.path(place, name);
        if !program.exists() {
            self.put(place, name, &binary(name)?)?;
        }
        let mut command = Command::new(program);
        command.envs(self.variables.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Where it is.
    pub fn path(&self, place: &str, name: &str) -> PathBuf {
        self.folder.join(place).join(name)
    }

    /// Puts a file in the place of a program, in one step.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn put(&self, place: &str, name: &str, file: &Path) -> anyhow::Result<()> {
        let program = self.path(place, name);
        fs::create_dir_all(self.folder.join(place))?;
        let next = program.with_extension("next");
        // They are large.
        if fs::hard_link(file, &next).is_err() {
            fs::copy(file, &next).with_context(|| format!("copying {}", file.display()))?;
        }
        Ok(fs::rename(next, program)?)
    }

    /// Another build of a program, which does the same.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn rebuilt(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(format!("{name}.rebuilt"));
        if !path.exists() {
            rebuild(&binary(name)?, &path)?;
        }
        Ok(path)
    }

    /// Puts another build of nats-server in its place.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn replace_nats_server(&self) -> anyhow::Result<()> {
        let next = self.folder.join("nats-server.next");
        let nats = self.folder.join(NATS_SERVER);
        rebuild(&nats, &next)?;
        Ok(fs::rename(next, nats)?)
    }
}

fn rebuild(program: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(program, to).with_context(|| format!("copying {}", program.display()))?;
    // What comes after the end of an ELF file is not looked at.
    Ok(File::options().append(true).open(to)?.write_all(b"2")?)
}

/// Waits until something is so.
///
/// # Errors
/// When it is not in the end.
pub fn until(what: &str, done: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < PATIENCE, "{what}");
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Has the process that a ready file names hand over, and waits until that is
/// done.
///
/// # Errors
/// When it is not.
pub fn hand_over(ready_file: &Path) -> anyhow::Result<HandedOver> {
    let began = Instant::now();
    let old = reload(ready_file)?;
    let until = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            let late = began.elapsed() > PATIENCE;
            ensure!(!late, "{}: {what}", ready_file.display());
            thread::sleep(LOOK);
        }
        Ok(began.elapsed())
    };
    let ready = until("no successor serves", &|| is_succeeded(old, ready_file))?;
    let gone = until("the predecessor stays", &|| !runs(old))?;
    let pid = Ready::read(ready_file)
        .context("the successor is gone")?
        .pid;
    ensure!(runs(pid), "the successor does not run");
    Ok(HandedOver { pid, ready, gone })
}

/// What a relay that is watched at an address says of how it is, when it serves.
pub fn said(at: SocketAddr) -> Option<String> {
    let runtime = tokio::runtime::Runtime::new().ok()?;
    let http = reqwest::Client::builder().no_proxy().build().ok()?;
    runtime.block_on(async {
        let answer = http.get(format!("http://{at}/readyz")).send().await.ok()?;
        match answer.status().is_success() {
            true => answer.text().await.ok(),
            false => None,
        }
    })
}

/// Whether another process than this one serves.
pub fn is_succeeded(old: u32, ready_file: &Path) -> bool {
    Ready::read(ready_file).is_some_and(|ready| ready.pid != old)
}

/// Asks the process that a ready file names to hand over; which that is.
///
/// # Errors
/// When there is none.
pub fn reload(ready_file: &Path) -> anyhow::Result<u32> {
    let pid = Ready::read(ready_file).context("nobody serves")?.pid;
    let process = Pid::from_raw(pid.try_into()?).context("not a process id")?;
    kill_process(process, Signal::HUP).context("the process is gone")?;
    Ok(pid)
}

/// Whether a process has not ended: one that was not reaped has no program.
pub fn runs(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}
