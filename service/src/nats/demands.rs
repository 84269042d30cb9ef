//! What nats-server must report about itself before it is relied on. Jepsen's
//! analysis of JetStream showed what happens otherwise: acknowledged messages
//! were lost with the operating system's cache.
//!
//! The relay serves with no server that leaves one of these unmet, and the
//! doctor names each that is.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The oldest version that has all that we use of it.
pub const OLDEST: (u32, u32) = (2, 14);
/// Bytes of a message that nats-server takes at most.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Bytes of a protocol line. A device's JWT with one grant per room travels in
/// one, and over the limit the server just hangs up.
pub const MAX_CONTROL_LINE: usize = 1024 * 1024;

/// The part of nats-server's `VARZ` that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Varz {
    version: String,
    max_payload: usize,
    max_control_line: usize,
    auth_required: bool,
    tls_required: bool,
    cluster: Routes,
    jetstream: Jetstream,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Routes {
    /// Empty on a server that takes no routes.
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
    max_storage: u64,
}

/// A demand that is not met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// Another program is needed.
    #[error("version {0}, which is too old")]
    Version(String),
    /// Another configuration is.
    #[error("{0}")]
    Setting(&'static str),
}

impl Varz {
    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the streams may take, in bytes.
    pub fn storage(&self) -> Option<u64> {
        let config = self.jetstream.config.as_ref()?;
        Some(config.max_storage).filter(|storage| *storage > 0)
    }

    /// Every demand that this server leaves unmet, in words that follow "it
    /// reports". Where the streams should be is known of this machine's own.
    pub fn unmet(&self, store: Option<&Path>, is_node: bool) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        if !is_new_enough(&self.version) {
            unmet.push(Unmet::Version(self.version.clone()));
        }
        let mut demand = |met: bool, otherwise: &'static str| {
            if !met {
                unmet.push(Unmet::Setting(otherwise));
            }
        };
        let jetstream = self.jetstream.config.as_ref();
        demand(
            jetstream.is_some(),
            "that JetStream is off, so that nothing would be kept",
        );
        if let Some(jetstream) = jetstream {
            demand(
                jetstream.sync_always,
                "a sync_interval other than `always`, so that a power cut could lose acknowledged messages",
            );
            demand(
                store.is_none_or(|store| jetstream.store_dir.starts_with(store)),
                "another store_dir than the one in the server's directory",
            );
        }
        demand(self.auth_required, "that anyone may connect");
        demand(self.tls_required, "that connections need no TLS");
        let routes = &self.cluster;
        if is_node {
            demand(!routes.name.is_empty(), "that it is no node of a cluster");
            demand(
                routes.tls_required && routes.tls_verify,
                "routes that need no certificate, so that any server could be a node",
            );
        } else {
            demand(
                routes.name.is_empty(),
                "that it takes routes of other servers",
            );
        }
        demand(
            self.max_payload >= MAX_PAYLOAD && self.max_control_line >= MAX_CONTROL_LINE,
            "a smaller max_payload or max_control_line",
        );
        unmet
    }
}

/// Whether a version like `2.15.1` is one that we can use.
pub fn is_new_enough(version: &str) -> bool {
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

    const STORE: &str = "/d/nats/jetstream";

    fn good() -> Value {
        json!({
            "version": "2.15.1", "max_payload": MAX_PAYLOAD, "max_control_line": MAX_CONTROL_LINE,
            "auth_required": true, "tls_required": true,
            "jetstream": {"config": {"store_dir": "/d/nats/jetstream/jetstream", "sync_always": true}},
        })
    }

    fn unmet(varz: Value, is_node: bool) -> Vec<String> {
        let varz: Varz = serde_json::from_value(varz).unwrap();
        let unmet = varz.unmet(Some(Path::new(STORE)), is_node);
        unmet.iter().map(Unmet::to_string).collect()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for new in ["2.14.0", "2.15.1", "2.100.0", "3.0.0", "2.15.0-RC.1"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["2.9.10", "2.13.99", "1.99.0", "", "2", "dev", "2.x"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }

    #[test]
    fn a_server_as_configured_leaves_nothing_unmet() {
        assert!(unmet(good(), false).is_empty());
    }

    #[test]
    fn a_node_takes_routes_by_certificate_only_and_others_take_none() {
        let with = |routes: Value, is_node| {
            let mut varz = good();
            varz["cluster"] = routes;
            unmet(varz, is_node)
        };
        let secure = json!({"name": "sotto", "tls_required": true, "tls_verify": true});
        assert!(with(secure.clone(), true).is_empty());
        assert_eq!(with(secure, false).len(), 1);
        assert!(!with(json!({}), true).is_empty());
        for open in [
            json!({"name": "sotto", "tls_required": true}),
            json!({"name": "sotto", "tls_verify": true}),
        ] {
            let [unmet] = &with(open, true)[..] else {
                panic!("one demand is not met")
            };
            assert!(unmet.contains("certificate"), "{unmet}");
        }
    }

    #[test]
    fn each_demand_alone_is_named() {
        let cases = [
            ("/version", json!("2.13.0"), "too old"),
            ("/jetstream", json!({}), "JetStream is off"),
            (
                "/jetstream/config/sync_always",
                json!(false),
                "sync_interval",
            ),
            (
                "/jetstream/config/store_dir",
                json!("/tmp/nats"),
                "store_dir",
            ),
            ("/auth_required", json!(false), "anyone"),
            ("/tls_required", json!(false), "TLS"),
            ("/max_control_line", json!(4096), "max_control_line"),
            ("/max_payload", json!(1), "max_payload"),
        ];
        for (pointer, value, word) in cases {
            let mut varz = good();
            *varz.pointer_mut(pointer).unwrap() = value;
            let [unmet] = &unmet(varz, false)[..] else {
                panic!("{pointer}")
            };
            assert!(unmet.contains(word), "{pointer}: {unmet}");
        }
    }

    #[test]
    fn where_another_machine_keeps_its_streams_is_its_own_business() {
        let varz: Varz = serde_json::from_value(good()).unwrap();
        assert!(varz.unmet(None, false).is_empty());
    }

    #[test]
    fn what_is_not_reported_is_not_met() {
        assert!(!unmet(json!({"version": "2.15.1"}), false).is_empty());
        let empty = json!({"version": "2.15.1", "jetstream": {"config": {}}});
        assert!(!unmet(empty, false).is_empty());
    }
}
