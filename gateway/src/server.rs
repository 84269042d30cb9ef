//! The listener: HTTPS with TLS 1.3, and what a connection may take.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use sotto_service::watch::{Loopback, Readiness, Watch, WatchError, without_nats};
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;
use crate::http;
use crate::metrics::{GatewayFigures, Metrics};

/// How long requests may take to finish once the gateway is asked to stop.
const DRAIN: Duration = Duration::from_secs(5);
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
    pub async fn show(&self, listen: Option<Loopback>) -> Result<Option<Watch>, WatchError> {
        let figures = Arc::clone(&self.figures);
        Watch::start(listen, METRICS, &self.readiness, figures).await
    }

    /// The gateway serves whenever NATS and the directory of every org are there.
    pub fn serve(&self, gateway: Arc<Gateway>) {
        self.figures.serve(Arc::clone(&gateway));
        self.readiness.serves(move || missing(&gateway));
    }
}

fn missing(gateway: &Gateway) -> Vec<String> {
    let mut missing = without_nats(gateway.orgs().map(|org| org.client()));
    let orgs = gateway.orgs();
    let unread = orgs.filter(|org| org.directory().log().state().is_err());
    missing.extend(unread.map(|org| format!("the directory of {} cannot be read", org.name())));
    missing
}

/// Serves the API until `stop`, then lets requests finish for a few seconds.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    gateway: Arc<Gateway>,
    watched: Watched,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    let tls = RustlsConfig::from_config(Arc::new(tls));
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(POOR_LINK);
    let mut server = axum_server::from_tcp(listener)?
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
    let router = http::router(gateway, &watched);
    let serving = server.serve(router.into_make_service_with_connect_info::<SocketAddr>());
    let stopping = async {
        stop.cancelled().await;
        handle.graceful_shutdown(Some(DRAIN));
        std::future::pending().await
    };
    tokio::select! {
        served = serving => served,
        () = stopping => Ok(()),
    }
}
