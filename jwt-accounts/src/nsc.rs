//! The keys and JWTs of an operator as `nsc`, the tool of the NATS project,
//! keeps them: written for whoever works with that, and read from it.
//!
//! ```text
//! stores/<operator>/.nsc                                    what this is
//! stores/<operator>/<operator>.jwt
//! stores/<operator>/accounts/<account>/<account>.jwt
//! stores/<operator>/accounts/<account>/users/<user>.jwt
//! keys/keys/<K>/<XX>/<public key>.nk                        seeds
//! keys/creds/<operator>/<account>/<user>.creds
//! ```
//!
//! `K` is the first character of the public key and `XX` the next two. `nsc`
//! takes the two folders as `--data-dir` and `--keystore-dir`. JWTs are copied
//! as they are and never encoded again. Source of the layout:
//! <https://github.com/nats-io/nsc>, package `cmd/store`.
//!
//! Seeds in such a folder are *not* sealed: [`export`] writes them only when
//! told to, and nothing here shows one. What is read was made by somebody else:
//! no link is followed, everything is bounded, and no JWT is believed before
//! its signature and its signer's right to it are checked.

mod claims;
mod export;
mod folder;
mod import;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::claims::Operator;
use crate::claims::Verified;
use crate::credentials::{Credentials, CredentialsError};

pub(crate) use claims::NscUserClaims;
pub use export::{Exported, Seeds, export};
pub use import::import;

const STORES: &str = "stores";
const ACCOUNTS: &str = "accounts";
const USERS: &str = "users";
const KEYS: &str = "keys";
const CREDS: &str = "creds";
const INFO: &str = ".nsc";
const INFO_KIND: &str = "operator";
const INFO_VERSION: &str = "1";
/// Longest name of an operator, account or user that is taken, in bytes.
const NAME_MAX: usize = 200;

/// An operator by `nsc`, whose JWTs were checked.
#[derive(Debug)]
pub struct NscStore {
    /// The operator's JWT.
    pub operator: NscToken,
    pub(crate) claims: Verified<Operator>,
    /// Its accounts, by name.
    pub accounts: Vec<NscAccount>,
    pub(crate) seeds: NscSeeds,
}

/// A JWT as it was in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NscToken {
    /// The name in it, and of its file.
    pub name: String,
    /// The public key that it is about.
    pub id: String,
    /// The JWT.
    pub jwt: String,
}

/// An account in such a store.
#[derive(Debug)]
pub struct NscAccount {
    /// Its JWT.
    pub token: NscToken,
    /// Its users, by name.
    pub users: Vec<NscUser>,
}

/// A user in such a store.
#[derive(Debug)]
pub struct NscUser {
    /// Its JWT.
    pub token: NscToken,
    /// Its creds file, if that is there.
    pub credentials: Option<Credentials>,
}

/// Seeds by public key. `Debug` says how many.
#[derive(Default)]
pub(crate) struct NscSeeds(BTreeMap<String, Zeroizing<String>>);

/// Why a store by `nsc` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NscError {
    /// A file or a folder is missing or does not read.
    #[error("{path}: {error}; name the folder that has nsc's `stores` and `keys` in it")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        error: std::io::Error,
    },
    /// Neither a plain file nor a plain folder.
    #[error("{0} is a link or not of the kind expected here: put a copy of the real one there")]
    Link(PathBuf),
    /// Other users of the machine can read a secret.
    #[error("{0} can be read by other users of this machine: make it private with chmod 600")]
    Exposed(PathBuf),
    /// More than is read.
    #[error("{0} is larger than anything nsc writes there: check what it is and remove it")]
    TooLarge(PathBuf),
    /// There are more files than are read.
    #[error("{0} has more entries than are read: export the operator alone into a new store")]
    TooMany(PathBuf),
    /// There is no operator, or not the one that was named.
    #[error("there is no operator in {0}: name the folder that has nsc's `stores` in it")]
    NoOperator(PathBuf),
    /// There are several operators.
    #[error("there are several operators, {0}: say which one")]
    WhichOperator(String),
    /// Somebody else is the operator.
    #[error("the operator `{0}` is managed elsewhere: use the store of whoever has its keys")]
    Managed(String),
    /// A file is not what it should be.
    #[error("{path}: {problem}; restore it from a backup, or let `nsc` make it again")]
    Unfit {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A creds file is damaged.
    #[error("{path}: {error}")]
    Credentials {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: CredentialsError,
    },
    /// The operator's own seed is not there.
    #[error(
        "the seed of the operator `{0}` itself is not in the keys folder: bring its .nk file back, it signs the operator's JWT once more"
    )]
    NoIdentity(String),
    /// The operator has no signing key whose seed is there.
    #[error(
        "the operator `{0}` has no signing key whose seed is in the keys folder: make one with `nsc edit operator --sk generate`"
    )]
    NoSigningKey(String),
    /// The operator's JWT has run out.
    #[error(
        "the JWT of the operator `{0}` has expired: renew it with `nsc edit operator --expiry`"
    )]
    Expired(String),
}

/// The file that says what a store is.
#[derive(Serialize, Deserialize)]
struct Info {
    managed: bool,
    name: String,
    kind: String,
    version: String,
}

impl NscStore {
    /// How many of the seeds of the keys that the JWTs name are there.
    pub fn seeds(&self) -> usize {
        self.seeds.0.len()
    }
}

impl NscSeeds {
    pub(crate) fn get(&self, public_key: &str) -> Option<&str> {
        self.0.get(public_key).map(|seed| seed.as_str())
    }
}

impl std::fmt::Debug for NscSeeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NscSeeds({})", self.0.len())
    }
}

/// A name as part of a path; none when it would lead elsewhere.
fn file_name(name: &str) -> Option<&str> {
    let plain = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.trim() == name
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control);
    plain.then_some(name)
}

fn operator_dir(operator: &str) -> PathBuf {
    Path::new(STORES).join(operator)
}

fn account_dir(operator: &str, account: &str) -> PathBuf {
    operator_dir(operator).join(ACCOUNTS).join(account)
}

/// Where a public key's seed is; none when it is not a public key.
fn key_file(public_key: &str) -> Option<PathBuf> {
    let (kind, shard) = (public_key.get(..1)?, public_key.get(1..3)?);
    let dir = Path::new(KEYS).join(KEYS).join(kind).join(shard);
    Some(dir.join(format!("{public_key}.nk")))
}

fn creds_file(operator: &str, account: &str, user: &str) -> PathBuf {
    let dir = Path::new(KEYS).join(CREDS).join(operator).join(account);
    dir.join(format!("{user}.creds"))
}

fn jwt_file(name: &str) -> String {
    format!("{name}.jwt")
}
