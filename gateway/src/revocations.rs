//! Telling nats-server which devices were revoked.
//!
//! The directory says so first; what follows from it, a key store whose account
//! JWT voids their keys and a server that has this JWT, can be done again at any
//! time and is, at every start and with every revocation. So one that was cut
//! short is completed by whichever gateway comes next.
//!
//! Several gateways may share one key store: the store locks itself, and what
//! was pushed is compared with it afterwards, so that an older JWT that comes
//! late does not stay. Gateways with key stores of their own undo each other's
//! revocations: that must not be set up.

use std::collections::BTreeMap;
use std::sync::Arc;

use sotto_jwt_accounts::directory::State;
use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError};
use sotto_jwt_accounts::{PushError, policy, push_account};
use sotto_proto::OrgName;

use crate::refusal::Refusal;

/// Puts revocations in force.
pub struct Revocations {
    keys: Arc<KeyStore>,
    system: async_nats::Client,
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

impl From<RevocationError> for Refusal {
    fn from(error: RevocationError) -> Self {
        Self::unavailable(error)
    }
}

impl Revocations {
    /// `system` is a client of the system account.
    pub fn new(keys: KeyStore, system: async_nats::Client) -> Self {
        let keys = Arc::new(keys);
        Self { keys, system }
    }

    /// Voids the NATS JWTs of all the devices that this state says are revoked.
    /// Returns when nats-server knows: it has closed their connections then,
    /// or is about to.
    ///
    /// # Errors
    /// [`RevocationError`]; asking again is safe.
    pub async fn enforce(
        &self,
        org: &OrgName,
        state: &State,
        now_ms: i64,
    ) -> Result<(), RevocationError> {
        let nats_keys = policy::revoked_nats_keys(state, now_ms);
        if nats_keys.is_empty() {
            return Ok(());
        }
        let nats_keys = Arc::new(nats_keys);
        let mut pushed = None;
        loop {
            let stored = self.store(org.clone(), Arc::clone(&nats_keys), now_ms);
            let stored = stored.await?;
            if pushed.as_ref() == Some(&stored) {
                return Ok(());
            }
            push_account(&self.system, &stored).await?;
            pushed = Some(stored);
        }
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
