//! The device's state in memory and what of it changed: everything that is
//! not history is loaded when the engine opens and written back, sealed, in
//! one batch per drained input. MLS writes here too (see [`crate::mls`]), so
//! that a message, the ratchet it moved and the cursor behind it are durable
//! together or not at all.

mod key;
mod runs;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngCore};
use rmp_serde::config::BytesMode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::{Store, StoreError, WriteBatch};
use crate::vault::{Vault, VaultError};
use crate::wiped::Wiped;

use key::{HISTORY, STATE};
use runs::Runs;

pub(crate) use key::{Key, early_of, frames_of, outbox_of, resends_of};
pub(crate) use runs::Reader;

/// Format of the records. A store with another one is refused, not guessed at.
pub(crate) const FORMAT: u32 = 6;

/// Why the state could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record does not open or does not read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Written by a version of Sotto that this one does not understand.
    #[error("this folder was written by another version of sotto (format {0}): update sotto")]
    Format(u32),
}

impl RecordsError {
    pub(crate) fn damaged() -> Self {
        Self::Vault(VaultError::Damaged("message store"))
    }
}

/// All state, and the changes since the last [`Records::take_batch`].
///
/// Interior mutability because openmls' storage trait writes through `&self`.
pub(crate) struct Records {
    vault: Vault,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    values: BTreeMap<Key, Wiped>,
    changed: BTreeSet<Key>,
    /// Which of the values are on the disk together.
    runs: Runs,
    /// What is not kept here once it is written.
    appended: BTreeMap<Key, Wiped>,
    /// While a savepoint is set: what each key changed since held before.
    undo: Option<BTreeMap<Key, Option<Wiped>>>,
}

impl Records {
    /// State of a device that was just made.
    pub(crate) fn new(vault: Vault) -> Self {
        let records = Self {
            vault,
            inner: RefCell::default(),
        };
        records.put(Key::Format, &FORMAT);
        records
    }

    /// What seals them.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Loads the state of a device.
    pub(crate) fn load(store: &dyn Store, vault: Vault) -> Result<Self, RecordsError> {
        let mut values = BTreeMap::new();
        let mut runs = Runs::default();
        for (name, sealed) in store.scan(&[STATE])? {
            let name = name.get(1..).unwrap_or_default();
            let (key, value) = vault.open(name, &sealed)?;
            let key = Key::decode(&key).ok_or_else(RecordsError::damaged)?;
            match key.in_series() {
                Some(_) => values.extend(runs.load(key, &value)?),
                None => values.extend([(key, value)]),
            }
        }
        let records = Self {
            vault,
            inner: RefCell::new(Inner {
                values,
                runs,
                ..Inner::default()
            }),
        };
        match records.get::<u32>(&Key::Format)? {
            Some(FORMAT) => Ok(records),
            Some(other) => Err(RecordsError::Format(other)),
            None => Err(RecordsError::damaged()),
        }
    }

    pub(crate) fn get_bytes(&self, key: &Key) -> Option<Wiped> {
        self.inner.borrow().values.get(key).cloned()
    }

    pub(crate) fn put_bytes(&self, key: Key, value: impl Into<Wiped>) {
        self.change(key, Some(value.into()));
    }

    pub(crate) fn delete(&self, key: Key) {
        self.change(key, None);
    }

