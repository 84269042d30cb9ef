//! The accounts in a store: their JWTs, which the operator signs, and the keys
//! that sign their users.

use std::collections::BTreeMap;
use std::path::Path;

use nkeys::KeyPair;
use sotto_proto::OrgName;
use sotto_proto::limits::JWT;

use super::operator::StoredOperator;
use super::{Folder, IDENTITY_SEED, KeyStore, KeyStoreError, Place, files, seed_file};
use crate::accounts::{Role, Which};
use crate::claims::{Account, Claims, SigningKey};
use crate::grants::Services;

const ACCOUNT_JWT: &str = "account.jwt";

/// An account's JWT, whose signature was checked, and its public key.
pub(super) struct StoredAccount {
    pub id: String,
    pub jwt: String,
    pub issued_s: i64,
    /// The operator's public key that signed.
    pub issuer: String,
    pub claims: Claims<Account>,
}

impl KeyStore {
    /// Voids the JWTs of devices' NATS keys, each when issued until the time
    /// given in seconds since 1970, beside those voided before; forgets keys of
    /// which every such JWT has run out. Returns the JWT of the devices'
    /// account once it is stored: the same one when that changes nothing.
    /// [`crate::push_account`] puts it in force. Several processes may do this
    /// to one store at a time; it may wait for them, and for the disk.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn revoke(
        &self,
        org: &OrgName,
        nats_keys: &BTreeMap<String, i64>,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let now_s = now_ms.div_euclid(1_000);
        let lifetime_s = i64::try_from(JWT.as_secs()).unwrap_or(i64::MAX);
        let [_, devices] = self.org_folders(org)?;
        self.change_account(&devices, now_ms, |account| {
            let revocations = &mut account.revocations;
            for (key, until_s) in nats_keys {
                let voided = revocations.entry(key.clone()).or_insert(*until_s);
                *voided = (*voided).max(*until_s);
            }
            revocations.retain(|_, until_s| until_s.saturating_add(lifetime_s) >= now_s);
        })
    }

    /// Says anew what an org's relays and gateways may do, as this version of
    /// the programs and `services` need it. Returns the JWTs of the accounts,
    /// the same ones when that changes nothing. nats-server closes the
    /// connections of those whose rights change; they connect again by
    /// themselves.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn set_services(
        &self,
        org: &OrgName,
        services: Services<'_>,
        now_ms: i64,
    ) -> Result<[String; 2], KeyStoreError> {
        let [own, devices] = self.org_folders(org)?;
        let set = |folder: &Folder| {
            self.change_account(folder, now_ms, |account| {
                for role in folder.which.roles() {
                    let rights = folder.which.rights(*role, services);
                    for key in &mut account.signing_keys {
                        if let SigningKey::Role(key) = key
                            && key.role == role.name()
                            && let Some(rights) = &rights
                        {
                            key.rights.clone_from(rights);
                        }
                    }
                }
            })
        };
        Ok([set(&own)?, set(&devices)?])
    }

    /// Takes the JWT of one of an org's accounts that another key store of the
    /// same operator has made, if it is newer than the one here: several
    /// gateways may each have a store.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn take_newer(&self, org: &OrgName, jwt: &str) -> Result<(), KeyStoreError> {
        let Ok(new) = Claims::<Account>::verify(jwt) else {
            return Ok(());
        };
        for folder in self.org_folders(org)? {
            let dir = self.dir.join(&folder.path);
            let _locked = files::lock(&dir)?;
            let operator = self.operator_now()?;
            let stored = read_account(&dir, &operator)?;
            if stored.id == new.claims.subject
                && operator.signs_with(&new.issuer)
                && stored.issued_s < new.issued_s
            {
                files::replace(&dir.join(ACCOUNT_JWT), jwt)?;
            }
        }
        Ok(())
    }

    /// Stores an account as `change` leaves it and returns its JWT: the same
    /// one when that changes nothing. Others wait meanwhile.
    pub(super) fn change_account(
        &self,
        folder: &Folder,
        now_ms: i64,
        change: impl FnOnce(&mut Account),
    ) -> Result<String, KeyStoreError> {
        let dir = self.dir.join(&folder.path);
        let _locked = files::lock(&dir)?;
        let mut stored = read_account(&dir, &self.operator_now()?)?;
        let before = stored.claims.nats.clone();
        change(&mut stored.claims.nats);
        if stored.claims.nats == before {
            return Ok(stored.jwt);
        }
        stored.sign(&dir, &self.operator_key()?, now_ms)
    }

    /// Signs an account once more if another key of the operator has signed it.
    pub(super) fn sign_again(&self, folder: &Folder, now_ms: i64) -> Result<String, KeyStoreError> {
        let dir = self.dir.join(&folder.path);
        let _locked = files::lock(&dir)?;
        let stored = read_account(&dir, &self.operator_now()?)?;
        let operator = self.operator_key()?;
        if stored.issuer == operator.public_key() {
            return Ok(stored.jwt);
        }
        stored.sign(&dir, &operator, now_ms)
    }

    pub(super) fn account(&self, folder: &Folder) -> Result<StoredAccount, KeyStoreError> {
        read_account(&self.dir.join(&folder.path), &self.operator_now()?)
    }
}

