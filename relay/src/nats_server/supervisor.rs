//! Keeps one nats-server process running.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use rustix::process::Signal;
use sotto_log::Known;
use sotto_service::Layout;
use tokio::process::Command;

use super::NatsBinary;
use super::binary::BinaryError;
use super::orphan;
use super::process::Process;

/// How a nats-server is told its configuration, and an orphan recognised.
pub(super) const CONFIG_FLAG: &str = "-c";
/// How long a server that is asked to stop may take before it is killed. With
/// every message synced, killing loses nothing; it makes the next start longer.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a node, which hands over what it leads and sends its clients
/// away over half a minute.
const LAME_DUCK_TIMEOUT: Duration = Duration::from_secs(45);
/// How nats-server is told to become a lame duck.
const LAME_DUCK: Signal = Signal::USR2;
/// The longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pauses before restarts: longer with each crash.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(PAUSE_MAX)
    .without_max_times();
/// A server that ran this long did not crash because of how it was started.
const STABLE: Duration = Duration::from_secs(60);
/// How much of the end of the log is looked at for the reason of a crash.
const LOG_TAIL: u64 = 8 * 1024;

/// A nats-server process and what is needed to start the next one.
pub struct Supervisor {
    command: NatsCommand,
    process: Process,
    started: Instant,
    pauses: ExponentialBackoff,
    /// By when a process must have ended that hands over.
    leaves_by: Option<tokio::time::Instant>,
}

/// A server that another relay started.
pub struct Adopted {
    /// Looks after it. When this is dropped, it goes on.
    pub supervisor: Supervisor,
    /// Whether its program is the one that this relay would start.
    pub is_current: bool,
}

struct NatsCommand {
    binary: NatsBinary,
    config: PathBuf,
    log: PathBuf,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The one of an earlier relay cannot be looked after or stopped.
    #[error(
        "the nats-server that an earlier relay left behind cannot be stopped: {0}; stop it by hand"
    )]
    Orphan(io::Error),
    /// There is no program to start.
    #[error(transparent)]
    Binary(BinaryError),
    /// The program cannot be started.
    #[error("cannot start {0}: {1}")]
    Spawn(String, io::Error),
}

sotto_log::log_safe!(SupervisorError);

impl Supervisor {
    /// Stops what an earlier relay left behind, and starts the server. There
    /// must be no other relay on this layout.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn start(binary: &NatsBinary, layout: &Layout) -> Result<Self, SupervisorError> {
        Self::start_with(NatsCommand::server(binary, layout)).await
    }

    /// The same for the server that keeps a lonely node company.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn start_witness(
        binary: &NatsBinary,
        layout: &Layout,
    ) -> Result<Self, SupervisorError> {
        Self::start_with(NatsCommand::witness(binary, layout)).await
    }

    async fn start_with(command: NatsCommand) -> Result<Self, SupervisorError> {
        command.stop_orphans().await?;
        Ok(Self {
            process: command.spawn()?,
            command,
            started: Instant::now(),
            pauses: PAUSES.build(),
            leaves_by: None,
        })
    }

    /// Looks after the server that this relay's predecessor started, if it runs.
    /// With which settings it does is the caller's to find out.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn adopt(
        binary: &NatsBinary,
        layout: &Layout,
    ) -> Result<Option<Adopted>, SupervisorError> {
        Self::adopt_with(NatsCommand::server(binary, layout)).await
    }

    /// The same for the server that keeps a lonely node company.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn adopt_witness(
        binary: &NatsBinary,
        layout: &Layout,
    ) -> Result<Option<Adopted>, SupervisorError> {
        Self::adopt_with(NatsCommand::witness(binary, layout)).await
    }

    async fn adopt_with(command: NatsCommand) -> Result<Option<Adopted>, SupervisorError> {
        let Some((running, is_current)) = command.running().await? else {
            return Ok(None);
        };
        let supervisor = Self {
            process: Process::adopted(running),
            command,
            started: Instant::now(),
            pauses: PAUSES.build(),
            leaves_by: None,
        };
        Ok(Some(Adopted {
            supervisor,
            is_current,
        }))
    }

    /// Goes on after somebody else has looked after the server, and may have
    /// started another one in its place; whether what runs is the program that
    /// this relay would start.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn resume(&mut self) -> Result<bool, SupervisorError> {
        if self.process.runs() {
            return Ok(true);
        }
        if let Some((running, is_current)) = self.command.running().await? {
            self.process = Process::adopted(running);
            return Ok(is_current);
        }
        self.command.stop_orphans().await?;
        self.process = self.command.spawn()?;
        self.started = Instant::now();
        Ok(true)
    }

    /// Leaves the process to somebody else.
    pub fn leave(self) {
        self.process.leave();
    }

    /// Waits until the process ends; says why, as far as its log does.
    pub async fn ended(&mut self) -> String {
        let status = match self.process.ended().await {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => "it ended".to_owned(),
        };
        match last_complaint(&self.command.log) {
            Some(complaint) => format!("{status}; its log says: {complaint}"),
            None => status,
        }
    }

    /// Waits until the process ends, and has started another one when it
    /// returns. May be dropped at any time and called again.
    pub async fn restarted(&mut self) {
        match self.leaves_by {
            Some(deadline) => {
                self.has_ended_by(deadline).await;
                sotto_log::info!("nats-server has handed over; it is started anew");
            }
            None => {
                let why = self.ended().await;
                if self.started.elapsed() >= STABLE {
                    self.pauses = PAUSES.build();
                }
                let pause = self.pauses.next().unwrap_or(PAUSE_MAX);
                sotto_log::error!(
                    why = Known(why),
                    pause,
                    "nats-server ended; it is started again"
                );
                tokio::time::sleep(pause).await;
            }
        }
        loop {
            match self.command.spawn() {
                Ok(process) => {
                    self.process = process;
                    self.started = Instant::now();
                    self.leaves_by = None;
                    return;
                }
                Err(error) => sotto_log::error!(error, "nats-server does not start"),
            }
            tokio::time::sleep(self.pauses.next().unwrap_or(PAUSE_MAX)).await;
        }
    }

    /// Ends a process that does not answer, for [`Self::restarted`] to replace.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
    }

    /// Stops the process.
    pub async fn stop(self) {
        self.stop_by(Signal::TERM, STOP_TIMEOUT).await;
    }

    /// Ends a process that is of no use, and waits until it is gone.
    pub async fn discard(self) {
        self.stop_by(Signal::KILL, STOP_TIMEOUT).await;
    }

    /// Stops the process of a node with others: what it leads goes to them,
    /// and its clients are told to.
    pub async fn hand_over_and_stop(self) {
        self.stop_by(LAME_DUCK, LAME_DUCK_TIMEOUT).await;
    }

    /// Has the process of a node hand over to others, where they are there, and
    /// end, for [`Self::restarted`] to replace.
    pub fn hand_over(&mut self, to_others: bool) {
        let (signal, within) = match to_others {
            true => (LAME_DUCK, LAME_DUCK_TIMEOUT),
            false => (Signal::TERM, STOP_TIMEOUT),
        };
        self.process.signal(signal);
        self.leaves_by = Some(tokio::time::Instant::now() + within);
    }

    async fn stop_by(mut self, signal: Signal, timeout: Duration) {
        // A successor that ended may have started another one in its place.
        if !self.process.runs()
            && let Ok(Some((running, _))) = self.command.running().await
        {
            self.process = Process::adopted(running);
        }
        self.process.signal(signal);
        self.has_ended_by(tokio::time::Instant::now() + timeout)
            .await;
    }

    async fn has_ended_by(&mut self, deadline: tokio::time::Instant) {
        let ended = tokio::time::timeout_at(deadline, self.process.ended()).await;
        if ended.is_err() {
            sotto_log::warn!("nats-server does not stop when asked: it is killed");
            self.process.signal(Signal::KILL);
            self.process.ended().await;
        }
    }
}