    /// Reads a record that [`Records::put`] wrote.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, RecordsError> {
        let inner = self.inner.borrow();
        inner.values.get(key).map(|value| decode(value)).transpose()
    }

    pub(crate) fn put(&self, key: Key, value: &impl Serialize) {
        self.put_bytes(key, encode(value));
    }

    /// Writes a record that is not kept in memory; one of a series only once.
    pub(crate) fn append(&self, key: Key, value: &impl Serialize) {
        self.inner.borrow_mut().appended.insert(key, encode(value));
    }

    /// Reads a record that [`Records::append`] wrote alone: from the store, or
    /// not yet written.
    pub(crate) fn read_appended<T: DeserializeOwned>(
        &self,
        store: &dyn Store,
        key: &Key,
    ) -> Result<Option<T>, RecordsError> {
        if let Some(value) = self.inner.borrow().appended.get(key) {
            return decode(value).map(Some);
        }
        let name = self.vault.name(&key.encode());
        match store.get(&disk_name(HISTORY, &name))? {
            Some(sealed) => decode(&self.vault.open(&name, &sealed)?.1).map(Some),
            None => Ok(None),
        }
    }

    /// Every key between two, in order.
    pub(crate) fn keys(&self, range: std::ops::RangeInclusive<Key>) -> Vec<Key> {
        self.inner
            .borrow()
            .values
            .range(range)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Visits what is between two keys, in order, until something is found.
    pub(crate) fn find<T>(
        &self,
        range: std::ops::RangeInclusive<Key>,
        mut found: impl FnMut(&Key, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let inner = self.inner.borrow();
        let mut values = inner.values.range(range);
        values.find_map(|(key, value)| found(key, value))
    }

    /// Every key, in order.
    pub(crate) fn all_keys(&self) -> Vec<Key> {
        self.inner.borrow().values.keys().cloned().collect()
    }

    /// Changes from here on can be taken back by [`Records::roll_back`].
    pub(crate) fn savepoint(&self) {
        self.inner.borrow_mut().undo = Some(BTreeMap::new());
    }

    /// Takes back every change since [`Records::savepoint`].
    pub(crate) fn roll_back(&self) {
        let mut inner = self.inner.borrow_mut();
        for (key, before) in inner.undo.take().into_iter().flatten() {
            match before {
                Some(value) => inner.values.insert(key, value),
                None => inner.values.remove(&key),
            };
        }
    }

    /// Keeps the changes since [`Records::savepoint`].
    pub(crate) fn keep(&self) {
        self.inner.borrow_mut().undo = None;
    }

    /// What must be written, sealed; `None` when nothing changed.
    pub(crate) fn take_batch(
        &self,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Option<WriteBatch>, VaultError> {
        let mut inner = self.inner.borrow_mut();
        let Inner {
            values,
            changed,
            runs,
            appended,
            ..
        } = &mut *inner;
        let (in_series, alone): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(changed)
            .into_iter()
            .partition(|key| key.in_series().is_some());
        let state = alone.iter().map(|key| (key, values.get(key)));
        let in_series = runs.changed(in_series, values);
        let in_series = in_series.iter().map(|(key, run)| (key, run.as_ref()));
        let appended = runs::of(std::mem::take(appended));
        let appended = appended
            .iter()
            .map(|run| (run.keys.start(), Some(&run.bytes)));
        let mut batch = WriteBatch::default();
        for (key, value) in state.chain(in_series).chain(appended) {
            let logical = key.encode();
            let (name, value) = match value {
                Some(value) => {
                    let sealed = self.vault.seal(&logical, key.room(), value, rng)?;
                    (sealed.name, Some(sealed.value))
                }
                None => (self.vault.name(&logical), None),
            };
            batch.writes.insert(disk_name(key.table(), &name), value);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn change(&self, key: Key, value: Option<Wiped>) {
        let mut inner = self.inner.borrow_mut();
        if inner.values.get(&key) == value.as_ref() {
            return;
        }
        let before = match value {
            Some(value) => inner.values.insert(key.clone(), value),
            None => inner.values.remove(&key),
        };
        if let Some(undo) = &mut inner.undo {
            undo.entry(key.clone()).or_insert(before);
        }
        inner.changed.insert(key);
    }
}

fn disk_name(table: u8, name: &[u8]) -> Vec<u8> {
    [&[table][..], name].concat()
}

/// MessagePack with byte strings as such: a quarter of JSON's size, and it
/// reloads every openmls type.
pub(crate) fn encode(value: &impl Serialize) -> Wiped {
    let mut bytes = Wiped::default();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_bytes(BytesMode::ForceAll);
    // Writing to memory does not fail, and no record has a type that
    // MessagePack lacks; an empty value would be refused when read.
    match value.serialize(&mut serializer) {
        Ok(()) => bytes,
        Err(_) => Wiped::default(),
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordsError> {
    rmp_serde::from_slice(bytes).map_err(|_| RecordsError::damaged())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::store::MemoryStore;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    /// One for all: Argon2 takes its time.
    pub(super) fn vault() -> Vault {
        static VAULT: OnceLock<Vault> = OnceLock::new();
        let make = || Vault::create("p", &mut ChaCha20Rng::seed_from_u64(3)).unwrap();
        VAULT.get_or_init(|| make().0).clone()
    }

    #[test]
    fn state_is_there_after_reopening() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut store = MemoryStore::default();
        let records = Records::new(vault());
        records.put(Key::Post(1), &"kept".to_owned());
        records.put(Key::Post(2), &"deleted".to_owned());
        store
            .commit(&records.take_batch(&mut rng).unwrap().unwrap())
            .unwrap();
        records.delete(Key::Post(2));
        store
            .commit(&records.take_batch(&mut rng).unwrap().unwrap())
            .unwrap();
        assert!(records.take_batch(&mut rng).unwrap().is_none());

        let again = Records::load(&store, vault()).unwrap();
        assert_eq!(
            again.get::<String>(&Key::Post(1)).unwrap().as_deref(),
            Some("kept")
        );
        assert_eq!(again.get::<String>(&Key::Post(2)).unwrap(), None);
    }

    #[test]
    fn a_roll_back_takes_back_everything_since() {
        let records = Records::new(vault());
        records.put(Key::Post(1), &1u8);
        records.savepoint();
        records.put(Key::Post(1), &2u8);
        records.delete(Key::Post(1));
        records.put(Key::Post(2), &3u8);
        records.roll_back();
        assert_eq!(records.get::<u8>(&Key::Post(1)).unwrap(), Some(1));
        assert_eq!(records.get::<u8>(&Key::Post(2)).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut store = MemoryStore::default();
        let mut batch = Records::new(vault()).take_batch(&mut rng).unwrap().unwrap();
        for value in batch.writes.values_mut().flatten() {
            value.reverse();
        }
        store.commit(&batch).unwrap();
        assert!(matches!(
            Records::load(&store, vault()),
            Err(RecordsError::Vault(_))
        ));
    }
}
