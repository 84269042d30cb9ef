//! All metrics of a gateway. What it serves comes when it has started.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_service::watch::{Figures, OfOrg, is_connected};

use super::counters::Metrics;
use crate::gateway::Gateway;

/// What every name begins with.
const PREFIX: &str = "sotto_gateway";

/// All metrics of a gateway.
pub struct GatewayFigures {
    counted: Registry,
    gateway: OnceLock<Arc<Gateway>>,
}

impl GatewayFigures {
    /// Of one that does not serve yet.
    pub fn new(metrics: &Metrics) -> Self {
        let mut counted = Registry::with_prefix(PREFIX);
        metrics.register(&mut counted);
        Self {
            counted,
            gateway: OnceLock::new(),
        }
    }

    /// This is it.
    pub fn serve(&self, gateway: Arc<Gateway>) {
        self.gateway.get_or_init(|| gateway);
    }
}

impl Figures for GatewayFigures {
    fn registry(&self) -> &Registry {
        &self.counted
    }

    async fn read(&self) -> Registry {
        let mut read = Registry::with_prefix(PREFIX);
        if let Some(gateway) = self.gateway.get() {
            register_orgs(gateway, &mut read);
        }
        read
    }
}

fn register_orgs(gateway: &Gateway, all: &mut Registry) {
    let connected: Family<OfOrg, Gauge> = Family::default();
    let connects: Family<OfOrg, Counter> = Family::default();
    let entries: Family<OfOrg, Gauge> = Family::default();
    for org in gateway.orgs() {
        let label = OfOrg::from(org.name());
        let is_there = is_connected(org.client());
        connected.get_or_create(&label).set(is_there.into());
        let made = org.client().statistics().connects.load(Ordering::Relaxed);
        connects.get_or_create(&label).inc_by(made);
        let length = org.directory().log().state();
        let length = length.map(|state| i64::try_from(state.head().length));
        if let Ok(Ok(length)) = length {
            entries.get_or_create(&label).set(length);
        }
    }
    all.register(
        "nats_connected",
        "Whether the connection to NATS in an org's account is there",
        connected,
    );
    all.register("nats_connects", "Times that it was made", connects);
    all.register(
        "directory_entries",
        "Entries of an org's directory that this gateway knows",
        entries,
    );
}
