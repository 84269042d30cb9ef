//! Runs: what is written of a series together is one record on the disk.
//!
//! Each record there has a name, two seals and a place in a tree of pages,
//! which cost more than most texts. So numbers that follow each other and are
//! neighbours go under the key of the first of them. What is appended is
//! written once, so that no run takes the place of another; of the state, a
//! run in which something changes is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;

use super::key::HISTORY;
use super::{Key, Records, RecordsError, Wiped, decode, disk_name, encode};
use crate::store::Store;

/// A run has no more bytes, unless a single record has: sealed, it still fits
/// into 16 KiB, and pages have sizes that are powers of two.
const RUN: usize = 16_000;

/// Records that are on the disk under the key of the first.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) keys: RangeInclusive<Key>,
    /// One after the other, each in MessagePack.
    pub(super) bytes: Wiped,
}

/// Puts neighbours together; what is of no series stays as it is.
pub(super) fn of(records: BTreeMap<Key, Wiped>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(records.len());
    let mut next = None;
    for (key, bytes) in records {
        let goes_on = next.as_ref() == Some(&key);
        next = key.next_neighbour();
        match runs.last_mut() {
            Some(run) if goes_on && run.bytes.len() + bytes.len() <= RUN => {
                run.bytes.extend(&bytes);
                run.keys = run.keys.start().clone()..=key;
            }
            _ => runs.push(Run {
                keys: key.clone()..=key,
                bytes: if next.is_some() {
                    with_room(&bytes)
                } else {
                    bytes
                },
            }),
        }
    }
    runs
}

/// The records of a run.
fn read<T: DeserializeOwned>(mut run: &[u8]) -> Result<Vec<T>, RecordsError> {
    let mut records = Vec::new();
    while !run.is_empty() {
        let record = rmp_serde::from_read(&mut run).map_err(|_| RecordsError::damaged())?;
        records.push(record);
    }
    Ok(records)
}

/// The start of a run, which does not move while it grows.
fn with_room(value: &[u8]) -> Wiped {
    let mut run = Wiped::with_capacity(RUN.max(value.len()));
    run.extend(value);
    run
}

/// The runs of the state that are on the disk: the last key of each by its first.
#[derive(Default)]
pub(super) struct Runs(BTreeMap<Key, Key>);

impl Runs {
    /// Takes in a run that was read from the disk; its records.
    pub(super) fn load(
        &mut self,
        first: Key,
        run: &[u8],
    ) -> Result<Vec<(Key, Wiped)>, RecordsError> {
        let mut records = Vec::new();
        let mut next = Some(first.clone());
        for value in read::<Wiped>(run)? {
            let key = next.ok_or_else(RecordsError::damaged)?;
            next = key.next_neighbour();
            records.push((key, value));
        }
        let (last, _) = records.last().ok_or_else(RecordsError::damaged)?;
        self.0.insert(first, last.clone());
        Ok(records)
    }

    /// What is to be written and deleted on the disk when these records of
    /// series have changed.
    pub(super) fn changed(
        &mut self,
        changed: BTreeSet<Key>,
        values: &BTreeMap<Key, Wiped>,
    ) -> BTreeMap<Key, Option<Wiped>> {
        let mut writes = BTreeMap::new();
        let mut anew = BTreeMap::new();
        for key in changed {
            let keys = self.take(&key).unwrap_or(key.clone()..=key);
            let records = values.range(keys.clone());
            anew.extend(records.map(|(key, value)| (key.clone(), encode(value))));
            writes.insert(keys.into_inner().0, None);
        }
        for Run { keys, bytes } in of(anew) {
            let (first, last) = keys.into_inner();
            writes.insert(first.clone(), Some(bytes));
            self.0.insert(first, last);
        }
        writes
    }

    /// The run in which a record is.
    fn take(&mut self, key: &Key) -> Option<RangeInclusive<Key>> {
        let (first, last) = self.0.range(..=key).next_back()?;
        let run = first.clone()..=last.clone();
        run.contains(key).then(|| self.0.remove(run.start()))?;
        Some(run)
    }
}

/// Reads what [`Records::append`] wrote of series, all neighbours at once:
/// numbers that are near each other are best asked for one after the other.
pub(crate) struct Reader<'a, T> {
    records: &'a Records,
    store: &'a dyn Store,
    /// The neighbours that were read last.
    read: Option<(RangeInclusive<Key>, BTreeMap<Key, T>)>,
}

impl<'a, T: DeserializeOwned + Clone> Reader<'a, T> {
    pub(crate) fn new(records: &'a Records, store: &'a dyn Store) -> Self {
        Self {
            records,
            store,
            read: None,
        }
    }

    /// The record of a key, if there is one.
    pub(crate) fn at(&mut self, key: &Key) -> Result<Option<T>, RecordsError> {
        match &self.read {
            Some((keys, neighbours)) if keys.contains(key) => Ok(neighbours.get(key).cloned()),
            _ => {
                let neighbours = self.neighbours(key)?;
                let record = neighbours.get(key).cloned();
                self.read = Some((key.neighbours(), neighbours));
                Ok(record)
            }
        }
    }

