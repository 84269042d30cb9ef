//! An address that only programs on this machine reach.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A loopback address and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SocketAddr", into = "SocketAddr")]
pub struct Loopback(SocketAddr);

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoopbackError {
    /// It is none.
    #[error("write IP:PORT, as in 127.0.0.1:9464")]
    Unreadable,
    /// Others could reach it.
    #[error("{0} must be a loopback address, as 127.0.0.1:9464 is")]
    Reachable(SocketAddr),
}

impl TryFrom<SocketAddr> for Loopback {
    type Error = LoopbackError;

    fn try_from(address: SocketAddr) -> Result<Self, LoopbackError> {
        match address.ip().is_loopback() {
            true => Ok(Self(address)),
            false => Err(LoopbackError::Reachable(address)),
        }
    }
}

impl From<Loopback> for SocketAddr {
    fn from(Loopback(address): Loopback) -> Self {
        address
    }
}

impl FromStr for Loopback {
    type Err = LoopbackError;

    fn from_str(text: &str) -> Result<Self, LoopbackError> {
        let address: SocketAddr = text.parse().map_err(|_| LoopbackError::Unreadable)?;
        address.try_into()
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_reach_is_refused() {
        for good in ["127.0.0.1:9464", "127.9.9.9:1", "[::1]:9464"] {
            assert_eq!(good.parse::<Loopback>().unwrap().to_string(), good);
        }
        for reachable in [
            "0.0.0.0:9464",
            "10.0.0.1:9464",
            "[::]:9464",
            "[fe80::1]:9464",
        ] {
            let error = reachable.parse::<Loopback>().unwrap_err();
            assert!(matches!(error, LoopbackError::Reachable(_)), "{error}");
        }
        for unreadable in ["", "9464", "localhost:9464", "127.0.0.1"] {
            assert_eq!(
                unreadable.parse::<Loopback>(),
                Err(LoopbackError::Unreadable)
            );
        }
    }
}
