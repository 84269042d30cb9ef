//! Telling nats-server which JWTs are void: those of revoked devices for good,
//! and those of users who may reach less than before until they are renewed.
//!
//! The directory says so first; what follows from it, a key store whose account
//! JWT voids their keys and a server that has this JWT, can be done again at any
//! time and is, at every start and with every change. So what was cut short is
//! completed by whichever gateway comes next.
//!
//! Several gateways may share one key store: the store locks itself, and what
//! was pushed is compared with it afterwards, so that an older JWT that comes
//! late does not stay. Gateways with key stores of their own each void what the
//! directory says, and take over what else the others change (`signing`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sotto_jwt_accounts::claims::{Account, Claims};
use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError};
use sotto_jwt_accounts::{
    AccountVersion, HeldAccount, PushError, held_accounts, policy, push_account,
};
use sotto_proto::OrgName;

use crate::clock::Clock;
use crate::org::Org;

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Puts revocations in force.
pub struct Revocations {
    keys: Arc<KeyStore>,
    system: async_nats::Client,
}

/// What is in force of one account, and what is stored.
pub struct Standing {
    /// Its public key.
    pub id: String,
    /// As it calls itself.
    pub name: String,
    /// The version in the key store.
    pub stored: AccountVersion,
    /// The versions that the servers have, by the servers' names.
    pub held: Vec<HeldAccount>,
}

/// Why a revocation may not be in force.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// The key store.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
    /// nats-server.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The gateway stops.
    #[error("the gateway stopped meanwhile")]
    Stopped,
}

sotto_log::log_safe!(RevocationError);

impl Revocations {
    /// `system` is a client of the system account.
    pub fn new(keys: Arc<KeyStore>, system: async_nats::Client) -> Self {
        Self { keys, system }
    }

    /// Puts in force what the directory takes from devices, at once and as it
    /// changes, until the directory cannot be believed any more; how far it is,
    /// [`Org::is_in_force`] says.
    pub async fn follow(self: Arc<Self>, org: Arc<Org>, clock: Arc<dyn Clock>) {
        let mut known = org.directory().log().subscribe();
        let mut in_force = Arc::default();
        loop {
            let Ok(state) = known.borrow_and_update().clone() else {
                return;
            };
            let length = state.head().length;
            let now_ms = clock.now_ms();
            let nats_keys = Arc::new(policy::revoked_nats_keys(&state, now_ms));
            drop(state);
            if adds(&nats_keys, &in_force) {
                if let Err(error) = self.enforce(org.name(), &nats_keys, now_ms).await {
                    sotto_log::error!(error, "revoked devices may still be connected");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                in_force = nats_keys;
            }
            org.set_in_force(length);
            if known.changed().await.is_err() {
                return;
            }
        }
    }

    /// Voids the JWTs of these NATS keys, each when issued until the time given
    /// in seconds since 1970. Returns when nats-server knows: it has closed
    /// their connections then, or is about to.
    ///
    /// # Errors
    /// [`RevocationError`]; asking again is safe.
    pub async fn enforce(
        &self,
        org: &OrgName,
        nats_keys: &Arc<BTreeMap<String, i64>>,
        now_ms: i64,
    ) -> Result<(), RevocationError> {
        if nats_keys.is_empty() {
            return Ok(());
        }
        let mut pushed = None;
        loop {
            let stored = self.store(org.clone(), Arc::clone(nats_keys), now_ms);
            let stored = stored.await?;
            if pushed.as_ref() == Some(&stored) {
                return Ok(());
            }
            push_account(&self.system, &stored).await?;
            pushed = Some(stored);
        }
    }

    /// Which version of an org's accounts each nats-server has in force.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub async fn standing(&self, org: &OrgName) -> Result<Vec<Standing>, RevocationError> {
        let (keys, org) = (Arc::clone(&self.keys), org.clone());
        let reading = tokio::task::spawn_blocking(move || keys.account_jwts(&org)).await;
        let jwts = reading.map_err(|_| RevocationError::Stopped)??;
        let mut standing = Vec::new();
        for jwt in jwts {
            let account = Claims::<Account>::verify(&jwt).map_err(KeyStoreError::from)?;
            let Claims { subject, name, .. } = account.claims;
            standing.push(Standing {
                held: held_accounts(&self.system, &subject).await?,
                id: subject,
                name,
                stored: AccountVersion {
                    issued_s: account.issued_s,
                    hash: AccountVersion::hash_of(&jwt),
                },
            });
        }
        Ok(standing)
    }

    /// Away from the threads that serve: it waits for the disk.
    async fn store(
        &self,
        org: OrgName,
        nats_keys: Arc<BTreeMap<String, i64>>,
        now_ms: i64,
    ) -> Result<String, RevocationError> {
        let keys = Arc::clone(&self.keys);
        let storing = move || keys.revoke(&org, &nats_keys, now_ms);
        let stored = tokio::task::spawn_blocking(storing).await;
        Ok(stored.map_err(|_| RevocationError::Stopped)??)
    }
}

/// Whether some JWT is void by `wanted` and was not by `before`.
fn adds(wanted: &BTreeMap<String, i64>, before: &BTreeMap<String, i64>) -> bool {
    let mut wanted = wanted.iter();
    wanted.any(|(key, until_s)| before.get(key) < Some(until_s))
}
