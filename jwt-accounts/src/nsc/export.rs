//! Writing a store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{
    INFO, INFO_KIND, INFO_VERSION, Info, account_dir, file_name, jwt_file, key_file, operator_dir,
};
use crate::claims::{Account, Claims, ClaimsError, Operator};
use crate::keystore::{KeyStore, KeyStoreError, files};

/// Whether seeds are written, which are not sealed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeds {
    /// Only JWTs.
    Without,
    /// Each seed that is on this machine.
    With,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The operator's name, which is that of its folder.
    pub operator: String,
    /// How many accounts.
    pub accounts: usize,
    /// How many seeds.
    pub seeds: usize,
    /// Seeds of the key store that are not on this machine.
    pub away: Vec<PathBuf>,
}

/// Writes the operator, the system account and every org's accounts to `dir`,
/// which must not exist and appears whole or not at all, for its owner only.
///
/// # Errors
/// [`KeyStoreError`]: when a file of the key store does not read, or one of
/// these cannot be written.
pub fn export(keys: &KeyStore, dir: &Path, seeds: Seeds) -> Result<Exported, KeyStoreError> {
    let operator = Claims::<Operator>::verify(keys.operator_jwt())?.claims.name;
    let store = operator_dir(part(&operator)?);
    let mut tree = BTreeMap::new();
    let info = Info {
        managed: false,
        name: operator.clone(),
        kind: INFO_KIND.to_owned(),
        version: INFO_VERSION.to_owned(),
    };
    let info = serde_json::to_string(&info).map_err(|_| ClaimsError::Malformed)?;
    tree.insert(store.join(INFO), Zeroizing::new(info));
    let jwt = Zeroizing::new(keys.operator_jwt().to_owned());
    tree.insert(store.join(jwt_file(&operator)), jwt);

    let accounts = keys.resolver_preload()?;
    for account in &accounts {
        let name = Claims::<Account>::verify(&account.jwt)?.claims.name;
        let path = account_dir(&operator, part(&name)?).join(jwt_file(&name));
        tree.insert(path, Zeroizing::new(account.jwt.clone()));
    }
    let mut exported = Exported {
        operator,
        accounts: accounts.len(),
        seeds: 0,
        away: Vec::new(),
    };
    if seeds == Seeds::With {
        let stored = keys.seeds()?;
        exported.seeds = stored.here.len();
        exported.away = stored.away;
        for (public_key, seed) in stored.here {
            let path = key_file(&public_key).ok_or(ClaimsError::Malformed)?;
            tree.insert(path, seed);
        }
    }
    files::create_tree(dir, &tree)?;
    Ok(exported)
}

fn part(name: &str) -> Result<&str, ClaimsError> {
    file_name(name).ok_or(ClaimsError::Malformed)
}
