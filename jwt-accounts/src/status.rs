//! What each server of a cluster has in force: which version of an account, and
//! whom it trusts and lets in.

mod ask;
mod connections;
mod operator;

use async_nats::Client;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use connections::{OldConnections, connections_by};
pub use operator::{Trust, trusted_operators};

use crate::claims::{Account, Claims};
use crate::push::PushError;
use ask::every_server;

/// Where every server of a cluster says what it has of an account.
pub(crate) const ASK_ACCOUNTS: &str = "$SYS.REQ.SERVER.PING.ACCOUNTZ";

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
    /// The JWT itself.
    pub jwt: Option<String>,
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
        let hash = Self::hash_of(jwt);
        Some(Self { issued_s, hash })
    }

    /// What tells a JWT from others.
    pub fn hash_of(jwt: &str) -> String {
        let mut hash = HEXLOWER.encode(&Sha256::digest(jwt));
        hash.truncate(16);
        hash
    }
}

/// Asks every server of the cluster that `system`, a client of the system
/// account, is connected to what it has in force of an account; by name.
///
/// # Errors
/// [`PushError::NoAnswer`].
pub async fn held_accounts(system: &Client, account: &str) -> Result<Vec<HeldAccount>, PushError> {
    let question = serde_json::json!({ "account": account });
    let answers = every_server::<Data>(system, ASK_ACCOUNTS, question).await?;
    let held = answers.into_iter().map(|answer| {
        let jwt = answer.data.and_then(|data| data.account_detail?.jwt);
        HeldAccount {
            server: answer.server.name,
            server_id: answer.server.id,
            version: jwt.as_deref().and_then(AccountVersion::of),
            jwt,
        }
    });
    Ok(held.collect())
}

#[derive(Deserialize)]
struct Data {
    account_detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    jwt: Option<String>,
}
