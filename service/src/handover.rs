//! How a program that serves is replaced while it serves.
//!
//! At SIGHUP, which `systemctl reload` sends, the process starts its
//! successor: the program file that is in place now, with the same arguments
//! and the same listening sockets. Once the successor says that it serves
//! ([`readiness`](crate::readiness)), it alone takes new connections; the
//! process stands by for a while, finishes what it has, and ends.
//!
//! A successor that ends, or does not serve in time, or ends while its
//! predecessor still stands by, changes nothing: the predecessor takes
//! connections again. No connection is refused at any moment, because the
//! sockets are open in one process or the other, and what nobody has taken
//! from them waits. Whoever sends SIGHUP again before a handover is complete
//! has it begun anew, with the file that is in place then.
//!
//! What a process is to finish and what it leaves to its successor is the
//! program's own business; this must never end a process by itself.

mod inherited;
mod listener;

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sd_notify::NotifyState;
use sotto_log::Known;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::private_files::FileError;
use crate::readiness::{self, Announcement, Ready};
use crate::shutdown;

pub use inherited::Inherited;
pub use listener::Listener;

/// How long a successor may take until it serves, in seconds, when nothing else
/// is said: less than an update waits.
const READY_WITHIN: u32 = 100;
/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process stands by, and how long it finishes what it has, in
/// seconds, when nothing else is said.
const STAND_BY: u32 = 30;
const DRAIN: u32 = 3_600;

/// How long a process stays after its successor has come.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct HandoverArgs {
    /// Seconds within which a successor, started at SIGHUP, must serve.
    #[arg(long, env = "SOTTO_SUCCESSOR_READY_SECONDS", default_value_t = READY_WITHIN, value_name = "SECONDS")]
    successor_ready_seconds: u32,

    /// Seconds for which this process stands by after that, to go on when its
    /// successor ends.
    #[arg(long, env = "SOTTO_STAND_BY_SECONDS", default_value_t = STAND_BY, value_name = "SECONDS")]
    stand_by_seconds: u32,

    /// Seconds in which what it has then must come to an end.
    #[arg(long, env = "SOTTO_DRAIN_SECONDS", default_value_t = DRAIN, value_name = "SECONDS")]
    drain_seconds: u32,
}

impl Default for HandoverArgs {
    fn default() -> Self {
        Self {
            successor_ready_seconds: READY_WITHIN,
            stand_by_seconds: STAND_BY,
            drain_seconds: DRAIN,
        }
    }
}

impl HandoverArgs {
    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds.into())
    }

    fn ready_within(&self) -> Duration {
        Duration::from_secs(self.successor_ready_seconds.into())
    }

    fn stand_by(&self) -> Duration {
        Duration::from_secs(self.stand_by_seconds.into())
    }
}

/// Where a process is between its predecessor and its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves, and has no successor.
    Alone,
    /// It serves, and a successor starts.
    Starting,
    /// A successor serves. This one takes nothing new, and is ready to go on.
    StandingBy,
    /// It finishes what it has.
    HandedOver,
}

impl Phase {
    /// Whether new connections are this process' own.
    pub fn takes_new(self) -> bool {
        matches!(self, Self::Alone | Self::Starting)
    }
}

/// Why a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// Its successor serves.
    HandedOver,
}

/// A process' part in handing over; one for each process.
#[derive(Debug)]
pub struct Handover {
    /// Where the program is, as it was found when this process started: what
    /// `/proc/self/exe` says after it was replaced is of no use.
    program: PathBuf,
    arguments: Vec<OsString>,
    args: HandoverArgs,
    is_successor: bool,
    inherited: Mutex<Vec<TcpListener>>,
    listening: Mutex<Vec<TcpListener>>,
    announced: Mutex<Weak<Announcement>>,
    hangup: tokio::sync::Mutex<Option<Signal>>,
    phase: watch::Sender<Phase>,
}

/// Where a process is, as it changes.
#[derive(Debug, Clone)]
pub struct Part {
    is_successor: bool,
    phase: watch::Receiver<Phase>,
}

impl Part {
    /// Whether the process was started by its predecessor, which serves.
    pub fn is_successor(&self) -> bool {
        self.is_successor
    }

    /// Where it is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until it is elsewhere than when this was called last.
    pub async fn changed(&mut self) -> Phase {
        match self.phase.changed().await {
            Ok(()) => *self.phase.borrow_and_update(),
            // Nothing changes any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until its successor is in charge.
    pub async fn handed_over(mut self) {
        while self.phase() != Phase::HandedOver {
            self.changed().await;
        }
    }
}

/// How a handover went that is not complete.
enum Failed {
    /// The process was asked to stop.
    Stopped,
    /// It is to be begun anew.
    Again,
    /// The process goes on; why.
    GoesOn(String),
}

impl Handover {
    /// From now on SIGHUP does not end this process. Call it inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the program's file is not known, or signals cannot be handled.
    pub fn new(inherited: Inherited, args: HandoverArgs) -> io::Result<Self> {
        // The end of a terminal is not a wish for another process.
        let hangup = match shutdown::is_terminal() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            program: env::current_exe()?,
            arguments: env::args_os().skip(1).collect(),
            args,
            is_successor: inherited.is_successor,
            inherited: Mutex::new(inherited.sockets),
            listening: Mutex::default(),
            announced: Mutex::default(),
            hangup: tokio::sync::Mutex::new(hangup),
            phase: watch::Sender::new(Phase::Alone),
        })
    }

