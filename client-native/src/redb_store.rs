//! The device's store on disk: redb behind the four methods of [`Store`].
//!
//! redb keeps a checksum of every page and never writes over what the newest
//! durable commit needs (see `docs/adr/0017-redb-behind-four-methods.md`). What
//! it lacks of what [`Store`] promises, this module adds: it
//! - has every checksum verified whenever the store is opened;
//! - counts commits, because after damage redb may fall back to the commit
//!   before the last one without a word;
//! - counts records, because a page that was damaged while the store was open
//!   gets a checksum again when redb changes it;
//! - turns redb's panics into [`StoreError::Corrupt`];
//! - refuses a commit while the disk is nearly full, before redb starts it.
//!
//! Keys and values come in sealed; nothing here looks into them.

mod failure;
mod head;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Durability, ReadableDatabase, TableDefinition};
use sotto_client_core::store::{Pairs, Store, StoreError, WriteBatch};

use failure::{Failure, guarded};
use head::Head;

pub use failure::guards_this_thread;

/// Everything: the caller's records, and the [`HEAD`].
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("store");

/// First byte of a record's key; the caller's key follows.
const RECORD: u8 = b'r';
/// The key of the [`Head`].
const HEAD: &[u8] = b"h";

/// The file whose lock says who has the store open.
const LOCK_FILE: &str = "lock";
/// redb's file.
const DATABASE_FILE: &str = "store.redb";
/// The newest generation, outside redb.
const NOTE_FILE: &str = "generation";

/// Memory that redb may use for pages, in bytes.
const CACHE: usize = 32 * 1024 * 1024;

/// Free space that a commit leaves untouched, in bytes: redb writes new pages
/// before it frees old ones, and writes when it opens and closes, too.
const HEADROOM: u64 = 4 * 1024 * 1024;

/// A [`Store`] in a directory of its own.
#[derive(Debug)]
pub struct RedbStore {
    directory: PathBuf,
    /// Held as long as the store lives.
    _lock: File,
    /// `None` after a failure: nothing that redb holds in memory is trusted.
    database: Option<Database>,
}

/// What an open database consists of.
#[derive(Debug)]
struct Database {
    redb: redb::Database,
    /// Where the newest generation is noted outside redb.
    note: File,
    head: Head,
}

impl RedbStore {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process, or another `RedbStore`, has
    /// it open; [`StoreError::Corrupt`] when anything that was committed is
    /// not there any more.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Failure::from)?;
        let lock = lock(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
            database: Some(guarded(|| Database::open(directory))?),
        })
    }

    /// Opens the files again after a failure.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.close()?;
        self.database = Some(guarded(|| Database::open(&self.directory))?);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        let database = self.database.take();
        guarded(|| {
            drop(database);
            Ok(())
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or_else(Failure::closed)?;
        Ok(guarded(|| read(database))?)
    }
}

impl Store for RedbStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| database.get(&record_key(key)))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, StoreError> {
        self.read(|database| database.scan(&record_key(prefix)))
    }

    fn commit(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        check_space(&self.directory, batch)?;
        let database = self.database.as_mut().ok_or_else(Failure::closed)?;
        if let Err(failure) = guarded(|| database.commit(batch)) {
            // What was first to fail is what a person is told.
            let _ = self.close();
            return Err(failure.into());
        }
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), StoreError> {
        // What goes away may fail to close.
        let _ = self.close();
        remove_all_but_the_lock(&self.directory)?;
        self.reopen()
    }
}

impl Database {
    fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(DATABASE_FILE);
        let redb = match path.try_exists()? {
            true => open_redb(private_file(&path)?)?,
            false => create(directory, &path)?,
        };
        let mut database = Self {
            redb,
            note: private_file(&directory.join(NOTE_FILE))?,
            head: Head::default(),
        };
        let head = database.get(HEAD)?.ok_or_else(Failure::damaged)?;
        database.head = Head::parse(&head)?;
        if database.head.generation < Head::noted(&database.note) {
            return Err(Failure::corrupt("its newest changes are missing"));
        }
        if database.head.records != database.count()? {
            return Err(Failure::corrupt("some of its records are missing"));
        }
        Ok(database)
    }

    /// How many records are there; reads every key once.
    fn count(&self) -> Result<u64, Failure> {
        let table = self.redb.begin_read()?.open_table(TABLE)?;
        let mut records = 0;
        for pair in table.range([RECORD].as_slice()..)? {
            pair?;
            records += 1;
        }
        Ok(records)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let table = self.redb.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Failure> {
        let table = self.redb.begin_read()?.open_table(TABLE)?;
        let mut pairs = Vec::new();
        for pair in table.range(prefix..)? {
            let (key, value) = pair?;
            if !key.value().starts_with(prefix) {
                break;
            }
            let (_, key) = key.value().split_first().ok_or_else(Failure::damaged)?;
            pairs.push((key.to_vec(), value.value().to_vec()));
        }
        Ok(pairs)
    }

    fn commit(&mut self, batch: &WriteBatch) -> Result<(), Failure> {
        self.head = write(&self.redb, batch, self.head)?;
        Ok(self.head.write_note(&self.note)?)
    }
}

/// A new database, durable under its name. It has another one until then: redb
/// does not open a file whose making was cut short.
fn create(directory: &Path, path: &Path) -> Result<redb::Database, Failure> {
    let prepared = path.with_extension("new");
    let file = private_file(&prepared)?;
    file.set_len(0)?;
    let redb = open_redb(file)?;
    write(&redb, &WriteBatch::default(), Head::default())?;
    fs::rename(&prepared, path)?;
    sync_directory(directory)?;
    if let Some(parent) = directory.parent() {
        sync_directory(parent)?;
    }
    Ok(redb)
}

fn open_redb(file: File) -> Result<redb::Database, Failure> {
    Ok(redb::Builder::new()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)?)
}

/// One transaction, on the disk when this returns; the head that it leaves.
fn write(redb: &redb::Database, batch: &WriteBatch, mut head: Head) -> Result<Head, Failure> {
    let mut transaction = redb.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    head.generation += 1;
    {
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in &batch.writes {
            let key = record_key(key);
            let old = match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                None => table.remove(key.as_slice())?,
            };
            head.records += u64::from(value.is_some());
            head.records = head.records.saturating_sub(u64::from(old.is_some()));
        }
        table.insert(HEAD, head.to_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(head)
}

/// The key of a record, or the start of the keys of several.
fn record_key(key: &[u8]) -> Vec<u8> {
    [&[RECORD], key].concat()
}

fn lock(directory: &Path) -> Result<File, Failure> {
    let file = private_file(&directory.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure(StoreError::InUse)),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn private_file(path: &Path) -> Result<File, Failure> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?)
}

fn remove_all_but_the_lock(directory: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.ends_with(LOCK_FILE) {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> Result<(), Failure> {
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    Ok(File::open(directory)?.sync_all()?)
}

/// Fails with [`StoreError::Full`] when the disk could not take the batch.
fn check_space(directory: &Path, batch: &WriteBatch) -> Result<(), Failure> {
    let filesystem = rustix::fs::statvfs(directory).map_err(std::io::Error::from)?;
    let free = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
    let sizes = batch.writes.iter();
    let bytes: usize = sizes
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
        .sum();
    if free < HEADROOM + 2 * bytes as u64 {
        return Err(Failure(StoreError::Full));
    }
    Ok(())
}
