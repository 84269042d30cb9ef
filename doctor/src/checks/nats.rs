//! nats-server as it reports itself, against the settings without which an
//! acknowledged message could be lost (the relay refuses to serve without them,
//! too, but only whoever reads its log knows why).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future;
use serde::Deserialize;
use sotto_service::ServerConfig;

use super::streams::{self, Jsz};
use super::{accounts, clock, peers};
use crate::finding::{Check, Finding};
use crate::server::{Server, without_settings};
use crate::system::{Reply, System};

/// The oldest version that has all that Sotto uses of it.
const OLDEST: (u32, u32) = (2, 14);
const JSZ_QUESTION: &str = r#"{"accounts":true,"streams":true,"config":true}"#;

/// The part of nats-server's `VARZ` that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Varz {
    version: String,
    auth_required: bool,
    tls_required: bool,
    cluster: Routes,
    jetstream: Jetstream,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Routes {
    name: String,
    tls_required: bool,
    tls_verify: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Jetstream {
    config: Option<JetstreamConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JetstreamConfig {
    store_dir: PathBuf,
    sync_always: bool,
}

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
        Box::pin(system.ask::<Jsz>("JSZ", JSZ_QUESTION)),
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
    let mut unmet = Vec::new();
    if !is_new_enough(&varz.version) {
        let (major, minor) = OLDEST;
        unmet.push((
            format!("is version {}, which is too old", varz.version),
            format!("update sotto-relay, or have it run nats-server {major}.{minor} or newer, and start it again"),
        ));
    }
    let mut demand = |holds: bool, otherwise: &str| {
        if !holds {
            let advice = "stop the server and start it again: sotto-relay writes nats.conf anew; something else than sotto-relay has started this nats-server if that does not help";
            unmet.push((otherwise.to_owned(), advice.to_owned()));
        }
    };
    let jetstream = varz.jetstream.config.as_ref();
    demand(
        jetstream.is_some(),
        "has JetStream off, so that it keeps nothing",
    );
    if let Some(jetstream) = jetstream {
        demand(
            jetstream.sync_always,
            "has a sync_interval other than `always`, so that a power cut could lose acknowledged messages",
        );
        demand(
            own_store.is_none_or(|store| jetstream.store_dir.starts_with(store)),
            "keeps its streams somewhere else than in the server's directory",
        );
    }
    demand(varz.auth_required, "lets anyone connect");
    demand(varz.tls_required, "takes connections without TLS");
    let routes = &varz.cluster;
    if is_node {
        demand(!routes.name.is_empty(), "is no node of a cluster");
        demand(
            routes.tls_required && routes.tls_verify,
            "takes routes without a certificate, so that any server could be a node",
        );
    } else {
        demand(routes.name.is_empty(), "takes routes of other servers");
    }
    if unmet.is_empty() {
        let version = &varz.version;
        let what = format!(
            "nats-server {version} ({name}) keeps to the settings: JetStream is on, every write is synced, TLS and credentials are demanded"
        );
        return vec![Finding::ok(Check::Nats, what)];
    }
    let findings = unmet.into_iter().map(|(what, advice)| {
        let what = format!("nats-server ({name}) {what}");
        Finding::problem(Check::Nats, what, advice)
    });
    findings.collect()
}

/// Whether a version like `2.15.1` is one that can be used.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::finding::Level;

    fn good() -> Value {
        json!({
            "version": "2.15.1", "auth_required": true, "tls_required": true,
            "jetstream": {"config": {"store_dir": "/d/nats/jetstream/jetstream", "sync_always": true}},
        })
    }

    fn judged(varz: Value, is_node: bool) -> Vec<Finding> {
        let varz = serde_json::from_value(varz).unwrap();
        judge("n1", &varz, Some(Path::new("/d/nats/jetstream")), is_node)
    }

    #[test]
    fn a_server_as_configured_is_fine() {
        assert_eq!(judged(good(), false)[0].level, Level::Ok);
        let mut node = good();
        node["cluster"] = json!({"name": "sotto", "tls_required": true, "tls_verify": true});
        assert_eq!(judged(node.clone(), true)[0].level, Level::Ok);
        assert_eq!(judged(node, false)[0].level, Level::Problem);
    }

    #[test]
    fn each_demand_that_is_not_met_is_named() {
        let cases = [
            ("/version", json!("2.13.0"), "too old"),
            ("/jetstream", json!({}), "JetStream off"),
            (
                "/jetstream/config/sync_always",
                json!(false),
                "sync_interval",
            ),
            (
                "/jetstream/config/store_dir",
                json!("/tmp/nats"),
                "somewhere else",
            ),
            ("/auth_required", json!(false), "anyone"),
            ("/tls_required", json!(false), "without TLS"),
        ];
        for (pointer, value, word) in cases {
            let mut varz = good();
            *varz.pointer_mut(pointer).unwrap() = value;
            let [finding] = &judged(varz, false)[..] else {
                panic!("{pointer}")
            };
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.what.contains(word), "{pointer}: {}", finding.what);
            assert!(finding.advice.is_some());
        }
        let mut open = good();
        open["cluster"] = json!({"name": "sotto", "tls_required": true});
        assert!(judged(open, true)[0].what.contains("certificate"));
    }

    #[test]
    fn where_another_machine_keeps_its_streams_is_its_own_business() {
        let varz = serde_json::from_value(good()).unwrap();
        assert_eq!(judge("n2", &varz, None, false)[0].level, Level::Ok);
    }
}
