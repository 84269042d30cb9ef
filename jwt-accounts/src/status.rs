//! Which version of an account each server of a cluster has in force.

use std::time::Duration;

use async_nats::Client;
use data_encoding::HEXLOWER;
use futures::StreamExt;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::claims::{Account, Claims};
use crate::push::PushError;

/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(500);
/// Servers that are listened to at most.
const SERVERS: usize = 1_000;

/// What one server has in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAccount {
    /// The server's name.
    pub server: String,
    /// Its id, which it draws at each start.
    pub server_id: String,
    /// The version; nothing when the server has had no use for the account yet
    /// and will read it from its resolver.
    pub version: Option<AccountVersion>,
}

/// A version of an account's JWT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountVersion {
    /// When it was signed, in seconds since 1970.
    pub issued_s: i64,
    /// The first 16 hexadecimal digits of its SHA-256.
    pub hash: String,
}

impl HeldAccount {
    /// Whether just this JWT is in force there.
    pub fn is(&self, jwt: &str) -> bool {
        self.version.is_some() && self.version == AccountVersion::of(jwt)
    }
}

impl AccountVersion {
    /// The version of a JWT; nothing when it is no account's.
    pub fn of(jwt: &str) -> Option<Self> {
        let issued_s = Claims::<Account>::verify(jwt).ok()?.issued_s;
        let mut hash = HEXLOWER.encode(&Sha256::digest(jwt));
        hash.truncate(16);
        Some(Self { issued_s, hash })
    }
}

/// Asks every server of the cluster that `system`, a client of the system
/// account, is connected to what it has in force of an account; by name.
///
/// # Errors
/// [`PushError::NoAnswer`].
pub async fn held_accounts(system: &Client, account: &str) -> Result<Vec<HeldAccount>, PushError> {
    let no_answer = |error: &dyn std::fmt::Display| PushError::NoAnswer(error.to_string());
    let inbox = system.new_inbox();
    let answers = system.subscribe(inbox.clone()).await;
    let mut answers = answers.map_err(|error| no_answer(&error))?;
    let question = serde_json::json!({ "account": account }).to_string();
    system
        .publish_with_reply("$SYS.REQ.SERVER.PING.ACCOUNTZ", inbox, question.into())
        .await
        .map_err(|error| no_answer(&error))?;
    let mut held = Vec::new();
    while held.len() < SERVERS {
        match tokio::time::timeout(QUIET, answers.next()).await {
            Ok(Some(answer)) => held.extend(read(&answer.payload)),
            Ok(None) | Err(_) => break,
        }
    }
    if held.is_empty() {
        return Err(PushError::NoAnswer("no server answers".to_owned()));
    }
    held.sort_by(|one, other| one.server.cmp(&other.server));
    Ok(held)
}

fn read(answer: &[u8]) -> Option<HeldAccount> {
    let Answer { server, data } = serde_json::from_slice(answer).ok()?;
    let jwt = data.and_then(|data| data.account_detail?.jwt);
    Some(HeldAccount {
        server: server.name,
        server_id: server.id,
        version: jwt.and_then(|jwt| AccountVersion::of(&jwt)),
    })
}

#[derive(Deserialize)]
struct Answer {
    server: Server,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Server {
    name: String,
    id: String,
}

#[derive(Deserialize)]
struct Data {
    account_detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    jwt: Option<String>,
}
