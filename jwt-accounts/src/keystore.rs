//! The secret keys of one server on disk: the operator, the system account and
//! two accounts per org, each with an identity key and its signing keys.
//!
//! ```text
//! operator/              identity.seed  signing.seed  next.seed  operator.jwt
//! system/                identity.seed  admin.seed    gateway.seed  account.jwt
//! orgs/<org>/org/        identity.seed  relay.seed    gateway.seed  account.jwt
//! orgs/<org>/devices/    identity.seed  device.seed   relay.seed    account.jwt
//! ```
//!
//! A signing key of an account signs users in one role, and all but that of
//! devices are bound to it: the account's JWT says what their users may do. So
//! no key here makes a user of an org's own account that may do more than a
//! relay or a gateway. `next.seed` is there while the operator's signing key
//! changes (`rotation`).
//!
//! Only signing keys are read in daily work; identity seeds may be moved
//! offline ([`KeyStore::detach`]). Seeds are sealed under a passphrase
//! (`sealing`), which is not asked for before one is needed, are never printed,
//! and files are owner-only: one that others can read is refused. A folder
//! appears whole or not at all.

mod account;
mod adopt;
mod detach;
pub(crate) mod files;
mod limits;
mod operator;
mod operator_rotation;
mod rotation;
mod seal;
mod sealing;
mod seeds;

pub use detach::Detachable;
pub use limits::StorageLimits;
pub use operator_rotation::Identity;
pub use rotation::{Accounts, OldKeys};
pub use sealing::passphrase_file;

use std::path::{Path, PathBuf};

use nkeys::{KeyPair, KeyPairType};
use sotto_proto::OrgName;
use zeroize::Zeroizing;

use crate::accounts::{self, Role, Which};
use crate::claims::ClaimsError;
use crate::credentials::Credentials;
use crate::grants::Services;
use crate::nsc::NscError;
use crate::signer::{AccountSigner, Signer};
use account::{NewAccount, StoredAccount, read_account};
use operator::{NewOperator, StoredOperator, read_operator};
use sealing::Sealing;

const OPERATOR: &str = "operator";
const SYSTEM: &str = "system";
const ORGS: &str = "orgs";
const ORG: &str = "org";
const DEVICES: &str = "devices";
const IDENTITY_SEED: &str = "identity.seed";
const SIGNING_SEED: &str = "signing.seed";
const NEXT_SEED: &str = "next.seed";

/// The keys of one server.
pub struct KeyStore {
    dir: PathBuf,
    sealing: Sealing,
    operator: StoredOperator,
    system: StoredAccount,
}

