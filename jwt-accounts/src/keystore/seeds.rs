//! All seeds of a store at once, for another tool.

use std::path::PathBuf;

use nkeys::KeyPairType;
use zeroize::Zeroizing;

use super::{
    DEVICES, IDENTITY_SEED, KeyStore, KeyStoreError, OPERATOR, ORG, ORGS, SIGNING_SEED, SYSTEM,
    seed,
};

/// The seeds of a store.
pub(crate) struct StoredSeeds {
    /// Public keys and seeds of those on this machine.
    pub here: Vec<(String, Zeroizing<String>)>,
    /// Where the others would be.
    pub away: Vec<PathBuf>,
}

impl KeyStore {
    /// Opens every seed that is on this machine.
    pub(crate) fn seeds(&self) -> Result<StoredSeeds, KeyStoreError> {
        let mut folders = vec![
            (OPERATOR.to_owned(), KeyPairType::Operator),
            (SYSTEM.to_owned(), KeyPairType::Account),
        ];
        for org in self.orgs()? {
            for which in [ORG, DEVICES] {
                folders.push((format!("{ORGS}/{org}/{which}"), KeyPairType::Account));
            }
        }
        let mut seeds = StoredSeeds {
            here: Vec::new(),
            away: Vec::new(),
        };
        for (folder, kind) in folders {
            for name in [IDENTITY_SEED, SIGNING_SEED] {
                match self.read_key(&format!("{folder}/{name}"), kind.clone()) {
                    Ok(key) => seeds.here.push((key.public_key(), seed(&key)?)),
                    Err(KeyStoreError::Away(path)) => seeds.away.push(path),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(seeds)
    }
}
