//! The way out of a network namespace that has nothing but its own loopback:
//! doors at addresses inside, which lead to sockets in the file system, where
//! the [`Link`](crate::Link)s outside listen.
//!
//! So a program can be behind a link of its own without knowing of it, at the
//! addresses that it knows.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use tokio::task::JoinSet;

use crate::lane::Conditions;
use crate::proxy::Link;
use crate::socket::Place;

/// One door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Where programs in the namespace connect.
    pub inside: SocketAddr,
    /// The socket that it leads to.
    pub outside: PathBuf,
}

/// A text is not `IP:PORT=PATH`.
#[derive(Debug, thiserror::Error)]
#[error("a door is written IP:PORT=PATH, not `{0}`")]
pub struct NotADoor(String);

impl FromStr for Door {
    type Err = NotADoor;

    fn from_str(text: &str) -> Result<Self, NotADoor> {
        let door = text.split_once('=').and_then(|(inside, outside)| {
            Some(Self {
                inside: inside.parse().ok()?,
                outside: outside.into(),
            })
        });
        door.ok_or_else(|| NotADoor(text.to_owned()))
    }
}

/// Brings the loopback up and keeps the doors open. `opened` is called once
/// all of them are.
///
/// # Errors
/// When `ip`, of iproute2, does not bring the loopback up, or nothing can
/// listen at a door.
pub async fn keep_open(doors: Vec<Door>, opened: impl FnOnce()) -> io::Result<()> {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    if !up.success() {
        return Err(io::Error::other("`ip link set lo up` failed"));
    }
    let good = Link::new(Conditions::GOOD, 0);
    let mut forwarding = JoinSet::new();
    for Door { inside, outside } in doors {
        let (_, door) = good
            .forward(&Place::Tcp(inside), Place::Unix(outside))
            .await?;
        forwarding.spawn(door);
    }
    opened();
    while let Some(ended) = forwarding.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_are_read() {
        let door: Door = "127.0.0.1:4222=/run/nats.sock".parse().unwrap();
        assert_eq!(door.inside.port(), 4222);
        assert_eq!(door.outside, PathBuf::from("/run/nats.sock"));
        for text in ["", "127.0.0.1:4222", "4222=/run/nats.sock"] {
            assert!(text.parse::<Door>().is_err(), "{text}");
        }
    }
}
