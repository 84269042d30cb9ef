//! All metrics of a relay. What they are made of comes while it starts.

use std::sync::{Arc, OnceLock};

use async_nats::Client;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_jwt_accounts::directory::DirectoryLog;
use sotto_proto::OrgName;
use sotto_service::watch::{Figures, OfOrg};

use super::counters::Metrics;
use super::nats;

/// What every name begins with.
const PREFIX: &str = "sotto";

/// All metrics of a relay.
pub struct RelayFigures {
    counted: Registry,
    system: OnceLock<Client>,
    orgs: OnceLock<Vec<(OrgName, Arc<DirectoryLog>)>>,
}

impl RelayFigures {
    /// With nothing to ask yet.
    pub fn new(metrics: &Metrics) -> Self {
        let mut counted = Registry::with_prefix(PREFIX);
        metrics.register(&mut counted);
        Self {
            counted,
            system: OnceLock::new(),
            orgs: OnceLock::new(),
        }
    }

    /// This node's nats-server is asked over this connection from now on.
    pub fn ask(&self, system: Client) {
        self.system.get_or_init(|| system);
    }

    /// These orgs are served from now on.
    pub fn serve(&self, orgs: Vec<(OrgName, Arc<DirectoryLog>)>) {
        self.orgs.get_or_init(|| orgs);
    }
}

impl Figures for RelayFigures {
    fn registry(&self) -> &Registry {
        &self.counted
    }

    async fn read(&self) -> Registry {
        let mut read = Registry::with_prefix(PREFIX);
        register_rooms(self.orgs.get().into_iter().flatten(), &mut read);
        nats::register(self.system.get(), &mut read).await;
        read
    }
}

fn register_rooms<'a>(
    orgs: impl Iterator<Item = &'a (OrgName, Arc<DirectoryLog>)>,
    all: &mut Registry,
) {
    let rooms: Family<OfOrg, Gauge> = Family::default();
    for (org, directory) in orgs {
        let count = directory.state().map(|state| state.rooms().count());
        if let Ok(Ok(count)) = count.map(i64::try_from) {
            rooms.get_or_create(&OfOrg::from(org)).set(count);
        }
    }
    let help = "Rooms of an org that are not deleted";
    all.register("rooms", help, rooms);
}