impl StoredAccount {
    /// Stores what the claims say now. The resolvers of a cluster keep the
    /// newer of two JWTs, by the second.
    fn sign(&self, dir: &Path, operator: &KeyPair, now_ms: i64) -> Result<String, KeyStoreError> {
        let now_s = now_ms.div_euclid(1_000).max(self.issued_s);
        let jwt = self.claims.sign(operator, now_s)?;
        files::replace(&dir.join(ACCOUNT_JWT), &jwt)?;
        Ok(jwt)
    }
}

/// An account's keys before they are stored.
pub(super) struct NewAccount {
    identity: KeyPair,
    signing: Vec<(Role, KeyPair)>,
    /// What the account says of these keys.
    pub signing_keys: Vec<SigningKey>,
}

impl NewAccount {
    pub(super) fn draw(which: Which, services: Services<'_>) -> Self {
        let roles = which.roles().iter();
        let signing: Vec<_> = roles.map(|role| (*role, KeyPair::new_account())).collect();
        let key = |(role, key): &(Role, KeyPair)| {
            role.key(key.public_key(), which.rights(*role, services))
        };
        Self {
            identity: KeyPair::new_account(),
            signing_keys: signing.iter().map(key).collect(),
            signing,
        }
    }

    /// The account's public key.
    pub(super) fn id(&self) -> String {
        self.identity.public_key()
    }

    pub(super) fn write(
        &self,
        place: &Place<'_>,
        name: &str,
        account: Account,
        operator: &KeyPair,
        now_s: i64,
    ) -> Result<(), KeyStoreError> {
        let claims = Claims {
            subject: self.id(),
            name: name.to_owned(),
            expires_s: None,
            nats: account,
        };
        place.write_seed(IDENTITY_SEED, &self.identity)?;
        for (role, key) in &self.signing {
            place.write_seed(&seed_file(*role), key)?;
        }
        let jwt = claims.sign(operator, now_s)?;
        place.folder.write(ACCOUNT_JWT, &jwt)
    }
}

pub(super) fn read_account(
    dir: &Path,
    operator: &StoredOperator,
) -> Result<StoredAccount, KeyStoreError> {
    let path = dir.join(ACCOUNT_JWT);
    let jwt = files::read(&path)?;
    match Claims::<Account>::verify(&jwt) {
        Ok(verified) if operator.signs_with(&verified.issuer) => Ok(StoredAccount {
            id: verified.claims.subject.clone(),
            jwt: jwt.to_string(),
            issued_s: verified.issued_s,
            issuer: verified.issuer,
            claims: verified.claims,
        }),
        _ => Err(KeyStoreError::Damaged(path)),
    }
}
