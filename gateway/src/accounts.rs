//! Registered passwords and the identity backups that they open. The record
//! of a user is kept under the user's name *and* identity key: several people
//! may try for one name, and the directory's word decides whose record counts.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use sotto_jwt_accounts::directory::UserStatus;
use sotto_proto::UserName;
use subtle::ConstantTimeEq;

use crate::org::Org;
use crate::records::{AccountRecord, VERSION};
use crate::refusal::Refusal;

/// A sealed identity key with room to grow, in bytes.
const IDENTITY_BACKUP: usize = 4_096;
const KEY_HASH: usize = 16;

/// A registration to store.
pub fn record(registration: Bytes, identity_backup: Bytes) -> Result<AccountRecord, Refusal> {
    if !(1..=IDENTITY_BACKUP).contains(&identity_backup.len()) {
        return Err(Refusal::malformed("length of the identity backup"));
    }
    Ok(AccountRecord {
        version: VERSION,
        registration,
        identity_backup,
    })
}

/// Stores the record of a user who is signing up. The same one again is fine.
///
/// # Errors
/// [`Refusal::NameTaken`] when there is another one for this name and key.
pub async fn store(
    org: &Org,
    user: &UserName,
    identity_key: &VerifyingKey,
    record: &AccountRecord,
) -> Result<(), Refusal> {
    let decide = |stored: Option<AccountRecord>| match stored {
        None => Ok((Some(record.clone()), ())),
        Some(stored) if same(&stored, record) => Ok((None, ())),
        Some(_) => Err(Refusal::NameTaken),
    };
    let key = key(user, identity_key.as_bytes());
    org.buckets().accounts.change(&key, decide).await
}

/// Whether just this record is stored: only who signed up knows it.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn is_stored(
    org: &Org,
    user: &UserName,
    identity_key: &VerifyingKey,
    record: &AccountRecord,
) -> Result<bool, Refusal> {
    let key = key(user, identity_key.as_bytes());
    let stored: Option<AccountRecord> = org.buckets().accounts.get(&key).await?;
    Ok(stored.is_some_and(|stored| same(&stored, record)))
}

/// The record that counts for a user; unknown users, and those who may not log
/// in, cost the same look-up.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn find(org: &Org, user: &UserName) -> Result<Option<AccountRecord>, Refusal> {
    let state = org.state()?;
    let active = state
        .user(user)
        .filter(|user| user.status == UserStatus::Active);
    let identity_key = active.and_then(|user| user.identity_key);
    let identity_key = identity_key.map(|key| key.to_bytes());
    let key = key(user, &identity_key.unwrap_or_default());
    org.buckets().accounts.get(&key).await
}

fn same(one: &AccountRecord, other: &AccountRecord) -> bool {
    let registration = one.registration.ct_eq(&other.registration);
    (registration & one.identity_backup.ct_eq(&other.identity_backup)).into()
}

fn key(user: &UserName, identity_key: &[u8; 32]) -> String {
    let hash = Sha256::digest(identity_key);
    let hash = hash.get(..KEY_HASH).unwrap_or_default();
    format!("{user}.{}", HEXLOWER.encode(hash))
}
