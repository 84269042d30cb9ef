//! nats-server as it reports itself, against the settings without which an
//! acknowledged message could be lost (the relay refuses to serve without them,
//! too, but only whoever reads its log knows why).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future;
use sotto_service::ServerConfig;
use sotto_service::nats::demands::{OLDEST, Unmet, Varz};
use sotto_service::nats::jetstream::{self, Jsz};

use super::{accounts, clock, peers, streams};
use crate::finding::{Check, Finding};
use crate::server::{Server, without_settings};
use crate::system::{Reply, System};

/// Asks the servers about everything that only they know: themselves, their
/// streams, the accounts and the time.
pub(crate) async fn check(server: Arc<Server>) -> Vec<Finding> {
    let Some(settings) = &server.settings else {
        let checks = [Check::Nats, Check::Accounts, Check::Clock];
        return checks.into_iter().flat_map(without_settings).collect();
    };
    let runs = server.programs.nats.is_some();
    if !runs && server.others().next().is_none() {
        let advice = "start the server and run this again";
        return unasked(
            Finding::not_checked(Check::Nats, "nats-server does not run", advice),
            advice,
        );
    }
    let nodes = server.cluster.as_ref();
    let servers = nodes.map_or(1, |cluster| cluster.members.nodes.len());
    match Box::pin(System::connect(&server.layout, settings, servers)).await {
        Ok(system) => {
            let asking = Box::pin(ask(&server, settings, &system));
            let findings = asking.await;
            // It goes with the program in any case.
            let _ = system.client().drain().await;
            findings
        }
        Err(error) => {
            let advice = "read the end of nats/nats.log in the server's directory, and see what the other findings say about certificates and ports";
            let what = match runs {
                true => format!("nats-server runs, but cannot be asked: {error}"),
                false => format!("no nats-server of any node can be asked: {error}"),
            };
            unasked(Finding::problem(Check::Nats, what, advice), advice)
        }
    }
}

/// What is not known because no server can be asked.
fn unasked(why: Finding, advice: &str) -> Vec<Finding> {
    let because = "no nats-server can be asked";
    vec![
        why,
        Finding::not_checked(Check::Accounts, because, advice),
        clock::alone(because),
    ]
}

async fn ask(server: &Server, settings: &ServerConfig, system: &System) -> Vec<Finding> {
    let (varz, jsz, accounts) = future::join3(
        Box::pin(system.ask::<Varz>("VARZ", "{}")),
        Box::pin(system.ask::<Jsz>("JSZ", jetstream::QUESTION)),
        Box::pin(accounts::check(server, system)),
    )
    .await;
    let unanswered = |error: &dyn std::fmt::Display| {
        Finding::problem(
            Check::Nats,
            format!("nats-server runs, but {error}"),
            "read the end of nats/nats.log in the server's directory",
        )
    };
    let mut findings = accounts;
    match varz {
        Ok(replies) => {
            for reply in &replies {
                let name = &reply.server.name;
                let own = own_store(server, name);
                findings.extend(judge(
                    name,
                    &reply.data,
                    own.as_deref(),
                    server.cluster.is_some(),
                ));
            }
            findings.extend(clock::judge_all(&others(server, &replies)));
        }
        Err(error) => findings.extend([
            unanswered(&error),
            clock::alone("no nats-server says what time it is"),
        ]),
    }
    match jsz {
        Ok(replies) => {
            if let Some(cluster) = &server.cluster {
                let members = cluster.members.nodes.iter();
                let members: Vec<&str> = members.map(|node| node.name.as_str()).collect();
                findings.extend(peers::judge(&members, peers::group(&replies).as_ref()));
            }
            findings.extend(streams::check(server, settings, replies));
        }
        Err(error) => findings.push(unanswered(&error)),
    }
    findings
}

/// Where the streams of a server should be, if it is the one of this machine.
fn own_store(server: &Server, name: &str) -> Option<PathBuf> {
    let is_own = match &server.cluster {
        Some(cluster) => cluster.node.name.as_str() == name,
        None => true,
    };
    is_own.then(|| server.layout.jetstream())
}

/// What the servers of other machines say about the time.
fn others(server: &Server, replies: &[Reply<Varz>]) -> Vec<clock::Reading> {
    let mut others = Vec::new();
    for reply in replies {
        if own_store(server, &reply.server.name).is_none() {
            let name = reply.server.name.clone();
            let time = reply.server.time;
            others
                .extend(time.map(|time| clock::Reading::of(name, reply.asked, time, reply.heard)));
        }
    }
    others
}

fn judge(name: &str, varz: &Varz, own_store: Option<&Path>, is_node: bool) -> Vec<Finding> {
    let unmet = varz.unmet(own_store, is_node);
    if unmet.is_empty() {
        let version = varz.version();
        let what = format!(
            "nats-server {version} ({name}) keeps to the settings: JetStream is on, every write is synced, TLS and credentials are demanded"
        );
        return vec![Finding::ok(Check::Nats, what)];
    }
    let findings = unmet.into_iter().map(|unmet| {
        let advice = match unmet {
            Unmet::Version(_) => {
                let (major, minor) = OLDEST;
                format!("update sotto-relay, or have it run nats-server {major}.{minor} or newer, and start it again")
            }
            Unmet::Setting(_) => "stop the server and start it again: sotto-relay writes nats.conf anew; something else than sotto-relay has started this nats-server if that does not help".to_owned(),
        };
        let what = format!("nats-server ({name}) reports {unmet}");
        Finding::problem(Check::Nats, what, advice)
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sotto_service::nats::demands::{MAX_CONTROL_LINE, MAX_PAYLOAD};

    use super::*;
    use crate::finding::Level;

    #[test]
    fn what_is_not_met_is_named_with_what_to_do() {
        let judged = |varz: Value| {
            let varz = serde_json::from_value(varz).unwrap();
            judge("n1", &varz, Some(Path::new("/d/nats/jetstream")), false)
        };
        let mut varz = json!({
            "version": "2.15.1", "max_payload": MAX_PAYLOAD, "max_control_line": MAX_CONTROL_LINE,
            "auth_required": true, "tls_required": true,
            "jetstream": {"config": {"store_dir": "/d/nats/jetstream/jetstream", "sync_always": true}},
        });
        assert_eq!(judged(varz.clone())[0].level, Level::Ok);
        varz["version"] = json!("2.13.0");
        varz["tls_required"] = json!(false);
        let [old, open] = &judged(varz)[..] else {
            panic!("two demands are not met")
        };
        assert_eq!((old.level, open.level), (Level::Problem, Level::Problem));
        assert!(old.advice.as_ref().unwrap().contains("2.14 or newer"));
        assert!(open.what.contains("need no TLS"), "{}", open.what);
    }
}
