//! The device's state in memory and what of it changed: everything that is
//! not history is loaded when the engine opens and written back, sealed, in
//! one batch per drained input. MLS writes here too (see [`crate::mls`]), so
//! that a message, the ratchet it moved and the cursor behind it are durable
//! together or not at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rand::{CryptoRng, RngCore};
use rmp_serde::config::BytesMode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sotto_proto::{FileId, RoomId, UserName};
use zeroize::Zeroizing;

use crate::store::{Store, StoreError, WriteBatch};
use crate::vault::{Vault, VaultError};

/// First byte of the stored name of state, which is read when opening.
const STATE: u8 = b'S';
/// First byte of the stored name of history, which is read when asked for.
const HISTORY: u8 = b'H';

/// Format of the records. A store with another one is refused, not guessed at.
pub(crate) const FORMAT: u32 = 4;

/// Numbered records of which the disk shows that they belong together: they are
/// mostly written together, and a tree of pages pays for each page.
const NEIGHBOURS: u64 = 16;

/// The logical name of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// `u32`: [`FORMAT`].
    Format,
    /// [`crate::account::Account`].
    Account,
    /// `u64`: sequence of the last inbox message that was taken in.
    InboxCursor,
    /// `u64`: the first entry of the directory's log of which it was not said
    /// that whoever runs the server stepped in.
    InterventionsSeen,
    /// The identity key first seen for a user, 32 bytes.
    Contact(UserName),
    /// [`crate::room::RoomRecord`].
    Room(RoomId),
    /// [`crate::room::PendingCommit`].
    Commit(RoomId),
    /// [`crate::room::Flight`].
    Flight(RoomId),
    /// The payload of a frame of it, by the frame's number.
    Frame(RoomId, u64),
    /// An entry (protobuf) that waits to be sent, by counter.
    Outbox(RoomId, u64),
    /// A message for an inbox or a blob subject that waits to be sent.
    Post(u64),
    /// An invitation (protobuf) whose ratchet tree is still to be fetched.
    Invitation(RoomId),
    /// [`crate::engine::UploadProgress`].
    Upload(FileId),
    /// A file that this device has sent lately, by its SHA-256.
    SentFile([u8; 32]),
    /// A value of openmls; of a room when that can be told from its key.
    Mls(Option<RoomId>, Vec<u8>),
    /// [`crate::history::HistoryRecord`], by position.
    History(RoomId, u64),
    /// [`crate::history::Said`], by own counter.
    Said(RoomId, u64),
    /// [`crate::commits::PastCommits`].
    PastCommits(RoomId),
    /// [`crate::resend::EpochKeys`].
    EpochKeys(RoomId),
    /// [`crate::resend::Resend`], by own counter.
    Resend(RoomId, u64),
    /// [`crate::room::EarlyMessage`], by its sequence.
    Early(RoomId, u64),
}

impl Key {
    fn room(&self) -> Option<&RoomId> {
        match self {
            Self::Room(room)
            | Self::Commit(room)
            | Self::Flight(room)
            | Self::Frame(room, _)
            | Self::Outbox(room, _)
            | Self::Invitation(room)
            | Self::Mls(Some(room), _)
            | Self::History(room, _)
            | Self::Said(room, _)
            | Self::PastCommits(room)
            | Self::EpochKeys(room)
            | Self::Resend(room, _)
            | Self::Early(room, _) => Some(room),
            _ => None,
        }
    }

    fn table(&self) -> u8 {
        if matches!(self, Self::History(..) | Self::Said(..)) {
            HISTORY
        } else {
            STATE
        }
    }

