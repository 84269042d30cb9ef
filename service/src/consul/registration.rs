//! A program's place in Consul's list, and its check there: passing while the
//! program serves, critical with the reasons while it does not.
//!
//! The agent is told every few seconds, and sooner when it is otherwise; when
//! it is not told any more, it says critical by itself. An agent that has
//! forgotten the program is told everything anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::error::ConsulError;
use super::{PAUSE_MAX, PAUSES};
use crate::handover::{Part, Phase};
use crate::watch::Readiness;

/// Under which a node says where it lets others in.
pub const ADMISSION: &str = "admission";

/// How often the program is asked whether it serves.
const LOOK: Duration = Duration::from_secs(1);
/// How often Consul is told, when nothing is new.
const TELL: Duration = Duration::from_secs(5);
/// After which Consul says critical by itself.
const TTL: &str = "30s";
/// After which it forgets a program that does not come back.
const FORGET: &str = "72h";

/// A program as others find it.
#[derive(Debug, Clone)]
pub struct Service {
    /// What all of its kind are called.
    pub name: &'static str,
    /// Host name or address by which people reach it.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What else is to be known: names of servers and nodes, addresses.
    pub meta: BTreeMap<&'static str, String>,
}

impl Service {
    /// The same at each start, and another one for everything else on the
    /// same machine.
    pub(super) fn id(&self) -> String {
        format!("{}-{}-{}", self.name, self.host, self.port)
    }

    fn check(&self) -> String {
        format!("{}-serves", self.id())
    }

    pub(super) fn registration(&self, serves: bool) -> Value {
        json!({
            "ID": self.id(),
            "Name": self.name,
            "Address": self.host,
            "Port": self.port,
            "Meta": self.meta,
            "Check": {
                "CheckID": self.check(),
                "Name": format!("whether {} serves", self.name),
                "TTL": TTL,
                "Status": if serves { "passing" } else { "critical" },
                "DeregisterCriticalServiceAfter": FORGET,
            },
        })
    }
}

/// Keeps the program registered until `stop`, and takes it out then, unless it
/// has handed over. A successor says nothing before it serves.
pub(super) async fn keep(
    client: Arc<Client>,
    service: Service,
    readiness: Readiness,
    handover: Part,
    stop: CancellationToken,
) {
    let (id, leaving) = (service.id(), Arc::clone(&client));
    let keeper = Keeper {
        check: service.check(),
        client,
        service,
        readiness,
        registered: false,
        lost: false,
        pauses: PAUSES.build(),
    };
    let keeping = async {
        while handover.is_successor() && !keeper.readiness.reasons().is_empty() {
            sleep(LOOK).await;
        }
        keeper.run().await;
    };
    stop.run_until_cancelled(keeping).await;
    if handover.phase() == Phase::HandedOver {
        return;
    }
    if let Err(error) = leaving.deregister(&id).await {
        sotto_log::debug!(error, "this program was not taken out of Consul");
    }
}

struct Keeper {
    client: Arc<Client>,
    service: Service,
    check: String,
    readiness: Readiness,
    registered: bool,
    /// Whether the log says that Consul is of no use.
    lost: bool,
    pauses: ExponentialBackoff,
}

impl Keeper {
    async fn run(mut self) {
        let mut told: Option<(Instant, Vec<String>)> = None;
        loop {
            let reasons = self.readiness.reasons();
            let is_new =
                |(at, known): &(Instant, Vec<String>)| at.elapsed() >= TELL || *known != reasons;
            if !told.as_ref().is_none_or(is_new) {
                sleep(LOOK).await;
                continue;
            }
            match self.tell(&reasons).await {
                Ok(()) => {
                    told = Some((Instant::now(), reasons));
                    self.pauses = PAUSES.build();
                    if std::mem::take(&mut self.lost) {
                        sotto_log::info!("Consul knows this program again");
                    }
                    sleep(LOOK).await;
                }
                Err(error) => {
                    // Whatever it is, Consul may not know the program any more.
                    (told, self.registered) = (None, false);
                    if !std::mem::replace(&mut self.lost, true) {
                        sotto_log::warn!(
                            error,
                            "Consul does not list this program, which goes on without"
                        );
                    }
                    sleep(self.pauses.next().unwrap_or(PAUSE_MAX)).await;
                }
            }
        }
    }

    async fn tell(&mut self, reasons: &[String]) -> Result<(), ConsulError> {
        if !self.registered {
            self.client
                .register(&self.service, reasons.is_empty())
                .await?;
            self.registered = true;
        }
        self.client.update(&self.check, reasons).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_says_where_and_how_it_is_checked() {
        let service = Service {
            name: "sotto-relay",
            host: "chat.example".to_owned(),
            port: 4222,
            meta: [(ADMISSION, "10.0.0.1:6223".to_owned())].into(),
        };
        let said = service.registration(false);
        assert_eq!(said["ID"], "sotto-relay-chat.example-4222");
        assert_eq!(said["Address"], "chat.example");
        assert_eq!(said["Port"], 4222);
        assert_eq!(said["Meta"]["admission"], "10.0.0.1:6223");
        assert_eq!(said["Check"]["Status"], "critical");
        assert_eq!(said["Check"]["CheckID"], service.check());
        assert_eq!(service.registration(true)["Check"]["Status"], "passing");
    }
}
