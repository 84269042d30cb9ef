//! What nats-server must report about itself before the relay serves.
//! Jepsen's analysis of JetStream showed what happens otherwise: acknowledged
//! messages were lost with the operating system's cache.

use std::path::Path;

use serde::Deserialize;

use super::binary::is_new_enough;
use super::config::{MAX_CONTROL_LINE, MAX_PAYLOAD};

/// The part of nats-server's `VARZ` that is looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Varz {
    version: String,
    #[serde(default)]
    max_payload: usize,
    #[serde(default)]
    max_control_line: usize,
    #[serde(default)]
    auth_required: bool,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    cluster: Routes,
    #[serde(default)]
    jetstream: Jetstream,
}

#[derive(Debug, Default, Deserialize)]
struct Routes {
    /// Empty on a server that takes no routes.
    #[serde(default)]
    name: String,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    tls_verify: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Jetstream {
    config: Option<JetstreamConfig>,
}

#[derive(Debug, Deserialize)]
struct JetstreamConfig {
    #[serde(default)]
    store_dir: String,
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    max_storage: u64,
}

impl Varz {
    /// What the streams may take, in bytes.
    pub(super) fn storage(&self) -> Option<u64> {
        let config = self.jetstream.config.as_ref()?;
        Some(config.max_storage).filter(|storage| *storage > 0)
    }
}

/// Which demand is not met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nats-server reports {0}: nothing is served until it reports what nats.conf says")]
pub struct Unmet(String);

/// Whether the server is as `nats.conf` says.
///
/// # Errors
/// The first demand that is not met.
pub(super) fn check(varz: &Varz, store: &Path, is_node: bool) -> Result<(), Unmet> {
    let unmet = |what: &str| Err(Unmet(what.to_owned()));
    if !is_new_enough(&varz.version) {
        return Err(Unmet(format!("version {}, which is too old", varz.version)));
    }
    let Some(jetstream) = &varz.jetstream.config else {
        return unmet("that JetStream is off, so that nothing would be kept");
    };
    if !jetstream.sync_always {
        return unmet(
            "a sync_interval other than `always`, so that a power cut could lose acknowledged messages",
        );
    }
    if !Path::new(&jetstream.store_dir).starts_with(store) {
        return unmet("another store_dir than the one in the data directory");
    }
    if !varz.auth_required {
        return unmet("that anyone may connect");
    }
    if !varz.tls_required {
        return unmet("that connections need no TLS");
    }
    if is_node && varz.cluster.name.is_empty() {
        return unmet("that it is no node of a cluster");
    }
    if is_node && !(varz.cluster.tls_required && varz.cluster.tls_verify) {
        return unmet("routes that need no certificate, so that any server could be a node");
    }
    if !is_node && !varz.cluster.name.is_empty() {
        return unmet("that it takes routes of other servers");
    }
    if varz.max_payload < MAX_PAYLOAD || varz.max_control_line < MAX_CONTROL_LINE {
        return unmet("a smaller max_payload or max_control_line");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "version": "2.15.1", "max_payload": MAX_PAYLOAD, "max_control_line": MAX_CONTROL_LINE,
            "auth_required": true, "tls_required": true,
            "jetstream": {"config": {"store_dir": "/d/nats/jetstream/jetstream", "sync_always": true}},
        })
    }

    fn check(varz: Value) -> Result<(), Unmet> {
        let varz = serde_json::from_value(varz).unwrap();
        super::check(&varz, Path::new("/d/nats/jetstream"), false)
    }

    #[test]
    fn a_node_takes_routes_by_certificate_only_and_others_take_none() {
        let check = |routes: Value, is_node| {
            let mut varz = good();
            varz["cluster"] = routes;
            let varz = serde_json::from_value(varz).unwrap();
            super::check(&varz, Path::new("/d/nats/jetstream"), is_node)
        };
        let secure = json!({"name": "sotto", "tls_required": true, "tls_verify": true});
        assert_eq!(check(secure.clone(), true), Ok(()));
        assert!(check(secure, false).is_err());
        assert!(check(json!({}), true).is_err());
        for open in [
            json!({"name": "sotto", "tls_required": true}),
            json!({"name": "sotto", "tls_verify": true}),
        ] {
            let error = check(open, true).unwrap_err().to_string();
            assert!(error.contains("certificate"), "{error}");
        }
    }

    #[test]
    fn a_server_as_configured_is_accepted() {
        assert_eq!(check(good()), Ok(()));
    }

    #[test]
    fn each_demand_alone_is_enough_to_refuse() {
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
            let error = check(varz).unwrap_err().to_string();
            assert!(error.contains(word), "{pointer}: {error}");
        }
    }

    #[test]
    fn what_is_not_reported_is_not_met() {
        assert!(check(json!({"version": "2.15.1"})).is_err());
        assert!(check(json!({"version": "2.15.1", "jetstream": {"config": {}}})).is_err());
    }
}
