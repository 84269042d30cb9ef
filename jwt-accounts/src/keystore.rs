//! The secret keys of one server on disk: the operator, the system account and
//! two accounts per org, each with an identity key and a signing key.
//!
//! ```text
//! operator/              identity.seed  signing.seed  operator.jwt
//! system/                identity.seed  signing.seed  account.jwt
//! orgs/<org>/org/        identity.seed  signing.seed  account.jwt
//! orgs/<org>/devices/    identity.seed  signing.seed  account.jwt
//! ```
//!
//! Only signing keys are read in daily work; identity seeds may be moved
//! offline ([`KeyStore::detach`]). Seeds are sealed under a passphrase
//! (`sealing`), which is not asked for before one is needed, are never printed,
//! and files are owner-only: one that others can read is refused. A folder
//! appears whole or not at all.

mod adopt;
mod detach;
pub(crate) mod files;
mod limits;
mod rotation;
mod sealing;
mod seeds;

pub use detach::Detachable;
pub use limits::StorageLimits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nkeys::{KeyPair, KeyPairType};
use sotto_proto::OrgName;
use sotto_proto::limits::JWT;
use zeroize::Zeroizing;

use crate::claims::{Account, Claims, ClaimsError, Operator};
use crate::credentials::Credentials;
use crate::nsc::NscError;
use crate::signer::{AccountSigner, Signer};
use crate::{accounts, grants};
use sealing::Sealing;

const OPERATOR: &str = "operator";
const SYSTEM: &str = "system";
const ORGS: &str = "orgs";
const ORG: &str = "org";
const DEVICES: &str = "devices";
const IDENTITY_SEED: &str = "identity.seed";
const SIGNING_SEED: &str = "signing.seed";
const OPERATOR_JWT: &str = "operator.jwt";
const ACCOUNT_JWT: &str = "account.jwt";

/// The keys of one server.
pub struct KeyStore {
    dir: PathBuf,
    sealing: Sealing,
    operator_id: String,
    operator_jwt: String,
    /// Public keys of the operator, each of which may have signed an account.
    operator_keys: Vec<String>,
    system: StoredAccount,
}

/// An account's JWT, whose signature was checked, and its public key.
struct StoredAccount {
    id: String,
    jwt: String,
    issued_s: i64,
    claims: Claims<Account>,
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
        "the keys in {0} are not sealed: a server made by an older version; make a new one with `sotto-gateway init`"
    )]
    NotSealed(PathBuf),
    /// The passphrase is elsewhere.
    #[error(
        "the passphrase that opens the keys is not in {0}: bring that file back, or name another in SOTTO_UNLOCK_FILE"
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

impl KeyStore {
    /// Draws the operator's and the system account's keys and stores them in
    /// `dir`, which must not exist.
    ///
    /// # Errors
    /// [`KeyStoreError::Exists`], [`KeyStoreError::Io`].
    pub fn create(dir: &Path, now_ms: i64) -> Result<Self, KeyStoreError> {
        let signing = KeyPair::new_operator();
        let operator = NewOperator {
            identity: KeyPair::new_operator(),
            name: "sotto".to_owned(),
            expires_s: None,
            nats: Operator {
                signing_keys: vec![signing.public_key()],
                system_account: String::new(),
                strict_signing_keys: true,
                other: BTreeMap::new(),
            },
            signing,
        };
        Self::make(dir, operator, now_ms)
    }

