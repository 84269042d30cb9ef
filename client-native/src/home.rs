//! The folder of one device: its key file and its message store.
//!
//! | path | what |
//! |---|---|
//! | `key` | the storage key, wrapped by the passphrase; its presence means that the account is complete |
//! | `store/` | everything else, sealed |
//! | `directory` | what an admin has verified of the org's directory, sealed; may be deleted |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::rngs::OsRng;
use sotto_client_core::account::Account;
use sotto_client_core::engine::{Engine, OpenError};
use sotto_client_core::io::Output;
use sotto_client_core::store::{Store, StoreError};
use sotto_client_core::vault::{Vault, VaultError};
use zeroize::Zeroizing;

use crate::redb_store::RedbStore;

/// Longest key file that is read, in bytes.
const KEY_FILE: u64 = 64 * 1024;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Nobody has signed up here.
    #[error(
        "there is no account in {0}: sign up with `sotto signup`, or add this device to your account with `sotto device link`"
    )]
    NoAccount(String),
    /// Somebody has.
    #[error("there is an account in {0} already: choose another folder with --dir")]
    Occupied(String),
    /// The key file, or the passphrase for it.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The message store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the message store.
    #[error(transparent)]
    Content(#[from] OpenError),
    /// The folder itself.
    #[error("the folder {0} cannot be used: {1}")]
    Folder(String, io::Error),
}

/// Where one device keeps everything.
#[derive(Debug, Clone)]
pub struct Home {
    directory: PathBuf,
}

/// An engine with the store that it belongs to.
pub struct Opened {
    /// The engine.
    pub engine: Engine,
    /// Its store, which no other process can open meanwhile.
    pub store: RedbStore,
    /// Opens the engine again.
    pub lock: Lock,
}

/// What opens the vault again: the key file's content and the passphrase.
pub struct Lock {
    slot: Vec<u8>,
    passphrase: Zeroizing<String>,
}

impl Home {
    /// The home in this directory, which may not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Fails when an account is here.
    ///
    /// # Errors
    /// [`HomeError::Occupied`].
    pub fn check_vacant(&self) -> Result<(), HomeError> {
        match self.key_file().exists() {
            true => Err(HomeError::Occupied(self.shown())),
            false => Ok(()),
        }
    }

    /// Fails when no account is here.
    ///
    /// # Errors
    /// [`HomeError::NoAccount`].
    pub fn check_occupied(&self) -> Result<(), HomeError> {
        match self.key_file().exists() {
            true => Ok(()),
            false => Err(HomeError::NoAccount(self.shown())),
        }
    }

    /// Makes the device's store and writes the account to it, durably.
    ///
    /// # Errors
    /// [`HomeError::Occupied`], or when the disk refuses.
    pub fn create(&self, account: Account, passphrase: &str) -> Result<Opened, HomeError> {
        self.check_vacant()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|error| self.folder(error))?;
        let mut store = RedbStore::open(&self.store())?;
        // Left over from an attempt that did not end.
        store.wipe()?;
        let (vault, slot) = Vault::create(passphrase, &mut OsRng)?;
        let prepared = self.directory.join("key.new");
        write_durably(&prepared, &slot).map_err(|error| self.folder(error))?;

        let mut engine = Engine::create(account, vault, &mut OsRng)?;
        while let Some(output) = engine.poll_output() {
            if let Output::Persist(batch) = output {
                store.commit(&batch)?;
            }
        }
        fs::rename(&prepared, self.key_file())
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| self.folder(error))?;
        let lock = Lock {
            slot,
            passphrase: Zeroizing::new(passphrase.to_owned()),
        };
        Ok(Opened {
            engine,
            store,
            lock,
        })
    }

    /// Opens what is here.
    ///
    /// # Errors
    /// Every kind of [`HomeError`] but [`HomeError::Occupied`].
    pub fn open(&self, passphrase: &str) -> Result<Opened, HomeError> {
        let lock = Lock {
            slot: self.read_key_file()?,
            passphrase: Zeroizing::new(passphrase.to_owned()),
        };
        let vault = lock.unlock()?;
        let store = RedbStore::open(&self.store())?;
        let engine = Engine::open(&store, vault)?;
        Ok(Opened {
            engine,
            store,
            lock,
        })
    }

    /// Removes the account again, the key first: without it nothing that is
    /// left can be read.
    ///
    /// # Errors
    /// When something may still be there.
    pub fn remove(&self, opened: Opened) -> Result<(), HomeError> {
        fs::remove_file(self.key_file()).map_err(|error| self.folder(error))?;
        let Opened { mut store, .. } = opened;
        Ok(store.wipe()?)
    }

    /// Where an admin's device keeps what it has verified of the directory.
    pub fn kept_directory(&self) -> PathBuf {
        self.directory.join("directory")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn key_file(&self) -> PathBuf {
        self.directory.join("key")
    }

    fn read_key_file(&self) -> Result<Vec<u8>, HomeError> {
        let file = match File::open(self.key_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HomeError::NoAccount(self.shown()));
            }
            Err(error) => return Err(self.folder(error)),
        };
        let mut slot = Vec::new();
        file.take(KEY_FILE)
            .read_to_end(&mut slot)
            .map_err(|error| self.folder(error))?;
        Ok(slot)
    }

    fn shown(&self) -> String {
        self.directory.display().to_string()
    }

    fn folder(&self, error: io::Error) -> HomeError {
        match error.kind() {
            io::ErrorKind::StorageFull => HomeError::Store(StoreError::Full),
            _ => HomeError::Folder(self.shown(), error),
        }
    }
}

impl Lock {
    /// The vault once more.
    ///
    /// # Errors
    /// [`VaultError`].
    pub(crate) fn unlock(&self) -> Result<Vault, VaultError> {
        Vault::unlock(&self.slot, &self.passphrase)
    }
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
