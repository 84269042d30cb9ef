//! Who may connect, how many at a time, and for how long.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::handover::{Handover, Listener};

use super::router::router;
use super::{Figures, Loopback, Readiness};

/// Connections at a time; others wait until one of them ends.
const CONNECTIONS: usize = 32;
/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const WHOLE: Duration = Duration::from_secs(20);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Pause when the system gives no more connections.
const PAUSE: Duration = Duration::from_millis(200);

/// The three paths are answered until this is dropped.
#[derive(Debug)]
pub struct Watch {
    _accepting: AbortOnDropHandle<()>,
}

/// A program cannot be watched where it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be shown on {listen} ({problem}): choose another {setting}")]
pub struct WatchError {
    listen: Loopback,
    problem: io::Error,
    setting: &'static str,
}

impl Watch {
    /// Starts to answer; without an address, nowhere. `setting` is what an
    /// operator calls the address.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start(
        handover: &Handover,
        (listen, setting): (Option<Loopback>, &'static str),
        readiness: &Readiness,
        figures: impl Figures,
    ) -> Result<Option<Self>, WatchError> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        let listener = handover.listen(SocketAddr::from(listen)).await;
        let listener = listener.map_err(|problem| WatchError {
            listen,
            problem,
            setting,
        })?;
        let router = router(readiness.clone(), figures);
        let accepting = tokio::spawn(accept(listener, router));
        Ok(Some(Self {
            _accepting: AbortOnDropHandle::new(accepting),
        }))
    }
}

async fn accept(listener: Listener, router: Router) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= CONNECTIONS {
            open.join_next().await;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = listener.handed_over() => break,
        };
        match accepted {
            Ok((tcp, _)) => {
                open.spawn(answer(tcp, router.clone()));
            }
            Err(error) => {
                sotto_log::warn!(error, "nobody can look at the metrics");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    open.join_all().await;
}

/// One request, and the end.
async fn answer(tcp: TcpStream, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false);
    let service = TowerToHyperService::new(router);
    let answering = builder.serve_connection(TokioIo::new(tcp), service);
    // Ignored: whoever asked has gone, or took too long.
    drop(tokio::time::timeout(WHOLE, answering).await);
}
