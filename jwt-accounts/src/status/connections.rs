//! Who is still connected with what an old key signed.

use std::collections::BTreeMap;

use async_nats::Client;
use serde::Deserialize;

use super::ask::every_server;
use crate::push::PushError;

/// Where every server tells of its connections.
const ASK_CONNECTIONS: &str = "$SYS.REQ.SERVER.PING.CONNZ";
/// Connections in one answer: their JWTs are in it, which may be long.
const PAGE: usize = 64;
/// Connections that one server is asked of at most.
const CONNECTIONS: usize = 1 << 20;

/// Connections of one account that old keys let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldConnections {
    /// The server's name.
    pub server: String,
    /// How many, by what the users call themselves: `relay`, `gateway`, or
    /// the name of a client library for devices.
    pub connections: BTreeMap<String, u64>,
}

/// Asks every server of the cluster that `system`, a client of the system
/// account, is connected to who uses an account by JWTs that one of these keys
/// signed; by server, only those where somebody does.
///
/// # Errors
/// [`PushError::NoAnswer`].
pub async fn connections_by(
    system: &Client,
    account: &str,
    keys: &[String],
) -> Result<Vec<OldConnections>, PushError> {
    let mut found: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for offset in (0..CONNECTIONS).step_by(PAGE) {
        let question = serde_json::json!({
            "acc": account, "auth": true, "offset": offset, "limit": PAGE,
        });
        let mut more = false;
        for answer in every_server::<Connz>(system, ASK_CONNECTIONS, question).await? {
            let Connz { total, connections } = answer.data.unwrap_or_default();
            more |= total > offset + PAGE;
            for connection in connections {
                if keys.contains(&connection.issuer_key) {
                    let users = found.entry(answer.server.name.clone()).or_default();
                    *users.entry(connection.name).or_default() += 1;
                }
            }
        }
        if !more {
            break;
        }
    }
    let found = found.into_iter();
    let found = found.map(|(server, connections)| OldConnections {
        server,
        connections,
    });
    Ok(found.collect())
}

#[derive(Default, Deserialize)]
struct Connz {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    connections: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    name: String,
    #[serde(default)]
    issuer_key: String,
}
