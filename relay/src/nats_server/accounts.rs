//! The accounts that nats-server is to know from its start: from the key
//! store where there is one, else from what the cluster's keeper of the keys
//! sent. No seed is read for it.

use serde::{Deserialize, Serialize};
use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError, PreloadedAccount};
use sotto_service::Layout;
use sotto_service::private_files::{self, FileError};

/// Longest file of accounts, in bytes: two accounts per org of a few KB each.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What `nats.conf` says of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsAccounts {
    /// The operator's JWT.
    pub operator: String,
    /// The system account's public key.
    pub system: String,
    /// Accounts by their public keys, as JWTs.
    pub preload: Vec<(String, String)>,
}

/// Why the accounts are not known.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The key store.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold accounts that can stand in a configuration.
    #[error("{0} does not hold the accounts: join the cluster again")]
    Damaged(String),
}

impl NatsAccounts {
    /// Reads them.
    ///
    /// # Errors
    /// [`AccountsError`].
    pub fn read(layout: &Layout) -> Result<Self, AccountsError> {
        if layout.accounts().is_dir() {
            return Self::of(&KeyStore::open(&layout.accounts())?);
        }
        let path = layout.cluster_accounts();
        let text = private_files::read_text(&path, FILE_MAX)?;
        let accounts: Option<Self> = serde_json::from_str(&text).ok();
        accounts
            .filter(Self::can_be_written)
            .ok_or_else(|| AccountsError::Damaged(path.display().to_string()))
    }

    fn of(keys: &KeyStore) -> Result<Self, AccountsError> {
        let preload = keys.resolver_preload()?.into_iter();
        Ok(Self {
            operator: keys.operator_jwt().to_owned(),
            system: keys.system_account().to_owned(),
            preload: preload
                .map(|PreloadedAccount { id, jwt }| (id, jwt))
                .collect(),
        })
    }

    /// Keeps them for a node without a key store, durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<(), AccountsError> {
        let path = layout.cluster_accounts();
        let json = serde_json::to_vec(self);
        let json = json.map_err(|error| FileError::new("write", &path, error.into()))?;
        Ok(private_files::write(&path, &json)?)
    }

    /// Whether keys and JWTs are nothing but that: they stand in nats.conf
    /// without quotes.
    pub fn can_be_written(&self) -> bool {
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        plain(&self.operator)
            && plain(&self.system)
            && self.preload.iter().all(|(id, jwt)| plain(id) && plain(jwt))
    }
}
