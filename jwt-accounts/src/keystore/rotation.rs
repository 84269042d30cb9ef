//! New signing keys for accounts, while everybody stays connected.
//!
//! New keys are added beside the old ones ([`KeyStore::rotate`]) and pushed;
//! from then on they sign. When no JWT by an old one is in use any more, new
//! credentials issued and the hour of the devices' JWTs over, the old ones are
//! dropped ([`KeyStore::drop_old_keys`]) and that is pushed. An account's
//! identity is its name in every import and JWT, and cannot be changed.

use nkeys::KeyPair;
use sotto_proto::OrgName;
use sotto_proto::limits::JWT;

use super::{Folder, KeyStore, KeyStoreError, ORGS, SIGNING_SEED, SYSTEM, files};
use crate::accounts::Role;
use crate::grants::Services;

/// Says when the signing keys beside it changed, in seconds since 1970.
const ROTATED: &str = "rotated";
/// How long after a rotation a gateway may still sign with an old key, in
/// seconds: it looks for new ones more often than that.
const NOTICED_S: i64 = 60;

/// Accounts whose signing keys change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accounts<'a> {
    /// The system account.
    System,
    /// Both accounts of an org.
    Org(&'a OrgName),
}

/// Signing keys that new ones have taken the place of, and that nats-server
/// still believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKeys {
    /// Public keys of the accounts that have such keys.
    pub accounts: Vec<String>,
    /// The old signing keys.
    pub keys: Vec<String>,
    /// From this second since 1970 on, no device has a JWT by one of them.
    pub unused_s: i64,
}

impl KeyStore {
    /// Draws new signing keys for these accounts, beside those that are in use.
    /// Returns the accounts' JWTs, for [`crate::push_account`]: push them
    /// before anything that is signed from now on is used.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write. What was
    /// done until then holds.
    pub fn rotate(
        &self,
        accounts: Accounts<'_>,
        services: Services<'_>,
        now_ms: i64,
    ) -> Result<Vec<String>, KeyStoreError> {
        let folders = self.folders_of(accounts)?;
        let now_s = now_ms.div_euclid(1_000).to_string();
        files::replace(&self.dir.join(rotated_file(accounts)), &now_s)?;
        let rotated = folders
            .iter()
            .map(|folder| self.rotate_account(folder, services, now_ms));
        rotated.collect()
    }

    /// The signing keys of these accounts that are no longer in use, if any.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn old_keys(&self, accounts: Accounts<'_>) -> Result<Option<OldKeys>, KeyStoreError> {
        let mut old = OldKeys {
            accounts: Vec::new(),
            keys: Vec::new(),
            unused_s: 0,
        };
        for folder in self.folders_of(accounts)? {
            let account = self.account(&folder)?;
            let current = self.current_keys(&folder)?;
            let known = account.claims.nats.signing_keys.iter();
            let known = known.map(|key| key.public_key().to_owned());
            let before = old.keys.len();
            old.keys.extend(known.filter(|key| !current.contains(key)));
            if old.keys.len() > before {
                old.accounts.push(account.id);
            }
        }
        if old.keys.is_empty() {
            return Ok(None);
        }
        let path = self.dir.join(rotated_file(accounts));
        let rotated_s = match path.exists() {
            true => files::read(&path)?.trim().parse(),
            false => Ok(0),
        };
        let rotated_s: i64 = rotated_s.map_err(|_| KeyStoreError::Damaged(path))?;
        let lifetime_s = match accounts {
            Accounts::System => 0,
            Accounts::Org(_) => i64::try_from(JWT.as_secs()).unwrap_or(i64::MAX) + NOTICED_S,
        };
        old.unused_s = rotated_s.saturating_add(lifetime_s);
        Ok(Some(old))
    }

    /// Forgets every signing key of these accounts but those in use: what the
    /// others signed is void once the JWTs returned are pushed. Whether that
    /// is early, [`Self::old_keys`] says.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn drop_old_keys(
        &self,
        accounts: Accounts<'_>,
        now_ms: i64,
    ) -> Result<Vec<String>, KeyStoreError> {
        let drop_from = |folder: &Folder| {
            let current = self.current_keys(folder)?;
            let jwt = self.change_account(folder, now_ms, |account| {
                let keys = &mut account.signing_keys;
                keys.retain(|key| current.iter().any(|current| current == key.public_key()));
            })?;
            // Of a store that is older than roles.
            let roleless = self.dir.join(&folder.path).join(SIGNING_SEED);
            if roleless.exists() {
                files::remove(&roleless)?;
            }
            Ok(jwt)
        };
        self.folders_of(accounts)?.iter().map(drop_from).collect()
    }

    /// The account knows the keys before the store signs with them: cut short
    /// in between, they are some more that nobody has.
    fn rotate_account(
        &self,
        folder: &Folder,
        services: Services<'_>,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let roles = folder.which.roles().iter();
        let new: Vec<(Role, KeyPair)> = roles.map(|role| (*role, KeyPair::new_account())).collect();
        let jwt = self.change_account(folder, now_ms, |account| {
            for (role, key) in &new {
                let rights = folder.which.rights(*role, services);
                account
                    .signing_keys
                    .push(role.key(key.public_key(), rights));
            }
        })?;
        for (role, key) in &new {
            self.replace_key(&folder.seed(*role), key)?;
        }
        Ok(jwt)
    }

    /// The public halves of the keys that sign.
    fn current_keys(&self, folder: &Folder) -> Result<Vec<String>, KeyStoreError> {
        let roles = folder.which.roles().iter();
        let keys = roles.map(|role| Ok(self.signer(folder, *role)?.key.public_key()));
        keys.collect()
    }

    fn folders_of(&self, accounts: Accounts<'_>) -> Result<Vec<Folder>, KeyStoreError> {
        match accounts {
            Accounts::System => Ok(vec![Folder::system()]),
            Accounts::Org(org) => Ok(self.org_folders(org)?.into()),
        }
    }
}

/// Where it stands, within the store, when signing keys last changed.
fn rotated_file(accounts: Accounts<'_>) -> String {
    match accounts {
        Accounts::System => format!("{SYSTEM}/{ROTATED}"),
        Accounts::Org(org) => format!("{ORGS}/{org}/{ROTATED}"),
    }
}
