//! One process of nats-server, seen through its pidfd: the same whether this
//! relay started it or its predecessor did.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

/// A process.
pub(super) struct Process {
    pidfd: Arc<OwnedFd>,
    started: Started,
}

/// By whom.
enum Started {
    /// By this relay: it is reaped here, and killed when this is dropped.
    Here(Child),
    /// By somebody else; when it ends, the token is cancelled.
    Elsewhere(CancellationToken),
}

impl Process {
    /// One that was just started.
    pub(super) fn started(child: Child) -> io::Result<Self> {
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It is our child and not waited for: the number is its own.
        let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        Ok(Self {
            pidfd: Arc::new(pidfd),
            started: Started::Here(child),
        })
    }

    /// One that somebody else started.
    pub(super) fn adopted(pidfd: OwnedFd) -> Self {
        let pidfd = Arc::new(pidfd);
        let ended = CancellationToken::new();
        let (watched, told) = (Arc::clone(&pidfd), ended.clone());
        // A thread of its own: it must not keep the runtime from ending.
        thread::spawn(move || {
            while has_ended(&watched, None) == Err(Errno::INTR) {}
            told.cancel();
        });
        Self {
            pidfd,
            started: Started::Elsewhere(ended),
        }
    }

    /// Waits until it ends; how it did, as far as that is known. May be dropped
    /// at any time and called again.
    pub(super) async fn ended(&mut self) -> Option<io::Result<ExitStatus>> {
        match &mut self.started {
            Started::Here(child) => Some(child.wait().await),
            Started::Elsewhere(ended) => {
                ended.cancelled().await;
                None
            }
        }
    }

    /// Whether it has not ended yet.
    pub(super) fn runs(&self) -> bool {
        has_ended(&self.pidfd, Some(&Timespec::default())) == Ok(false)
    }

    /// Sends it a signal; to one that has ended, none.
    pub(super) fn signal(&self, signal: Signal) {
        // An error says that it has ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// It does not end with this any more.
    pub(super) fn leave(mut self) {
        self.started = Started::Elsewhere(CancellationToken::new());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.started, Started::Here(_)) {
            self.signal(Signal::KILL);
        }
    }
}

/// A process' descriptor becomes readable when it ends.
fn has_ended(pidfd: &OwnedFd, within: Option<&Timespec>) -> rustix::io::Result<bool> {
    let mut ended = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut ended, within).map(|ready| ready > 0)
}
