//! New signing keys for an org's accounts, while everybody stays connected.
//!
//! A new key is added beside the old one ([`KeyStore::rotate_org`]) and pushed;
//! from then on it signs. When no JWT by the old one is in use any more, new
//! credentials issued and the hour of the devices' JWTs over, the old one is
//! dropped ([`KeyStore::drop_old_keys`]) and that is pushed. An account's
//! identity is its name in every import and JWT, and cannot be changed.

use nkeys::{KeyPair, KeyPairType};
use sotto_proto::OrgName;

use super::{DEVICES, KeyStore, KeyStoreError, ORG, ORGS, SIGNING_SEED, files, seed};

impl KeyStore {
    /// Draws new signing keys for both accounts of an org, beside those that
    /// are in use. Returns the accounts' JWTs, for [`crate::push_account`]:
    /// push them before anything that is signed from now on is used.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write. What was
    /// done until then holds.
    pub fn rotate_org(&self, org: &OrgName, now_ms: i64) -> Result<[String; 2], KeyStoreError> {
        Ok([
            self.rotate_account(org, ORG, now_ms)?,
            self.rotate_account(org, DEVICES, now_ms)?,
        ])
    }

    /// Forgets every signing key of an org's accounts but the newest: what the
    /// others signed is void once the JWTs returned are pushed.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn drop_old_keys(&self, org: &OrgName, now_ms: i64) -> Result<[String; 2], KeyStoreError> {
        let signer = self.account_signer(org)?;
        let keep = |which, key: &KeyPair| {
            let key = key.public_key();
            self.change_account(org, which, now_ms, |account| {
                account.signing_keys = vec![key];
            })
        };
        Ok([
            keep(ORG, &signer.org.key)?,
            keep(DEVICES, &signer.devices.key)?,
        ])
    }

    /// The account knows the key before the store signs with it: cut short in
    /// between, the key is one more that nobody has.
    fn rotate_account(
        &self,
        org: &OrgName,
        which: &str,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let place = format!("{ORGS}/{org}/{which}/{SIGNING_SEED}");
        let old = self.read_key(&place, KeyPairType::Account)?.public_key();
        let new = KeyPair::new_account();
        let jwt = self.change_account(org, which, now_ms, |account| {
            account.signing_keys = vec![new.public_key(), old];
        })?;
        let sealed = self.sealing.seal(&place, &seed(&new)?)?;
        files::replace(&self.dir.join(place), &sealed)?;
        Ok(jwt)
    }
}