    /// One tag byte, the parts, of which the last takes the rest, and the place
    /// among [`NEIGHBOURS`] (see [`Vault::name`]).
    fn encode(&self) -> Vec<u8> {
        let (tag, parts, number): (u8, [&[u8]; 2], Option<u64>) = match self {
            Self::Format => (0, [b"", b""], None),
            Self::Account => (1, [b"", b""], None),
            Self::InboxCursor => (2, [b"", b""], None),
            Self::InterventionsSeen => (32, [b"", b""], None),
            Self::Contact(user) => (3, [b"", user.as_str().as_bytes()], None),
            Self::Room(room) => (4, [room.as_bytes(), b""], None),
            Self::Commit(room) => (5, [room.as_bytes(), b""], None),
            Self::Flight(room) => (6, [room.as_bytes(), b""], None),
            Self::Frame(room, number) => (20, [room.as_bytes(), b""], Some(*number)),
            Self::Outbox(room, counter) => (7, [room.as_bytes(), b""], Some(*counter)),
            Self::Post(id) => (8, [b"", b""], Some(*id)),
            Self::Invitation(room) => (9, [room.as_bytes(), b""], None),
            Self::Upload(file) => (10, [file.as_bytes(), b""], None),
            Self::SentFile(sha256) => (19, [b"", sha256], None),
            Self::Mls(Some(room), key) => (11, [room.as_bytes(), key], None),
            Self::Mls(None, key) => (12, [b"", key], None),
            Self::History(room, position) => (13, [room.as_bytes(), b""], Some(*position)),
            Self::Said(room, counter) => (14, [room.as_bytes(), b""], Some(*counter)),
            Self::PastCommits(room) => (15, [room.as_bytes(), b""], None),
            Self::EpochKeys(room) => (16, [room.as_bytes(), b""], None),
            Self::Resend(room, counter) => (17, [room.as_bytes(), b""], Some(*counter)),
            Self::Early(room, sequence) => (18, [room.as_bytes(), b""], Some(*sequence)),
        };
        let mut key = [&[tag][..], parts[0], parts[1]].concat();
        if let Some(number) = number {
            key.extend((number / NEIGHBOURS).to_be_bytes());
        }
        let place = number.map_or(0, |number| number % NEIGHBOURS);
        // It is below `NEIGHBOURS`, and fits.
        key.extend(u8::try_from(place));
        key
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (&place, rest) = rest.split_last()?;
        let room_and_rest = || {
            let (room, rest) = rest.split_at_checked(16)?;
            Some((RoomId::try_from(room).ok()?, rest))
        };
        let number = |bytes: &[u8]| {
            let group = u64::from_be_bytes(bytes.try_into().ok()?);
            let place = Some(u64::from(place)).filter(|place| *place < NEIGHBOURS)?;
            group.checked_mul(NEIGHBOURS)?.checked_add(place)
        };
        Some(match tag {
            0 => Self::Format,
            1 => Self::Account,
            2 => Self::InboxCursor,
            32 => Self::InterventionsSeen,
            3 => Self::Contact(std::str::from_utf8(rest).ok()?.parse().ok()?),
            4 => Self::Room(room_and_rest()?.0),
            5 => Self::Commit(room_and_rest()?.0),
            6 => Self::Flight(room_and_rest()?.0),
            7 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Outbox(room, number(rest)?)))?
            }
            8 => Self::Post(number(rest)?),
            9 => Self::Invitation(room_and_rest()?.0),
            10 => Self::Upload(FileId::try_from(rest).ok()?),
            11 => room_and_rest().map(|(room, rest)| Self::Mls(Some(room), rest.to_vec()))?,
            12 => Self::Mls(None, rest.to_vec()),
            13 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::History(room, number(rest)?)))?
            }
            14 => room_and_rest().and_then(|(room, rest)| Some(Self::Said(room, number(rest)?)))?,
            15 => Self::PastCommits(room_and_rest()?.0),
            16 => Self::EpochKeys(room_and_rest()?.0),
            17 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Resend(room, number(rest)?)))?
            }
            18 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Early(room, number(rest)?)))?
            }
            19 => Self::SentFile(rest.try_into().ok()?),
            20 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Frame(room, number(rest)?)))?
            }
            _ => return None,
        })
    }
}

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

type Value = Zeroizing<Vec<u8>>;

