//! The way out of a network namespace that has nothing but its own loopback:
//! doors at addresses inside, which lead to sockets in the file system, where
//! the [`Link`](crate::Link)s outside listen; and doors the other way round,
//! for a server inside.
//!
//! So a program can be behind a link of its own without knowing of it, at the
//! addresses that it knows.

use std::fmt;
use std::io;
use std::process::Command;
use std::str::FromStr;

use tokio::task::JoinSet;

use crate::lane::Conditions;
use crate::proxy::Link;
use crate::socket::Place;

/// One door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Where programs connect.
    pub at: Place,
    /// Where it leads.
    pub to: Place,
}

/// A text is not `PLACE=PLACE`.
#[derive(Debug, thiserror::Error)]
#[error("a door is written PLACE=PLACE, each IP:PORT or unix:PATH, not `{0}`")]
pub struct NotADoor(String);

impl FromStr for Door {
    type Err = NotADoor;

    fn from_str(text: &str) -> Result<Self, NotADoor> {
        let door = text.split_once('=').and_then(|(at, to)| {
            Some(Self {
                at: at.parse().ok()?,
                to: to.parse().ok()?,
            })
        });
        door.ok_or_else(|| NotADoor(text.to_owned()))
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.at, self.to)
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
    for Door { at, to } in doors {
        let (_, door) = good.forward(&at, to).await?;
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
        for text in [
            "127.0.0.1:4222=unix:/run/nats.sock",
            "unix:/run/nats.sock=127.0.0.1:4222",
        ] {
            let door: Door = text.parse().unwrap();
            assert_eq!(door.to_string(), text);
        }
        for text in ["", "127.0.0.1:4222", "4222=unix:/run/nats.sock"] {
            assert!(text.parse::<Door>().is_err(), "{text}");
        }
    }
}
