//! Which keys of the operator each server of a cluster trusts.

use async_nats::Client;
use serde::Deserialize;

use super::ask::every_server;
use crate::claims::{Claims, Operator};
use crate::push::PushError;

/// Where every server says how it is configured.
pub(crate) const ASK_SERVERS: &str = "$SYS.REQ.SERVER.PING.VARZ";

/// Whom one server trusts, since it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The server's name.
    pub server: String,
    /// The operator's JWTs that it was started with: one, as we configure it.
    pub operators: Vec<String>,
}

impl Trust {
    /// Whether the server was started with just this JWT.
    pub fn is(&self, jwt: &str) -> bool {
        self.operators == [jwt]
    }

    /// Whether the server believes accounts that this key of the operator signs.
    pub fn has(&self, key: &str) -> bool {
        let operators = self.operators.iter();
        let operators = operators.filter_map(|jwt| Claims::<Operator>::verify(jwt).ok());
        let mut keys = operators.flat_map(|operator| operator.claims.nats.signing_keys);
        keys.any(|trusted| trusted == key)
    }
}

/// Asks every server of the cluster that `system`, a client of the system
/// account, is connected to whom it trusts; by name.
///
/// # Errors
/// [`PushError::NoAnswer`].
pub async fn trusted_operators(system: &Client) -> Result<Vec<Trust>, PushError> {
    let answers = every_server::<Varz>(system, ASK_SERVERS, serde_json::json!({})).await?;
    let trust = answers.into_iter().map(|answer| Trust {
        server: answer.server.name,
        operators: answer.data.unwrap_or_default().trusted_operators_jwt,
    });
    Ok(trust.collect())
}

#[derive(Default, Deserialize)]
struct Varz {
    #[serde(default)]
    trusted_operators_jwt: Vec<String>,
}