/// All state, and the changes since the last [`Records::take_batch`].
///
/// Interior mutability because openmls' storage trait writes through `&self`.
pub(crate) struct Records {
    vault: Vault,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    values: BTreeMap<Key, Value>,
    changed: BTreeSet<Key>,
    history: BTreeMap<Key, Value>,
    /// While a savepoint is set: what each key changed since held before.
    undo: Option<BTreeMap<Key, Option<Value>>>,
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
        for (name, sealed) in store.scan(&[STATE])? {
            let name = name.get(1..).unwrap_or_default();
            let (key, value) = vault.open(name, &sealed)?;
            let key = Key::decode(&key).ok_or_else(RecordsError::damaged)?;
            values.insert(key, value);
        }
        let records = Self {
            vault,
            inner: RefCell::new(Inner {
                values,
                ..Inner::default()
            }),
        };
        match records.get::<u32>(&Key::Format)? {
            Some(FORMAT) => Ok(records),
            Some(other) => Err(RecordsError::Format(other)),
            None => Err(RecordsError::damaged()),
        }
    }

    pub(crate) fn get_bytes(&self, key: &Key) -> Option<Value> {
        self.inner.borrow().values.get(key).cloned()
    }

    pub(crate) fn put_bytes(&self, key: Key, value: Vec<u8>) {
        self.change(key, Some(Zeroizing::new(value)));
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

    /// Writes a record of the history, which is not kept in memory.
    pub(crate) fn append(&self, key: Key, value: &impl Serialize) {
        self.inner
            .borrow_mut()
            .history
            .insert(key, Zeroizing::new(encode(value)));
    }

    /// Reads a record of the history: from the store, or not yet written.
    pub(crate) fn read_history<T: DeserializeOwned>(
        &self,
        store: &dyn Store,
        key: &Key,
    ) -> Result<Option<T>, RecordsError> {
        if let Some(value) = self.inner.borrow().history.get(key) {
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
        let changed = std::mem::take(&mut inner.changed);
        let history = std::mem::take(&mut inner.history);
        let state = changed.iter().map(|key| (key, inner.values.get(key)));
        let history = history.iter().map(|(key, value)| (key, Some(value)));
        let mut batch = WriteBatch::default();
        for (key, value) in state.chain(history) {
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

    fn change(&self, key: Key, value: Option<Value>) {
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
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_bytes(BytesMode::ForceAll);
    // Writing to memory does not fail, and no record has a type that
    // MessagePack lacks; an empty value would be refused when read.
    if value.serialize(&mut serializer).is_err() {
        bytes.clear();
    }
    bytes
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordsError> {
    rmp_serde::from_slice(bytes).map_err(|_| RecordsError::damaged())
}

/// The range of a room's outbox.
pub(crate) fn outbox_of(room: RoomId) -> std::ops::RangeInclusive<Key> {
    Key::Outbox(room, 0)..=Key::Outbox(room, u64::MAX)
}

/// The range of the frames of a room that are under way.
pub(crate) fn frames_of(room: RoomId) -> std::ops::RangeInclusive<Key> {
    Key::Frame(room, 0)..=Key::Frame(room, u64::MAX)
}

/// The range of what a room's device says again.
pub(crate) fn resends_of(room: RoomId) -> std::ops::RangeInclusive<Key> {
    Key::Resend(room, 0)..=Key::Resend(room, u64::MAX)
}

/// The range of what a room's device keeps until it reaches its epoch.
pub(crate) fn early_of(room: RoomId) -> std::ops::RangeInclusive<Key> {
    Key::Early(room, 0)..=Key::Early(room, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn vault() -> Vault {
        Vault::create("p", &mut ChaCha20Rng::seed_from_u64(3))
            .unwrap()
            .0
    }

    #[test]
    fn keys_survive_encoding() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let room = RoomId::random(&mut rng);
        for key in [
            Key::Format,
            Key::Account,
            Key::InboxCursor,
            Key::InterventionsSeen,
            Key::Contact("alice".parse().unwrap()),
            Key::Room(room),
            Key::Commit(room),
            Key::Flight(room),
            Key::Frame(room, 17),
            Key::Outbox(room, 7),
            Key::Post(1),
            Key::Invitation(room),
            Key::Upload(FileId::random(&mut rng)),
            Key::SentFile([7; 32]),
            Key::Mls(Some(room), vec![1, 2]),
            Key::Mls(None, vec![]),
            Key::History(room, u64::MAX),
            Key::Said(room, 3),
            Key::PastCommits(room),
            Key::EpochKeys(room),
            Key::Resend(room, 4),
            Key::Early(room, 5),
        ] {
            assert_eq!(Key::decode(&key.encode()), Some(key));
        }
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