/// An account for the `resolver_preload` of `nats.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreloadedAccount {
    /// Public key.
    pub id: String,
    /// JWT.
    pub jwt: String,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The folder to create is already there.
    #[error("{0} exists already: choose another folder, or use the keys that are there")]
    Exists(PathBuf),
    /// A file is missing or cannot be read or written.
    #[error("{path}: {error}; check the folder's owner and free space")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        error: std::io::Error,
    },
    /// Other users of the machine can read a secret.
    #[error("{0} can be read by other users of this machine: make it private with chmod 600")]
    Exposed(PathBuf),
    /// The store is older than sealed seeds.
    #[error(
        "the keys in {0} are not sealed, as an older version left them: seal them with `sotto-gateway accounts seal`"
    )]
    NotSealed(PathBuf),
    /// The passphrase is elsewhere.
    #[error(
        "the passphrase that opens the keys is not in {0}: bring that file back, or name another in SOTTO_UNLOCK_FILE or in server.toml under [keys] as passphrase_file"
    )]
    NoPassphrase(PathBuf),
    /// The passphrase is another one, or the seed was changed.
    #[error(
        "{seed} does not open with the passphrase in {unlock}: use the one that it was sealed with, or restore the seed from a backup"
    )]
    Locked {
        /// The sealed seed.
        seed: PathBuf,
        /// Where the passphrase is.
        unlock: PathBuf,
    },
    /// The seed was taken off this machine.
    #[error(
        "{0} is not on this machine: bring it back with `sotto-gateway accounts operator attach`, or restore it from a backup"
    )]
    Away(PathBuf),
    /// The file of a detached seed does not fit this store.
    #[error("{0} is not the seed that this server's operator JWT names: look for another copy")]
    AnotherKey(PathBuf),
    /// A file is not what it should be.
    #[error("{0} is damaged: restore it from a backup")]
    Damaged(PathBuf),
    /// There is no such org on this server.
    #[error("there is no organisation `{0}` on this server: add it first")]
    UnknownOrg(OrgName),
    /// The operator by `nsc` does not fit.
    #[error(transparent)]
    Nsc(#[from] NscError),
    /// A key does not sign.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

sotto_log::log_safe!(KeyStoreError);

impl KeyStore {
    /// Draws the operator's and the system account's keys and stores them in
    /// `dir`, which must not exist.
    ///
    /// # Errors
    /// [`KeyStoreError::Exists`], [`KeyStoreError::Io`].
    pub fn create(dir: &Path, now_ms: i64) -> Result<Self, KeyStoreError> {
        Self::make(dir, NewOperator::draw(), now_ms)
    }

    /// Stores an operator with a new system account.
    fn make(dir: &Path, operator: NewOperator, now_ms: i64) -> Result<Self, KeyStoreError> {
        let now_s = now_ms.div_euclid(1_000);
        let system = NewAccount::draw(Which::System, NO_SERVICES);
        let account = accounts::system(system.signing_keys.clone());
        files::create_dir(dir, |new| {
            let sealing = Sealing::create(dir, new, None)?;
            operator.write(&sealing, new, &system.id(), now_s)?;
            let folder = files::NewDir::within(new, SYSTEM)?;
            let place = Place {
                sealing: &sealing,
                folder: &folder,
                path: SYSTEM.to_owned(),
            };
            system.write(&place, "SYS", account, &operator.signing, now_s)?;
            folder.finish()?;
            files::NewDir::within(new, ORGS)?.finish()
        })?;
        Self::open(dir)
    }

    /// Reads the keys in `dir`.
    ///
    /// # Errors
    /// When a file is missing, exposed or damaged.
    pub fn open(dir: &Path) -> Result<Self, KeyStoreError> {
        let sealing = Sealing::open(dir)?;
        let operator = read_operator(dir)?;
        let system = read_account(&dir.join(SYSTEM), &operator)?;
        if system.id != operator.claims.nats.system_account {
            return Err(operator.damaged(dir));
        }
        Ok(Self {
            dir: dir.to_owned(),
            sealing,
            operator,
            system,
        })
    }

    /// Opens seeds with the passphrase in this file, if the configuration names
    /// one; what the environment names goes before it (`sealing`).
    #[must_use]
    pub fn with_passphrase_file(mut self, file: Option<PathBuf>) -> Self {
        self.sealing.configure(file);
        self
    }

    /// Draws the keys of an org's accounts, whose relays and gateways will be
    /// there for `services`.
    ///
    /// # Errors
    /// [`KeyStoreError::Exists`], [`KeyStoreError::Io`].
    pub fn add_org(
        &self,
        org: &OrgName,
        services: Services<'_>,
        now_ms: i64,
    ) -> Result<(), KeyStoreError> {
        let own = NewAccount::draw(Which::Org, services);
        let of_devices = NewAccount::draw(Which::Devices, services);
        let account = accounts::org(own.signing_keys.clone());
        let devices = accounts::devices(of_devices.signing_keys.clone(), &own.id());
        let now_s = now_ms.div_euclid(1_000);
        let operator = self.operator_key()?;
        files::create_dir(&self.org_dir(org), |new| {
            let accounts = [
                (ORG, own, org.to_string(), account),
                (DEVICES, of_devices, format!("{org} devices"), devices),
            ];
            for (name, keys, title, account) in accounts {
                let folder = files::NewDir::within(new, name)?;
                let place = Place {
                    sealing: &self.sealing,
                    folder: &folder,
                    path: format!("{ORGS}/{org}/{name}"),
                };
                keys.write(&place, &title, account, &operator, now_s)?;
                folder.finish()?;
            }
            Ok(())
        })
    }

    /// The orgs that have an account, by name.
    ///
    /// # Errors
    /// [`KeyStoreError::Io`].
    pub fn orgs(&self) -> Result<Vec<OrgName>, KeyStoreError> {
        let names = files::list(&self.dir.join(ORGS))?;
        let mut orgs: Vec<OrgName> = names.iter().filter_map(|name| name.parse().ok()).collect();
        orgs.sort();
        Ok(orgs)
    }

    /// The operator's public key, as it was when the store was opened.
    pub fn operator_id(&self) -> &str {
        &self.operator.claims.subject
    }

    /// For `operator` in `nats.conf`, as it was when the store was opened.
    pub fn operator_jwt(&self) -> &str {
        &self.operator.jwt
    }

    /// For `system_account` in `nats.conf`.
    pub fn system_account(&self) -> &str {
        &self.system.id
    }

    /// The system account's JWT, as it was when the store was opened.
    pub fn system_account_jwt(&self) -> &str {
        &self.system.jwt
    }

    /// The JWTs of an org's accounts, each for [`crate::push_account`], in this
    /// order.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn account_jwts(&self, org: &OrgName) -> Result<[String; 2], KeyStoreError> {
        let [own, devices] = self.org_folders(org)?;
        Ok([self.account(&own)?.jwt, self.account(&devices)?.jwt])
    }

    /// What signs the users of an org.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn account_signer(&self, org: &OrgName) -> Result<AccountSigner, KeyStoreError> {
        let [own, devices] = self.org_folders(org)?;
        Ok(AccountSigner {
            relay: self.signer(&own, Role::Relay)?,
            gateway: self.signer(&own, Role::Gateway)?,
            device: self.signer(&devices, Role::Device)?,
            relay_of_devices: self.signer(&devices, Role::Relay)?,
        })
    }

    /// The system account and every org's accounts.
    ///
    /// # Errors
    /// When an org's files do not read.
    pub fn resolver_preload(&self) -> Result<Vec<PreloadedAccount>, KeyStoreError> {
        let folders = self.folders()?;
        let accounts = folders.iter().map(|folder| {
            let StoredAccount { id, jwt, .. } = self.account(folder)?;
            Ok(PreloadedAccount { id, jwt })
        });
        accounts.collect()
    }

    /// Credentials, with a new nkey, of whoever runs the server, in the system
    /// account.
    ///
    /// # Errors
    /// When the system account's files do not read.
    pub fn system_credentials(&self, now_ms: i64) -> Result<Credentials, KeyStoreError> {
        let signer = self.signer(&Folder::system(), Role::Admin)?;
        Ok(signer.credentials(Role::Admin, None, now_ms)?)
    }

    /// Credentials, with a new nkey, of a gateway in the system account.
    ///
    /// # Errors
    /// When the system account's files do not read.
    pub fn gateway_system_credentials(&self, now_ms: i64) -> Result<Credentials, KeyStoreError> {
        let signer = self.signer(&Folder::system(), Role::Gateway)?;
        Ok(signer.credentials(Role::Gateway, None, now_ms)?)
    }

    fn signer(&self, folder: &Folder, role: Role) -> Result<Signer, KeyStoreError> {
        let account = self.account(folder)?;
        let place = folder.seed(role);
        let key = self.read_key(&place, KeyPairType::Account)?;
        let public_key = key.public_key();
        let mut signing_keys = account.claims.nats.signing_keys.iter();
        if !signing_keys.any(|known| known.public_key() == public_key) {
            return Err(KeyStoreError::Damaged(self.dir.join(place)));
        }
        Ok(Signer {
            account: account.id,
            key,
        })
    }

    fn read_key(&self, place: &str, kind: KeyPairType) -> Result<KeyPair, KeyStoreError> {
        let path = self.dir.join(place);
        if !path.exists() {
            return Err(KeyStoreError::Away(path));
        }
        let seed = self.sealing.unseal(place, &files::read(&path)?)?;
        match KeyPair::from_seed(&seed) {
            Ok(key) if key.key_pair_type() == kind => Ok(key),
            _ => Err(KeyStoreError::Damaged(path)),
        }
    }

    /// Puts a seed in its place, in the stead of what was there.
    fn replace_key(&self, place: &str, key: &KeyPair) -> Result<(), KeyStoreError> {
        let sealed = self.sealing.seal(place, &seed(key)?)?;
        files::replace(&self.dir.join(place), &sealed)
    }

    /// Every account's folder.
    fn folders(&self) -> Result<Vec<Folder>, KeyStoreError> {
        let mut folders = vec![Folder::system()];
        for org in self.orgs()? {
            folders.extend(self.org_folders(&org)?);
        }
        Ok(folders)
    }

    /// The folders of an org's accounts.
    fn org_folders(&self, org: &OrgName) -> Result<[Folder; 2], KeyStoreError> {
        if !self.org_dir(org).is_dir() {
            return Err(KeyStoreError::UnknownOrg(org.clone()));
        }
        let folders = [(Which::Org, ORG), (Which::Devices, DEVICES)];
        Ok(folders.map(|(which, name)| Folder {
            which,
            path: format!("{ORGS}/{org}/{name}"),
        }))
    }

    fn org_dir(&self, org: &OrgName) -> PathBuf {
        self.dir.join(ORGS).join(org.as_str())
    }
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Of the system account, which no org's relay or gateway depends on.
const NO_SERVICES: Services<'_> = Services {
    shards: 0,
    buckets: &[],
};

/// Where an account's files are, as a path within the store.
#[derive(Debug, Clone)]
struct Folder {
    which: Which,
    path: String,
}

impl Folder {
    fn system() -> Self {
        Self {
            which: Which::System,
            path: SYSTEM.to_owned(),
        }
    }

    /// Where the key is that signs users in a role.
    fn seed(&self, role: Role) -> String {
        format!("{}/{}", self.path, seed_file(role))
    }
}

fn seed_file(role: Role) -> String {
    format!("{}.seed", role.name())
}

/// A folder that is being made, and where it will be in the store.
struct Place<'a> {
    sealing: &'a Sealing,
    folder: &'a files::NewDir,
    path: String,
}

impl Place<'_> {
    fn write_seed(&self, name: &str, key: &KeyPair) -> Result<(), KeyStoreError> {
        let place = format!("{}/{name}", self.path);
        let sealed = self.sealing.seal(&place, &seed(key)?)?;
        self.folder.write(name, &sealed)
    }
}

fn seed(key: &KeyPair) -> Result<Zeroizing<String>, ClaimsError> {
    key.seed().map(Zeroizing::new).map_err(ClaimsError::Sign)
}