    /// Everything there is of a record's neighbours.
    fn neighbours(&self, key: &Key) -> Result<BTreeMap<Key, T>, RecordsError> {
        let Records { vault, inner } = self.records;
        let keys = key.neighbours();
        let mut neighbours = BTreeMap::new();
        let name = vault.name(&key.encode());
        let group = name.split_last().map_or(&[][..], |(_, group)| group);
        for (name, sealed) in self.store.scan(&disk_name(HISTORY, group))? {
            let name = name.get(1..).unwrap_or_default();
            let (first, run) = vault.open(name, &sealed)?;
            let mut next = Key::decode(&first);
            for record in read(&run)? {
                let key = next.filter(|key| keys.contains(key));
                let key = key.ok_or_else(RecordsError::damaged)?;
                next = key.next_neighbour();
                neighbours.insert(key, record);
            }
        }
        for (key, value) in inner.borrow().appended.range(keys) {
            neighbours.insert(key.clone(), decode(value)?);
        }
        Ok(neighbours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::vault;
    use crate::store::{MemoryStore, Store};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use sotto_proto::RoomId;

    const ROOM: RoomId = RoomId::FIRST;

    /// Appends texts of these lengths, of which a batch is written after each
    /// `true`; how many records are on the disk then.
    fn write(texts: &[(usize, bool)]) -> (Records, MemoryStore, usize) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut store = MemoryStore::default();
        let records = Records::new(vault());
        for (position, &(length, written)) in (0..).zip(texts) {
            records.append(Key::History(ROOM, position), &text(position, length));
            if written && let Some(batch) = records.take_batch(&mut rng).unwrap() {
                store.commit(&batch).unwrap();
            }
        }
        let count = store.scan(b"H").unwrap().len();
        (records, store, count)
    }

    fn text(position: u64, length: usize) -> String {
        format!("{position}: {}", "x".repeat(length))
    }

    #[test]
    fn what_is_written_together_is_one_record() {
        let mut texts = vec![(100, false); 40];
        texts[39].1 = true;
        // Groups of sixteen: 0 to 15, 16 to 31, 32 to 39.
        assert_eq!(write(&texts).2, 3);
        assert_eq!(write(&vec![(100, true); 40]).2, 40);
    }

    #[test]
    fn a_run_has_an_end() {
        let mut texts = vec![(RUN / 3, false); 9];
        texts[8].1 = true;
        assert_eq!(write(&texts).2, 5);
        texts.fill((2 * RUN, true));
        assert_eq!(write(&texts).2, 9);
    }

    #[test]
    fn a_run_that_does_not_read_is_an_error() {
        assert!(read::<String>(&[0xa3, b'a']).is_err());
        assert_eq!(read::<u8>(&[1, 2, 3]).unwrap(), [1, 2, 3]);
        let first = || Key::Outbox(ROOM, 15);
        for damaged in [&[][..], &[0xc4], &[0xc4, 0, 0xc4, 0]] {
            // Nothing; half of one; one beyond the neighbours.
            assert!(Runs::default().load(first(), damaged).is_err());
        }
        assert!(Runs::default().load(first(), &[0xc4, 0]).is_ok());
    }

    #[test]
    fn a_run_of_the_state_shrinks_and_goes() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut store = MemoryStore::default();
        let records = Records::new(vault());
        let mut on_disk = |change: &dyn Fn(u64)| {
            (0..16).for_each(change);
            let batch = records.take_batch(&mut rng).unwrap();
            store.commit(&batch.unwrap_or_default()).unwrap();
            // Beside the format.
            store.scan(b"S").unwrap().len() - 1
        };
        let put = |counter| records.put_bytes(Key::Outbox(ROOM, counter), vec![1]);
        let delete = |counter| records.delete(Key::Outbox(ROOM, counter));
        assert_eq!(on_disk(&put), 1);
        assert_eq!(
            on_disk(&|counter| if counter < 5 {
                delete(counter)
            }),
            1
        );
        assert_eq!(
            on_disk(&|counter| if counter == 8 {
                delete(counter)
            }),
            2
        );
        assert_eq!(on_disk(&delete), 0);
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read(
            texts in prop::collection::vec((0..RUN / 4, any::<bool>()), 1..60),
        ) {
            let (records, store, _) = write(&texts);
            let mut reader = Reader::<String>::new(&records, &store);
            for (position, &(length, _)) in (0..).zip(&texts) {
                let read = reader.at(&Key::History(ROOM, position)).unwrap();
                prop_assert_eq!(read, Some(text(position, length)));
            }
            let after = Key::History(ROOM, texts.len() as u64);
            prop_assert_eq!(reader.at(&after).unwrap(), None);
        }

        /// Whatever is put and deleted, and however it is written meanwhile: what
        /// is loaded is what there was at the last writing.
        #[test]
        fn state_in_runs_is_there_after_reopening(
            changes in prop::collection::vec(
                (0..40u64, prop::option::of(0..RUN / 4), any::<bool>(), any::<bool>()),
                1..80,
            ),
        ) {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let mut store = MemoryStore::default();
            let mut records = Records::new(vault());
            let mut written = BTreeMap::new();
            let mut now = BTreeMap::new();
            for (counter, length, commit, reopen) in changes {
                let key = Key::Outbox(ROOM, counter);
                match length {
                    Some(length) => {
                        let value = text(counter, length).into_bytes();
                        now.insert(key.clone(), value.clone());
                        records.put_bytes(key, value);
                    }
                    None => {
                        now.remove(&key);
                        records.delete(key);
                    }
                }
                if commit {
                    let batch = records.take_batch(&mut rng).unwrap().unwrap_or_default();
                    store.commit(&batch).unwrap();
                    written.clone_from(&now);
                }
                if commit && reopen {
                    records = Records::load(&store, vault()).unwrap();
                }
            }
            let loaded = Records::load(&store, vault());
            let loaded = loaded.map(|records| {
                let keys = records.keys(Key::Outbox(ROOM, 0)..=Key::Outbox(ROOM, u64::MAX));
                let value = |key: &Key| records.get_bytes(key).unwrap().to_vec();
                keys.into_iter().map(|key| (key.clone(), value(&key))).collect::<BTreeMap<_, _>>()
            });
            // Nothing was ever written, not even the format.
            prop_assert_eq!(loaded.unwrap_or_default(), written);
        }
    }
}
