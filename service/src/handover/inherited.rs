//! Listening sockets as a process gives them to its successor: by systemd's
//! protocol (`sd_listen_fds(3)`), and with whose successor it is.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::getppid;
use tokio::process::Command;

/// The first descriptor that a successor may inherit (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;
/// How it is told how many there are, and where the first is: the latter is
/// not of systemd's protocol, but understood by crate `listenfd`.
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDS_FIRST: &str = "LISTEN_FDS_FIRST_FD";
/// What else belongs to that protocol, and is not said here.
const NOT_SAID: [&str; 2] = ["LISTEN_PID", "LISTEN_FDNAMES"];
/// How a successor is told whose it is.
const PREDECESSOR: &str = "SOTTO_PREDECESSOR";

/// What a process got from its predecessor, or from systemd.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) is_successor: bool,
}

impl Inherited {
    /// To be called once, first of all: it changes the environment, which only
    /// a process with one thread may.
    pub fn take() -> Self {
        let mut given = ListenFd::from_env();
        let sockets = (0..given.len()).filter_map(|number| {
            // What is no listening socket is of no use.
            given.take_tcp_listener(number).ok().flatten()
        });
        let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
        Self {
            sockets: sockets.collect(),
            is_successor: env::var(PREDECESSOR).is_ok_and(|said| parent == Some(said)),
        }
    }
}

/// Has a program inherit these sockets, which is started while what this
/// returns is open.
///
/// # Errors
/// When there are no more descriptors.
pub(super) fn give(command: &mut Command, sockets: &[TcpListener]) -> io::Result<Vec<OwnedFd>> {
    let sockets = inheritable(sockets)?;
    let first = sockets.first().map_or(FIRST, AsRawFd::as_raw_fd);
    command
        .env(LISTEN_FDS, sockets.len().to_string())
        .env(LISTEN_FDS_FIRST, first.to_string())
        .env(PREDECESSOR, std::process::id().to_string());
    for variable in NOT_SAID {
        command.env_remove(variable);
    }
    Ok(sockets)
}

/// The sockets under numbers that follow each other, which a program inherits
/// that is started while they are open. No other program may be started
/// meanwhile: those that this is for start others, if any, in the same task.
fn inheritable(sockets: &[TcpListener]) -> io::Result<Vec<OwnedFd>> {
    let mut first = FIRST;
    'from_first: loop {
        let mut inheritable: Vec<OwnedFd> = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let wanted = inheritable.last().map(|last| last.as_raw_fd() + 1);
            let copy = fcntl_dupfd_cloexec(socket, wanted.unwrap_or(first))?;
            if wanted.is_some_and(|wanted| wanted != copy.as_raw_fd()) {
                first = copy.as_raw_fd();
                continue 'from_first;
            }
            inheritable.push(copy);
        }
        for socket in &inheritable {
            fcntl_setfd(socket, FdFlags::empty())?;
        }
        return Ok(inheritable);
    }
}
