//! Addresses for the servers of a test.
//!
//! A port that the system picked (`:0`) and that was let go again may be
//! anyone's connection before the server is there that is to have it. So these
//! come from below the ports that a system picks from, and belong to this
//! process until it ends: a socket that is named after the port says so to the
//! tests beside it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::sync::Mutex;

use rand::Rng;

/// Above what servers have by default, below `ip_local_port_range`.
const PORTS: Range<u16> = 10_000..32_000;
const ATTEMPTS: usize = 1_000;

static CLAIMS: Mutex<Vec<net::UnixListener>> = Mutex::new(Vec::new());

/// An address of the loopback interface that nobody listens on, and that is
/// given to nobody else as long as this process runs.
///
/// # Errors
/// When none was found.
pub fn free() -> io::Result<SocketAddr> {
    let attempts = (0..ATTEMPTS).map(|_| rand::thread_rng().gen_range(PORTS));
    attempts
        .map(claim)
        .find(Result::is_ok)
        .unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
}

fn claim(port: u16) -> io::Result<SocketAddr> {
    let name = net::SocketAddr::from_abstract_name(format!("sotto-test-port-{port}"))?;
    let claim = net::UnixListener::bind_addr(&name)?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr()?;
    CLAIMS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(claim);
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_somebody_has() {
        let mine = free().unwrap();
        assert!(PORTS.contains(&mine.port()));
        assert_eq!(
            claim(mine.port()).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let (taken, port) = PORTS
            .filter_map(|port| Some((TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?, port)))
            .next()
            .unwrap();
        assert_eq!(claim(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
    }
}