    /// Stores an operator with a new system account.
    fn make(dir: &Path, operator: NewOperator, now_ms: i64) -> Result<Self, KeyStoreError> {
        let NewOperator {
            identity,
            signing,
            name,
            expires_s,
            nats,
        } = operator;
        let system = NewAccount::draw();
        let system_account = accounts::system(system.signing.public_key());
        let claims = Claims {
            subject: identity.public_key(),
            name,
            expires_s,
            nats: Operator {
                system_account: system.identity.public_key(),
                ..nats
            },
        };
        let now_s = now_ms.div_euclid(1_000);
        let operator_jwt = claims.sign(&identity, now_s)?;

        files::create_dir(dir, |new| {
            let sealing = Sealing::create(dir, new)?;
            let folder = files::NewDir::within(new, OPERATOR)?;
            for (name, key) in [(IDENTITY_SEED, &identity), (SIGNING_SEED, &signing)] {
                let place = format!("{OPERATOR}/{name}");
                folder.write(name, &sealing.seal(&place, &seed(key)?)?)?;
            }
            folder.write(OPERATOR_JWT, &operator_jwt)?;
            folder.finish()?;
            let folder = files::NewDir::within(new, SYSTEM)?;
            let place = Place {
                sealing: &sealing,
                folder: &folder,
                path: SYSTEM.to_owned(),
            };
            system.write(&place, "SYS", system_account, &signing, now_s)?;
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
        let path = dir.join(OPERATOR).join(OPERATOR_JWT);
        let operator_jwt = files::read(&path)?;
        let verified = Claims::<Operator>::verify(&operator_jwt)
            .map_err(|_| KeyStoreError::Damaged(path.clone()))?;
        let operator_id = verified.claims.subject;
        let operator = verified.claims.nats;
        let system = read_account(&dir.join(SYSTEM), &operator.signing_keys)?;
        if system.id != operator.system_account {
            return Err(KeyStoreError::Damaged(path));
        }
        Ok(Self {
            dir: dir.to_owned(),
            sealing,
            operator_id,
            operator_jwt: operator_jwt.to_string(),
            operator_keys: operator.signing_keys,
            system,
        })
    }

    /// Draws the keys of an org's accounts.
    ///
    /// # Errors
    /// [`KeyStoreError::Exists`], [`KeyStoreError::Io`].
    pub fn add_org(&self, org: &OrgName, now_ms: i64) -> Result<(), KeyStoreError> {
        let (keys, device_keys) = (NewAccount::draw(), NewAccount::draw());
        let account = accounts::org(keys.signing.public_key());
        let devices = accounts::devices(
            device_keys.signing.public_key(),
            &keys.identity.public_key(),
        );
        let now_s = now_ms.div_euclid(1_000);
        let operator = self.operator_key()?;
        files::create_dir(&self.org_dir(org), |new| {
            let accounts = [
                (ORG, keys, org.to_string(), account),
                (DEVICES, device_keys, format!("{org} devices"), devices),
            ];
            for (which, keys, name, account) in accounts {
                let folder = files::NewDir::within(new, which)?;
                let place = Place {
                    sealing: &self.sealing,
                    folder: &folder,
                    path: format!("{ORGS}/{org}/{which}"),
                };
                keys.write(&place, &name, account, &operator, now_s)?;
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

    /// The operator's public key.
    pub fn operator_id(&self) -> &str {
        &self.operator_id
    }

    /// For `operator` in `nats.conf`.
    pub fn operator_jwt(&self) -> &str {
        &self.operator_jwt
    }

    /// For `system_account` in `nats.conf`.
    pub fn system_account(&self) -> &str {
        &self.system.id
    }

    /// The system account's JWT.
    pub fn system_account_jwt(&self) -> &str {
        &self.system.jwt
    }

    /// The JWTs of an org's accounts, each for [`crate::push_account`], in this
    /// order.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn account_jwts(&self, org: &OrgName) -> Result<[String; 2], KeyStoreError> {
        Ok([self.account(org, ORG)?.jwt, self.account(org, DEVICES)?.jwt])
    }

    /// What signs the users of an org.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn account_signer(&self, org: &OrgName) -> Result<AccountSigner, KeyStoreError> {
        let signer_of = |which| {
            let account = self.account(org, which)?;
            self.signer(&format!("{ORGS}/{org}/{which}"), account)
        };
        Ok(AccountSigner {
            org: signer_of(ORG)?,
            devices: signer_of(DEVICES)?,
        })
    }

    /// The system account and every org's accounts.
    ///
    /// # Errors
    /// When an org's files do not read.
    pub fn resolver_preload(&self) -> Result<Vec<PreloadedAccount>, KeyStoreError> {
        let mut accounts = vec![PreloadedAccount {
            id: self.system.id.clone(),
            jwt: self.system.jwt.clone(),
        }];
        for org in self.orgs()? {
            for which in [ORG, DEVICES] {
                let StoredAccount { id, jwt, .. } = self.account(&org, which)?;
                accounts.push(PreloadedAccount { id, jwt });
            }
        }
        Ok(accounts)
    }

    /// Credentials, with a new nkey, of a user of the system account.
    ///
    /// # Errors
    /// When the system account's files do not read.
    pub fn system_credentials(&self, now_ms: i64) -> Result<Credentials, KeyStoreError> {
        let account = read_account(&self.dir.join(SYSTEM), &self.operator_keys)?;
        let signer = self.signer(SYSTEM, account)?;
        let user = grants::system(&signer.account);
        Ok(signer.credentials("system", user, now_ms)?)
    }

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
        self.change_account(org, DEVICES, now_ms, |account| {
            let revocations = &mut account.revocations;
            for (key, until_s) in nats_keys {
                let voided = revocations.entry(key.clone()).or_insert(*until_s);
                *voided = (*voided).max(*until_s);
            }
            revocations.retain(|_, until_s| until_s.saturating_add(lifetime_s) >= now_s);
        })
    }

    /// Stores an account as `change` leaves it and returns its JWT: the same
    /// one when that changes nothing. Others wait meanwhile.
    fn change_account(
        &self,
        org: &OrgName,
        which: &str,
        now_ms: i64,
        change: impl FnOnce(&mut Account),
    ) -> Result<String, KeyStoreError> {
        let dir = self.existing_org_dir(org)?.join(which);
        let _locked = files::lock(&dir)?;
        let mut stored = read_account(&dir, &self.operator_keys)?;
        let before = stored.claims.nats.clone();
        change(&mut stored.claims.nats);
        if stored.claims.nats == before {
            return Ok(stored.jwt);
        }
        // The resolver keeps the newer of two, by the second.
        let now_s = now_ms.div_euclid(1_000).max(stored.issued_s);
        let jwt = stored.claims.sign(&self.operator_key()?, now_s)?;
        files::replace(&dir.join(ACCOUNT_JWT), &jwt)?;
        Ok(jwt)
    }

    /// The operator's key that signs accounts.
    fn operator_key(&self) -> Result<KeyPair, KeyStoreError> {
        let place = format!("{OPERATOR}/{SIGNING_SEED}");
        let key = self.read_key(&place, KeyPairType::Operator)?;
        if self.operator_keys.contains(&key.public_key()) {
            Ok(key)
        } else {
            Err(KeyStoreError::Damaged(self.dir.join(place)))
        }
    }

    fn signer(&self, folder: &str, account: StoredAccount) -> Result<Signer, KeyStoreError> {
        let place = format!("{folder}/{SIGNING_SEED}");
        let key = self.read_key(&place, KeyPairType::Account)?;
        if !account.claims.nats.signing_keys.contains(&key.public_key()) {
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

    fn account(&self, org: &OrgName, which: &str) -> Result<StoredAccount, KeyStoreError> {
        read_account(
            &self.existing_org_dir(org)?.join(which),
            &self.operator_keys,
        )
    }

    fn existing_org_dir(&self, org: &OrgName) -> Result<PathBuf, KeyStoreError> {
        let dir = self.org_dir(org);
        if dir.is_dir() {
            Ok(dir)
        } else {
            Err(KeyStoreError::UnknownOrg(org.clone()))
        }
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

/// An operator before it is stored; its system account is not drawn yet.
struct NewOperator {
    identity: KeyPair,
    /// One of the signing keys in `nats`.
    signing: KeyPair,
    name: String,
    expires_s: Option<i64>,
    nats: Operator,
}

/// An account's keys before they are stored.
struct NewAccount {
    identity: KeyPair,
    signing: KeyPair,
}

impl NewAccount {
    fn draw() -> Self {
        Self {
            identity: KeyPair::new_account(),
            signing: KeyPair::new_account(),
        }
    }

    fn write(
        &self,
        place: &Place<'_>,
        name: &str,
        account: Account,
        operator: &KeyPair,
        now_s: i64,
    ) -> Result<(), KeyStoreError> {
        let claims = Claims {
            subject: self.identity.public_key(),
            name: name.to_owned(),
            expires_s: None,
            nats: account,
        };
        place.write_seed(IDENTITY_SEED, &self.identity)?;
        place.write_seed(SIGNING_SEED, &self.signing)?;
        let jwt = claims.sign(operator, now_s)?;
        place.folder.write(ACCOUNT_JWT, &jwt)
    }
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

fn read_account(dir: &Path, operator_keys: &[String]) -> Result<StoredAccount, KeyStoreError> {
    let path = dir.join(ACCOUNT_JWT);
    let jwt = files::read(&path)?;
    match Claims::<Account>::verify(&jwt) {
        Ok(verified) if operator_keys.contains(&verified.issuer) => Ok(StoredAccount {
            id: verified.claims.subject.clone(),
            jwt: jwt.to_string(),
            issued_s: verified.issued_s,
            claims: verified.claims,
        }),
        _ => Err(KeyStoreError::Damaged(path)),
    }
}

fn seed(key: &KeyPair) -> Result<Zeroizing<String>, ClaimsError> {
    key.seed().map(Zeroizing::new).map_err(ClaimsError::Sign)
}
