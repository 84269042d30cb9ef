//! What a disk must do for the engine: four methods. Keys and values are
//! sealed before they come here; a store sees only opaque bytes.

use std::collections::BTreeMap;

/// A store failed; the engine that wrote to it must be dropped and rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left.
    #[error(
        "the disk is full: free some space and try again; nothing that was shown as sent or received is lost"
    )]
    Full,
    /// Another process has the store open.
    #[error(
        "another sotto is already using this folder: close it, or choose another one with --dir"
    )]
    InUse,
    /// The store's own files do not read.
    #[error(
        "the message store is damaged ({0}): move the folder away and link this device again, or restore it from a backup"
    )]
    Corrupt(String),
    /// Anything else that the operating system says.
    #[error("the message store cannot be used: {0}")]
    Io(String),
}

/// Keys with their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A durable map from opaque keys to opaque values.
pub trait Store: Send {
    /// The value under a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Every pair whose key starts with `prefix`, by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, prefix: &[u8]) -> Result<Pairs, StoreError>;

    /// Applies the whole batch or nothing. When this returns `Ok` the batch
    /// survives a `kill -9` and a power cut.
    ///
    /// # Errors
    /// When the batch is not durable.
    fn commit(&mut self, batch: &WriteBatch) -> Result<(), StoreError>;

    /// Removes everything.
    ///
    /// # Errors
    /// When something may still be there.
    fn wipe(&mut self) -> Result<(), StoreError>;
}

/// What one [`Store::commit`] changes: a value to put, or `None` to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// By key.
    pub writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl WriteBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// A store in memory, for tests and for the model that tests compare with.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, StoreError> {
        let from = self.pairs.range(prefix.to_vec()..);
        let pairs = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        for (key, value) in &batch.writes {
            match value {
                Some(value) => self.pairs.insert(key.clone(), value.clone()),
                None => self.pairs.remove(key),
            };
        }
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), StoreError> {
        self.pairs.clear();
        Ok(())
    }
}

/// The suite that every [`Store`] must pass: `conformance!(name, || open_store())`,
/// where the expression opens the *same* store every time it is evaluated.
#[macro_export]
macro_rules! store_conformance {
    ($open:expr) => {
        #[test]
        fn what_is_committed_is_read_back() {
            $crate::store::conformance::read_back($open);
        }
        #[test]
        fn a_scan_returns_just_its_prefix_in_order() {
            $crate::store::conformance::scan($open);
        }
        #[test]
        fn a_wipe_leaves_nothing() {
            $crate::store::conformance::wipe($open);
        }
    };
}

/// The cases behind [`store_conformance!`].
#[doc(hidden)]
pub mod conformance {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "called from tests only"
    )]
    use super::{Store, WriteBatch};

    fn batch(writes: &[(&[u8], Option<&[u8]>)]) -> WriteBatch {
        let own = |(key, value): &(&[u8], Option<&[u8]>)| (key.to_vec(), value.map(<[u8]>::to_vec));
        WriteBatch {
            writes: writes.iter().map(own).collect(),
        }
    }

    pub fn read_back(mut store: impl Store) {
        assert_eq!(store.get(b"absent").unwrap(), None);
        store
            .commit(&batch(&[
                (b"a", Some(b"1")),
                (b"b", Some(b"")),
                (b"c", Some(&[7; 100_000])),
            ]))
            .unwrap();
        store
            .commit(&batch(&[(b"a", Some(b"2")), (b"c", None)]))
            .unwrap();
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(b"b").unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(store.get(b"c").unwrap(), None);
    }

    pub fn scan(mut store: impl Store) {
        let pairs: &[(&[u8], Option<&[u8]>)] = &[
            (b"A2", Some(b"x")),
            (b"A1", Some(b"y")),
            (b"A\xff", Some(b"z")),
            (b"B", Some(b"w")),
        ];
        store.commit(&batch(pairs)).unwrap();
        let keys: Vec<Vec<u8>> = store
            .scan(b"A")
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, [b"A1".to_vec(), b"A2".to_vec(), b"A\xff".to_vec()]);
        assert_eq!(store.scan(b"").unwrap().len(), 4);
    }

    pub fn wipe(mut store: impl Store) {
        store.commit(&batch(&[(b"a", Some(b"1"))])).unwrap();
        store.wipe().unwrap();
        assert_eq!(store.scan(b"").unwrap(), []);
        store.commit(&batch(&[(b"a", Some(b"2"))])).unwrap();
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryStore;

    crate::store_conformance!(MemoryStore::default());
}