    /// Where it is, for those who ask.
    pub fn part(&self) -> Part {
        Part {
            is_successor: self.is_successor,
            phase: self.phase.subscribe(),
        }
    }

    /// How long what this process has may take to end.
    pub fn drain(&self) -> Duration {
        self.args.drain()
    }

    /// Listens at an address, with the inherited socket when there is one.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let inherited = {
            let mut sockets = locked(&self.inherited);
            let is_at = |socket: &TcpListener| socket.local_addr().is_ok_and(|at| at == address);
            let found = sockets.iter().position(is_at);
            found.map(|number| sockets.swap_remove(number))
        };
        let socket = match inherited {
            Some(socket) => socket,
            None => tokio::net::TcpListener::bind(address).await?.into_std()?,
        };
        socket.set_nonblocking(true)?;
        locked(&self.listening).push(socket.try_clone()?);
        let tcp = tokio::net::TcpListener::from_std(socket)?;
        Ok(Listener::new(tcp, self.part()))
    }

    /// Says that this process serves at `url` now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, path: &Path, url: String) -> Result<Arc<Announcement>, FileError> {
        let announcement = Arc::new(readiness::announce(path, url)?);
        *locked(&self.announced) = Arc::downgrade(&announcement);
        // What is inherited and not listened at is not wanted any more.
        locked(&self.inherited).clear();
        Ok(announcement)
    }

    /// Waits until this process is to end, and meanwhile hands over at SIGHUP.
    /// A successor that is not in charge by then is ended.
    pub async fn ends(&self, stop: &CancellationToken) -> Ending {
        let mut hangup = self.hangup.lock().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ending::Stopped,
                () = hung_up(&mut hangup) => {}
            }
            loop {
                let failed = match self.hand_over(&mut hangup, stop).await {
                    Ok(()) => return Ending::HandedOver,
                    Err(failed) => failed,
                };
                match failed {
                    Failed::Stopped => return Ending::Stopped,
                    Failed::Again => sotto_log::info!("the handover begins anew"),
                    Failed::GoesOn(why) => {
                        sotto_log::error!(
                            why = Known(why),
                            "there is no successor: this process goes on"
                        );
                        break;
                    }
                }
            }
        }
    }

    async fn hand_over(
        &self,
        hangup: &mut Option<Signal>,
        stop: &CancellationToken,
    ) -> Result<(), Failed> {
        let Some(announcement) = locked(&self.announced).upgrade() else {
            return Err(Failed::GoesOn("it does not serve itself yet".to_owned()));
        };
        let (mut child, pid) = self
            .spawn()
            .map_err(|error| Failed::GoesOn(format!("it cannot be started: {error}")))?;
        sotto_log::info!(pid, program = self.program, "a successor starts");
        self.phase.send_replace(Phase::Starting);
        let trial = async {
            let ready =
                tokio::time::timeout(self.args.ready_within(), is_ready(announcement.path(), pid));
            ready.await.map_err(|_| "it does not serve in time")?;
            sotto_log::info!(pid, "the successor serves; this process stands by");
            self.phase.send_replace(Phase::StandingBy);
            tokio::time::sleep(self.args.stand_by()).await;
            Ok::<_, &str>(())
        };
        let failed = tokio::select! {
            () = stop.cancelled() => Failed::Stopped,
            () = hung_up(hangup) => Failed::Again,
            ended = child.wait() => Failed::GoesOn(match ended {
                Ok(status) => format!("it ended ({status})"),
                Err(error) => format!("it is not known whether it runs: {error}"),
            }),
            tried = trial => match tried {
                Ok(()) => {
                    is_the_main_process(pid);
                    self.phase.send_replace(Phase::HandedOver);
                    locked(&self.listening).clear();
                    sotto_log::info!(pid, "handed over; what is left is finished");
                    return Ok(());
                }
                Err(why) => Failed::GoesOn(why.to_owned()),
            },
        };
        // An error says that it has ended.
        let _ = child.kill().await;
        if let Err(error) = announcement.renew() {
            sotto_log::error!(error, "nobody is told that this process serves again");
        }
        self.phase.send_replace(Phase::Alone);
        Err(failed)
    }

    /// Starts a successor. It lives on when this process ends.
    fn spawn(&self) -> io::Result<(Child, u32)> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        // Inherited while they are open.
        let _sockets = inherited::give(&mut command, &locked(&self.listening))?;
        let child = command.spawn()?;
        let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
        Ok((child, pid))
    }
}

/// Waits until the file says that this process serves.
async fn is_ready(path: &Path, pid: u32) {
    while Ready::read(path).is_none_or(|ready| ready.pid != pid) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    let hung_up = match hangup {
        Some(hangup) => hangup.recv().await.is_some(),
        None => false,
    };
    if !hung_up {
        std::future::pending::<()>().await;
    }
}

/// Has systemd, where that has started this process, look after another one.
fn is_the_main_process(pid: u32) {
    if let Err(error) = sd_notify::notify(&[NotifyState::MainPid(pid)]) {
        sotto_log::warn!(error, "systemd does not hear of the successor");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
