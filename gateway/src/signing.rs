//! Signing with the newest keys of the key store, and saying in the accounts
//! what this version's relays and gateways may do.
//!
//! Signing keys change while the gateway runs (`sotto-gateway accounts rotate`):
//! it looks for new ones every few seconds, which is well within the time that
//! the old ones are kept for.

use std::sync::Arc;
use std::time::Duration;

use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError};
use sotto_jwt_accounts::push_account;
use sotto_proto::OrgName;

use crate::org::Org;

/// How often it is looked for new keys.
const INTERVAL: Duration = Duration::from_secs(5);

/// Has an org's devices signed by the keys that are in the store, as they
/// change.
pub async fn follow(org: Arc<Org>, keys: Arc<KeyStore>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (store, name) = (Arc::clone(&keys), org.name().clone());
        // Away from the threads that serve: it reads files.
        let read = tokio::task::spawn_blocking(move || store.account_signer(&name)).await;
        match read {
            Ok(Ok(signer)) => org.set_signer(signer),
            Ok(Err(error)) => tracing::warn!(%error, "the signing keys do not read"),
            Err(_) => return,
        }
    }
}

/// Puts in force what an org's relays and gateways may do, if that is not what
/// the accounts say: after an update of the programs, or with more shards.
///
/// # Errors
/// When the accounts do not read, or are to change and the operator's signing
/// seed is not there.
pub async fn refresh(
    keys: &KeyStore,
    system: &async_nats::Client,
    org: &OrgName,
    services: Services<'_>,
    now_ms: i64,
) -> anyhow::Result<()> {
    for jwt in refreshed(keys, org, services, now_ms)? {
        push_account(system, &jwt).await?;
    }
    Ok(())
}

/// As [`refresh`], in the store only; returns the JWTs of the accounts that
/// changed.
///
/// # Errors
/// As [`refresh`].
pub fn refreshed(
    keys: &KeyStore,
    org: &OrgName,
    services: Services<'_>,
    now_ms: i64,
) -> Result<Vec<String>, KeyStoreError> {
    let before = keys.account_jwts(org)?;
    let after = keys.set_services(org, services, now_ms)?;
    let changed = after.into_iter().zip(&before);
    Ok(changed
        .filter(|(after, before)| after != *before)
        .map(|(after, _)| after)
        .collect())
}