/// Looks for processes, or stops them, which blocks.
async fn of_orphans<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SupervisorError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(SupervisorError::Orphan)
}

impl NatsCommand {
    fn server(binary: &NatsBinary, layout: &Layout) -> Self {
        Self {
            binary: binary.clone(),
            config: layout.nats_config(),
            log: layout.nats_log(),
        }
    }

    /// The same for the server that keeps a lonely node company.
    fn witness(binary: &NatsBinary, layout: &Layout) -> Self {
        Self {
            binary: binary.clone(),
            config: layout.witness_config(),
            log: layout.witness_log(),
        }
    }

    /// The one that runs, and whether its program is this one.
    async fn running(&self) -> Result<Option<(OwnedFd, bool)>, SupervisorError> {
        let (config, program) = (self.config.clone(), self.binary.path.clone());
        of_orphans(move || orphan::running(&config, &program)).await
    }

    async fn stop_orphans(&self) -> Result<(), SupervisorError> {
        let config = self.config.clone();
        of_orphans(move || orphan::stop(&config)).await
    }

    fn spawn(&self) -> Result<Process, SupervisorError> {
        let failed = |error| SupervisorError::Spawn(self.binary.path.display().to_string(), error);
        // What it says before it has read its configuration goes to its log too.
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(failed)?;
        let program = self.binary.checked().map_err(SupervisorError::Binary)?;
        Command::new(program)
            .arg(CONFIG_FLAG)
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C in a terminal is for the relay, which then stops the server.
            .process_group(0)
            .spawn()
            .and_then(Process::started)
            .map_err(failed)
    }
}

/// The last line of the log that tells of an error.
fn last_complaint(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let complains = |line: &&str| {
        line.contains("[FTL]") || line.contains("[ERR]") || line.starts_with("nats-server:")
    };
    tail.lines().rev().find(complains).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("nats.log");
        assert_eq!(last_complaint(&log), None);
        let text = "[1] 2026 [INF] hello\n[1] 2026 [FTL] address in use\n[1] 2026 [INF] bye\n";
        std::fs::write(&log, "x".repeat(20_000) + "\n" + text).unwrap();
        assert_eq!(
            last_complaint(&log).unwrap(),
            "[1] 2026 [FTL] address in use"
        );
    }
}
