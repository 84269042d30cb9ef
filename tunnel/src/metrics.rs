//! What is counted, as Prometheus reads it. No label names a client.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_proto::OrgName;
use tokio::net::TcpListener;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// By org.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfOrg {
    /// Its name.
    pub org: String,
}

impl From<&OrgName> for OfOrg {
    fn from(org: &OrgName) -> Self {
        Self {
            org: org.to_string(),
        }
    }
}

/// By reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ForReason {
    /// [`crate::refusal::Refusal::label`].
    pub reason: &'static str,
}

/// By org and way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfOrgEachWay {
    /// Its name.
    pub org: String,
    /// `in` from clients, `out` to them.
    pub way: &'static str,
}

/// By public end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ToPublicEnd {
    /// Where it is.
    pub to: String,
}

/// What a public end counts.
#[derive(Debug, Clone, Default)]
pub struct PublicMetrics {
    /// Connections that are passed on now.
    pub connections: Family<OfOrg, Gauge>,
    /// Connections that were passed on.
    pub accepted: Family<OfOrg, Counter>,
    /// Connections that were refused.
    pub refused: Family<ForReason, Counter>,
    /// Connections that ended otherwise than by both their ends.
    pub broken: Counter,
    /// Bytes that passed.
    pub bytes: Family<OfOrgEachWay, Counter>,
    /// Links now.
    pub links: Family<OfOrg, Gauge>,
    /// Dialers that were refused.
    pub dialers_refused: Counter,
    /// Connections of which no whole ClientHello has come.
    pub waiting: Gauge,
}

/// What a dialer counts.
#[derive(Debug, Clone, Default)]
pub struct DialerMetrics {
    /// Links now.
    pub links: Family<ToPublicEnd, Gauge>,
    /// Attempts to make one that failed, and links that broke.
    pub links_lost: Family<ToPublicEnd, Counter>,
    /// Connections that are passed on now.
    pub connections: Gauge,
    /// Connections that could not be passed on.
    pub failed: Counter,
}

impl PublicMetrics {
    /// All of them.
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("sotto_tunnel");
        all.register(
            "connections",
            "Connections that are passed on now.",
            self.connections.clone(),
        );
        all.register(
            "accepted",
            "Connections that were passed on.",
            self.accepted.clone(),
        );
        all.register(
            "refused",
            "Connections that were refused, by reason.",
            self.refused.clone(),
        );
        all.register("broken", "Connections that broke off.", self.broken.clone());
        all.register(
            "bytes",
            "Bytes that passed, in from clients and out to them.",
            self.bytes.clone(),
        );
        all.register("links", "Links of dialers now.", self.links.clone());
        all.register(
            "dialers_refused",
            "Dialers that were refused.",
            self.dialers_refused.clone(),
        );
        all.register(
            "waiting",
            "Connections of which no whole ClientHello has come.",
            self.waiting.clone(),
        );
        all
    }
}

impl DialerMetrics {
    /// All of them.
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("sotto_tunnel_dialer");
        all.register("links", "Links to public ends now.", self.links.clone());
        all.register(
            "links_lost",
            "Links that broke or could not be made.",
            self.links_lost.clone(),
        );
        all.register(
            "connections",
            "Connections that are passed on now.",
            self.connections.clone(),
        );
        all.register(
            "failed",
            "Connections that could not be passed on.",
            self.failed.clone(),
        );
        all
    }
}

/// Answers `GET /metrics` and `GET /healthz` until it is dropped; without an
/// address, nowhere. `health` says what is wrong, if something is.
///
/// # Errors
/// When the address is taken.
pub async fn show(
    listen: Option<SocketAddr>,
    metrics: Registry,
    health: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let listener = match listen {
        None => None,
        Some(listen) => {
            let listener = TcpListener::bind(listen).await;
            let taken = || format!("metrics cannot be shown on {listen}: choose another --monitor");
            Some(listener.with_context(taken)?)
        }
    };
    let metrics = Arc::new(metrics);
    let page = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            let mut text = String::new();
            match encode(&mut text, &metrics) {
                Ok(()) => Ok(([(CONTENT_TYPE, OPEN_METRICS)], text)),
                Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    };
    let healthz = move || {
        let health = health();
        async move {
            match health {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(problem) => (StatusCode::SERVICE_UNAVAILABLE, problem + "\n"),
            }
        }
    };
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(healthz));
    Ok(async move {
        match listener {
            Some(listener) => Ok(axum::serve(listener, router).await?),
            None => std::future::pending().await,
        }
    })
}
