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
use sotto_jwt_accounts::{held_accounts, push_account};
use sotto_proto::OrgName;

use crate::org::Org;

/// How often it is looked for new keys.
const INTERVAL: Duration = Duration::from_secs(5);

/// Has an org's devices signed by the keys that are in the store, as they
/// change; and takes into the store what another gateway, with a store of its
/// own, has changed in the accounts, so that this one does not undo it.
pub async fn follow(org: Arc<Org>, keys: Arc<KeyStore>, system: async_nats::Client) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let newer = in_force(&org, &system).await;
        let (store, name) = (Arc::clone(&keys), org.name().clone());
        // Away from the threads that serve: it reads and writes files.
        let read = tokio::task::spawn_blocking(move || {
            for jwt in newer {
                store.take_newer(&name, &jwt)?;
            }
            store.account_signer(&name)
        });
        match read.await {
            Ok(Ok(signer)) => org.set_signer(signer),
            Ok(Err(error)) => sotto_log::warn!(error, "the signing keys do not read"),
            Err(_) => return,
        }
    }
}

/// The JWTs of an org's accounts that servers have; none from who is away.
async fn in_force(org: &Org, system: &async_nats::Client) -> Vec<String> {
    let signer = org.signer();
    let mut jwts = Vec::new();
    for account in [signer.account(), signer.device_account()] {
        let held = held_accounts(system, account).await.unwrap_or_default();
        jwts.extend(held.into_iter().filter_map(|held| held.jwt));
    }
    jwts.dedup();
    jwts
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
