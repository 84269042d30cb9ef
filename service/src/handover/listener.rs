//! A listening socket that two processes may have at a time.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::Part;

/// A listening socket, from which this process takes connections unless a
/// successor does.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    part: Part,
}

impl Listener {
    pub(super) fn new(tcp: TcpListener, part: Part) -> Self {
        Self { tcp, part }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection. May be dropped at any time and called again.
    ///
    /// # Errors
    /// As the system's.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut phase = self.part.phase.clone();
        loop {
            // An error says that nothing changes any more.
            let accepting = phase.wait_for(|phase| phase.takes_new()).await.is_ok();
            if !accepting {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                accepted = self.tcp.accept() => return accepted,
                Ok(_) = phase.wait_for(|phase| !phase.takes_new()) => {}
            }
        }
    }

    /// Waits until another process listens here alone.
    pub async fn handed_over(&self) {
        self.part.clone().handed_over().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::super::Phase;
    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_successor_serves_waits_and_is_not_refused() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let phase = watch::Sender::new(Phase::Alone);
        let part = Part {
            is_successor: false,
            phase: phase.subscribe(),
        };
        let listener = Listener::new(tcp, part);
        let connect = || TcpStream::connect(listener.local_addr().unwrap());
        connect().await.unwrap();
        listener.accept().await.unwrap();

        phase.send_replace(Phase::StandingBy);
        let waiting = connect().await.unwrap();
        let nobody = timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err(), "it is the successor's");

        phase.send_replace(Phase::Alone);
        let (_, client) = listener.accept().await.unwrap();
        assert_eq!(client, waiting.local_addr().unwrap());
    }
}
