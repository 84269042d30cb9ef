//! Taking the operator's seeds off the machine, and bringing them back.

use std::path::Path;

use nkeys::KeyPairType;

use super::{IDENTITY_SEED, KeyStore, KeyStoreError, OPERATOR, SIGNING_SEED, files};

/// A seed of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detachable {
    /// Signs the operator's own JWT: needed only when signing keys change.
    Identity,
    /// Signs accounts: needed to add an org, to change limits, and to revoke.
    Signing,
}

impl Detachable {
    fn file(self) -> &'static str {
        match self {
            Self::Identity => IDENTITY_SEED,
            Self::Signing => SIGNING_SEED,
        }
    }
}

impl KeyStore {
    /// Moves a seed of the operator, sealed as it is, to a file elsewhere. It
    /// opens with the passphrase and in the store that it came from only, so
    /// keep all three. The store goes on without it in daily work.
    ///
    /// # Errors
    /// When the seed is not there or does not open, or `to` exists or cannot be
    /// written; then it stays where it is.
    pub fn detach(&self, which: Detachable, to: &Path) -> Result<(), KeyStoreError> {
        let place = format!("{OPERATOR}/{}", which.file());
        self.read_key(&place, KeyPairType::Operator)?;
        if to.exists() {
            return Err(KeyStoreError::Exists(to.to_owned()));
        }
        let path = self.dir.join(place);
        files::replace(to, &files::read(&path)?)?;
        files::remove(&path)
    }

    /// Brings back a seed that was moved to `from`, which stays.
    ///
    /// # Errors
    /// When the file does not open, or holds another key.
    pub fn attach(&self, which: Detachable, from: &Path) -> Result<(), KeyStoreError> {
        let place = format!("{OPERATOR}/{}", which.file());
        let sealed = files::read(from)?;
        let seed = self.sealing.unseal(&place, &sealed)?;
        let another = || KeyStoreError::AnotherKey(from.to_owned());
        let key = nkeys::KeyPair::from_seed(&seed).map_err(|_| another())?;
        let operator = self.operator_now()?.claims;
        let fits = match which {
            Detachable::Identity => operator.subject == key.public_key(),
            Detachable::Signing => operator.nats.signing_keys.contains(&key.public_key()),
        };
        if !fits {
            return Err(another());
        }
        files::replace(&self.dir.join(place), &sealed)
    }
}
