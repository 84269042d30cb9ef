//! What is counted, for whoever watches an end (`sotto_service::watch`). No
//! label names a client.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_service::watch::OfOrg;

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
            "Connections that are passed on now",
            self.connections.clone(),
        );
        all.register(
            "accepted",
            "Connections that were passed on",
            self.accepted.clone(),
        );
        all.register(
            "refused",
            "Connections that were refused, by reason",
            self.refused.clone(),
        );
        all.register("broken", "Connections that broke off", self.broken.clone());
        all.register(
            "bytes",
            "Bytes that passed, in from clients and out to them",
            self.bytes.clone(),
        );
        all.register("links", "Links of dialers now", self.links.clone());
        all.register(
            "dialers_refused",
            "Dialers that were refused",
            self.dialers_refused.clone(),
        );
        all.register(
            "waiting",
            "Connections of which no whole ClientHello has come",
            self.waiting.clone(),
        );
        all
    }
}

impl DialerMetrics {
    /// All of them.
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("sotto_tunnel_dialer");
        all.register("links", "Links to public ends now", self.links.clone());
        all.register(
            "links_lost",
            "Links that broke or could not be made",
            self.links_lost.clone(),
        );
        all.register(
            "connections",
            "Connections that are passed on now",
            self.connections.clone(),
        );
        all.register(
            "failed",
            "Connections that could not be passed on",
            self.failed.clone(),
        );
        all
    }
}
