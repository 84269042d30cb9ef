//! The listener: HTTPS with TLS 1.3, and what a connection may take.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{AddrListener, Address, Handle, Server};
use hyper_util::rt::TokioTimer;
use sotto_service::handover::{Ending, Handover, Listener};
use sotto_service::watch::{Connections, Loopback, Readiness, Watch, WatchError};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::http;
use crate::metrics::{GatewayFigures, Metrics};

/// How long requests may take to finish once the gateway is asked to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long connections over HTTP/1 are used on, and closed with an answer,
/// before those that are silent are closed too: a request that is on its way
/// when a connection is closed would be lost. HTTP/2 says which it took.
const SILENT: Duration = Duration::from_secs(5);
/// How long a client may take for the TLS handshake, and to answer whether it
/// is still there: 3 KB at 2 kbit/s, and again for what is lost.
const POOR_LINK: Duration = Duration::from_secs(120);
/// How long a client may take to send the head of a request, and how often a
/// silent HTTP/2 connection is asked whether anybody is there.
const HEAD: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 64;

/// What an operator calls the address at which the gateway is watched.
const METRICS: &str = "`[gateway] metrics` in server.toml";

/// What is shown to whoever watches the gateway.
#[derive(Clone)]
pub struct Watched {
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Arc<Metrics>,
    figures: Arc<GatewayFigures>,
}

impl Watched {
    /// Of a gateway that starts, and drains once `stop` is cancelled.
    pub fn new(stop: &CancellationToken) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            readiness: Readiness::starting(stop.clone()),
            figures: Arc::new(GatewayFigures::new(&metrics)),
            metrics,
        }
    }

    /// Shows it, until what this returns is dropped.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn show(
        &self,
        handover: &Handover,
        listen: Option<Loopback>,
    ) -> Result<Option<Watch>, WatchError> {
        let figures = Arc::clone(&self.figures);
        Watch::start(handover, (listen, METRICS), &self.readiness, figures).await
    }

    /// The gateway serves whenever NATS and the directory of every org are there.
    pub fn serve(&self, gateway: Arc<Gateway>) {
        self.figures.serve(Arc::clone(&gateway));
        let clients = gateway.orgs().map(|org| org.client().clone());
        let connections = Connections::of(clients.collect());
        self.readiness
            .serves(move || missing(&gateway, &connections));
    }
}

fn missing(gateway: &Gateway, connections: &Connections) -> Vec<String> {
    let mut missing = connections.missing();
    let orgs = gateway.orgs();
    let unread = orgs.filter(|org| org.directory().log().state().is_err());
    missing.extend(unread.map(|org| format!("the directory of {} cannot be read", org.name())));
    missing
}

/// Serves the API until this process is asked to stop, and then lets requests
/// finish for a few seconds; or until it has handed over, and then for as long
/// as they take.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: Listener,
    tls: rustls::ServerConfig,
    gateway: Arc<Gateway>,
    watched: Watched,
    handover: &Handover,
    stop: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::new();
    let tls = RustlsConfig::from_config(Arc::new(tls));
    let acceptor = RustlsAcceptor::new(tls)
        .handshake_timeout(POOR_LINK)
        .acceptor(gateway.server().proxies.clone());
    let mut server = Server::<Here>::from_listener(Accepting(listener))
        .acceptor(acceptor)
        .handle(handle.clone());
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(POOR_LINK)
        .max_header_list_size(HEAD_MAX as u32)
        .max_concurrent_streams(STREAMS);
    let closing = CancellationToken::new();
    let router = http::router(gateway, &watched, &closing);
    let serving = server.serve(router.into_make_service());
    let ending = async {
        let drain = match handover.ends(&stop).await {
            Ending::Stopped => DRAIN,
            Ending::HandedOver => {
                closing.cancel();
                tokio::time::sleep(SILENT).await;
                handover.drain()
            }
        };
        handle.graceful_shutdown(Some(drain));
        std::future::pending().await
    };
    tokio::select! {
        served = serving => served,
        () = ending => Ok(()),
    }
}

/// Where connections come from.
struct Accepting(Listener);

/// In the place of addresses: which one a connection counts for is found out
/// below TLS.
#[derive(Clone)]
struct Here;

impl Address for Here {
    type Stream = TcpStream;
    type Listener = Accepting;
}

impl AddrListener<TcpStream, Here> for Accepting {
    async fn bind_to(_: Here) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(TcpStream, Here)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, Here))
    }

    fn get_local_addr(&self) -> io::Result<Here> {
        Ok(Here)
    }
}
