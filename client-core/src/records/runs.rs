//! Runs: what is written into a room's history together is one record.
//!
//! Each record on the disk has a name, two seals and a place in a tree of
//! pages, which cost more than most texts. So positions that follow each other
//! and are neighbours go under the key of the first of them. No position is
//! ever written twice, so that no run takes the place of another.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::{Key, RecordsError, Wiped};

/// A run has no more bytes, unless a single record has: sealed, it still fits
/// into 16 KiB, and pages have sizes that are powers of two.
const RUN: usize = 16_000;

/// Puts neighbours together; what is no history stays as it is.
pub(super) fn of(appended: BTreeMap<Key, Wiped>) -> Vec<(Key, Wiped)> {
    let mut runs: Vec<(Key, Wiped)> = Vec::with_capacity(appended.len());
    let mut next = None;
    for (key, value) in appended {
        let goes_on = next.as_ref() == Some(&key);
        next = key.next_neighbour();
        match runs.last_mut() {
            Some((_, run)) if goes_on && run.len() + value.len() <= RUN => run.extend(&value),
            _ if next.is_some() => runs.push((key, with_room(&value))),
            _ => runs.push((key, value)),
        }
    }
    runs
}

/// The records of a run.
pub(super) fn read<T: DeserializeOwned>(mut run: &[u8]) -> Result<Vec<T>, RecordsError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::vault;
    use crate::records::{Records, neighbours_of};
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
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read(
            texts in prop::collection::vec((0..RUN / 4, any::<bool>()), 1..60),
        ) {
            let (records, store, _) = write(&texts);
            let mut read = BTreeMap::new();
            for position in 0..texts.len() as u64 {
                let around = records.read_history::<String>(&store, ROOM, position).unwrap();
                prop_assert!(around.keys().all(|key| neighbours_of(position).contains(key)));
                read.extend(around);
            }
            let appended = (0..).zip(&texts).map(|(at, &(length, _))| (at, text(at, length)));
            prop_assert_eq!(read, appended.collect::<BTreeMap<_, _>>());
        }
    }
}
