//! All seeds of a store at once, for another tool.

use std::path::PathBuf;

use nkeys::KeyPairType;
use zeroize::Zeroizing;

use super::{IDENTITY_SEED, KeyStore, KeyStoreError, OPERATOR, SIGNING_SEED, seed};

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
        let operator = [IDENTITY_SEED, SIGNING_SEED].map(|name| format!("{OPERATOR}/{name}"));
        let mut places = operator
            .map(|place| (place, KeyPairType::Operator))
            .to_vec();
        for folder in self.folders()? {
            let identity = format!("{}/{IDENTITY_SEED}", folder.path);
            let roles = folder.which.roles().iter().map(|role| folder.seed(*role));
            let seeds = [identity].into_iter().chain(roles);
            places.extend(seeds.map(|place| (place, KeyPairType::Account)));
        }
        let mut seeds = StoredSeeds {
            here: Vec::new(),
            away: Vec::new(),
        };
        for (place, kind) in places {
            match self.read_key(&place, kind) {
                Ok(key) => seeds.here.push((key.public_key(), seed(&key)?)),
                Err(KeyStoreError::Away(path)) => seeds.away.push(path),
                Err(error) => return Err(error),
            }
        }
        Ok(seeds)
    }
}
