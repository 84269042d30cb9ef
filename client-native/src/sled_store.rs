//! The device's store on disk: sled behind the four methods of [`Store`].
//!
//! sled alone promises less than [`Store`] does (measured on 0.34.7, see
//! `docs/adr/0003-sled-behind-four-methods.md`), so this module
//! - makes a commit durable itself: `flush()` does not fsync;
//! - cuts long values into pieces, because sled puts large pages into files
//!   that it never syncs;
//! - counts commits and records, because after damage sled may open an older
//!   or a thinner state without a word;
//! - turns sled's panics into [`StoreError::Corrupt`];
//! - refuses a commit while the disk is nearly full, before sled starts it.
//!
//! Keys and values come in sealed; nothing here looks into them.

mod failure;
mod layout;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sotto_client_core::store::{Store, StoreError, WriteBatch};

use failure::{Failure, guarded};
use layout::{HEAD, Head, KEY, RECORD, Value, record_key};

pub use failure::guards_this_thread;

/// Memory that sled may use for pages, in bytes.
const CACHE: u64 = 32 * 1024 * 1024;

/// Free space that a commit leaves untouched, in bytes: some of sled's 512 KiB
/// segments, so that sled itself does not run out in the middle.
const HEADROOM: u64 = 4 * 1024 * 1024;

/// How long an earlier store of this process may take to let go of its files.
const RELEASE: Duration = Duration::from_secs(5);

/// A [`Store`] in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    directory: PathBuf,
    /// Held as long as the store lives.
    _lock: File,
    /// `None` after a failure: nothing that sled holds in memory is trusted.
    database: Option<Database>,
}

/// What an open database consists of.
#[derive(Debug)]
struct Database {
    db: sled::Db,
    /// sled's log, opened once more to be synced.
    log: File,
    /// Where the newest generation is noted outside sled.
    note: File,
    head: Head,
}

impl SledStore {
    /// Opens the store in `directory`, which is made when it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process, or another `SledStore`, has
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
            database: Some(Database::open(directory)?),
        })
    }

    /// Opens the files again after a failure.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        drop(self.database.take());
        self.database = Some(Database::open(&self.directory)?);
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or_else(closed)?;
        Ok(guarded(|| read(database))?)
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| match database.db.get(record_key(key))? {
            Some(stored) => Ok(Some(database.whole(&stored)?)),
            None => Ok(None),
        })
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.read(|database| {
            let pairs = database.db.scan_prefix(record_key(prefix)).map(|pair| {
                let (key, stored) = pair?;
                let key = key.get(1..).ok_or_else(Failure::damaged)?;
                Ok((key.to_vec(), database.whole(&stored)?))
            });
            pairs.collect()
        })
    }

    fn commit(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        check_space(&self.directory, batch)?;
        let mut database = self.database.take().ok_or_else(closed)?;
        // On failure the database is closed: what sled holds of the batch in
        // memory must not be read as if it were durable.
        let committed = guarded(move || {
            database.commit(batch)?;
            Ok(database)
        });
        self.database = Some(committed?);
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), StoreError> {
        drop(self.database.take());
        remove_all_but_the_lock(&self.directory)?;
        self.database = Some(Database::open(&self.directory)?);
        Ok(())
    }
}

impl Database {
    fn open(directory: &Path) -> Result<Self, Failure> {
        let note = private_file(&directory.join("generation"))?;
        let db = open_sled(directory)?;
        let head = guarded(|| check(&db, Head::noted(&note)))?;
        let log = File::open(directory.join("db"))?;
        if head == Head::default() {
            // New: its name must survive a power cut as well as its content.
            log.sync_all()?;
            sync_directory(directory)?;
            if let Some(parent) = directory.parent() {
                sync_directory(parent)?;
            }
        }
        Ok(Self {
            db,
            log,
            note,
            head,
        })
    }

    fn commit(&mut self, batch: &WriteBatch) -> Result<(), Failure> {
        let mut changes = sled::Batch::default();
        let mut head = self.head.next();
        for (number, (key, value)) in (0u32..).zip(&batch.writes) {
            if key.len() > KEY {
                let reason = format!("a key is longer than {KEY} bytes");
                return Err(Failure(StoreError::Io(reason)));
            }
            let key = record_key(key);
            if let Some(old) = self.db.get(&key)? {
                head.records = head.records.saturating_sub(1);
                for piece in Value::parse(&old)?.piece_keys() {
                    changes.remove(piece);
                }
            }
            let Some(value) = value else {
                changes.remove(key);
                continue;
            };
            head.records += 1;
            let (value, pieces) = Value::lay_out(value, head.generation, number);
            for (piece_key, piece) in value.piece_keys().zip(pieces) {
                changes.insert(piece_key, piece);
            }
            changes.insert(key, value.to_bytes());
        }
        changes.insert(HEAD, &head.to_bytes());
        self.db.apply_batch(changes)?;
        self.db.flush()?;
        self.log.sync_all()?;
        self.head = head;
        head.write_note(&self.note)?;
        Ok(())
    }

    /// The caller's value from what is stored under its key.
    fn whole(&self, stored: &[u8]) -> Result<Vec<u8>, Failure> {
        let value = Value::parse(stored)?;
        if let Value::Inline(bytes) = value {
            return Ok(bytes.to_vec());
        }
        let mut whole = Vec::new();
        for key in value.piece_keys() {
            let piece = self.db.get(key)?.ok_or_else(Failure::damaged)?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// Compares what sled found with what was committed; reads every key once.
fn check(db: &sled::Db, noted_generation: u64) -> Result<Head, Failure> {
    let head = match db.get(HEAD)? {
        Some(bytes) => Head::parse(&bytes)?,
        None => Head::default(),
    };
    let mut records: u64 = 0;
    for key in db.scan_prefix([RECORD]).keys() {
        key?;
        records += 1;
    }
    let missing = if head.generation < noted_generation {
        "its newest changes are missing"
    } else if head.records != records {
        "some of its records are missing"
    } else {
        return Ok(head);
    };
    Err(Failure(StoreError::Corrupt(missing.into())))
}

/// The file whose lock says who has the store open.
const LOCK_FILE: &str = "lock";

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

/// Our own lock is held, so that only an earlier store of this very process
/// can still hold sled's: its threads let go a moment after it was dropped.
fn open_sled(directory: &Path) -> Result<sled::Db, Failure> {
    let config = sled::Config::new()
        .path(directory)
        .cache_capacity(CACHE)
        .flush_every_ms(None);
    let deadline = Instant::now() + RELEASE;
    loop {
        match guarded(|| Ok(config.open()))? {
            Err(error) if is_lock_failure(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            opened => return Ok(opened?),
        }
    }
}

fn is_lock_failure(error: &sled::Error) -> bool {
    const START: &str = "could not acquire lock";
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with(START))
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

fn closed() -> Failure {
    let reason = "it failed before and must be opened again";
    Failure(StoreError::Io(reason.into()))
}
