//! Has the engine's changes made durable while the engine goes on: one commit
//! is under way at a time, and what changes meanwhile is the next. Nothing that
//! depends on a change leaves here before it is durable.

use std::mem;

use sotto_client_core::io::Output;
use sotto_client_core::store::{Store, StoreError, WriteBatch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::redb_store::RedbStore;

/// Bytes of changes that wait for the commit under way at most; the engine
/// rests when there are more.
const WAITING: usize = 4 * 1024 * 1024;

/// What the engine has put out, in its order.
#[derive(Default)]
struct Changes {
    batch: WriteBatch,
    bytes: usize,
    /// What to do once the batch is durable.
    then: Vec<Output>,
}

/// See the module.
pub(super) struct Writer {
    /// Here unless a commit is under way.
    store: Option<RedbStore>,
    commit: Option<JoinHandle<(RedbStore, Result<(), StoreError>)>>,
    /// What to do once the commit under way has ended.
    then: Vec<Output>,
    next: Changes,
}

impl Writer {
    pub(super) fn new(store: RedbStore) -> Self {
        Self {
            store: Some(store),
            commit: None,
            then: Vec::new(),
            next: Changes::default(),
        }
    }

    /// Takes the engine's next output.
    pub(super) fn add(&mut self, output: Output) {
        let Output::Persist(changes) = output else {
            return self.next.then.push(output);
        };
        for (key, value) in changes.writes {
            self.next.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.next.batch.writes.insert(key, value);
        }
    }

    /// Starts the next commit when none is under way; what is to be done now,
    /// because all that it depends on is durable.
    pub(super) fn go_on(&mut self) -> Vec<Output> {
        if self.commit.is_some() {
            return Vec::new();
        }
        if self.next.batch.is_empty() {
            return mem::take(&mut self.next.then);
        }
        if let Some(mut store) = self.store.take() {
            let Changes { batch, then, .. } = mem::take(&mut self.next);
            self.then = then;
            self.commit = Some(spawn_blocking(move || {
                let result = store.commit(&batch);
                (store, result)
            }));
        }
        Vec::new()
    }

    /// Whether the engine must rest until the commit under way has ended.
    pub(super) fn is_full(&self) -> bool {
        self.next.bytes > WAITING
    }

    /// Whether everything is durable, and what depended on it was given out.
    pub(super) fn is_idle(&self) -> bool {
        self.commit.is_none() && self.next.batch.is_empty() && self.next.then.is_empty()
    }

    /// Waits for the end of the commit under way, for ever when there is none;
    /// what is to be done now. May be dropped while it waits.
    ///
    /// # Errors
    /// When the changes are not durable; what depended on them is forgotten.
    pub(super) async fn written(&mut self) -> Result<Vec<Output>, StoreError> {
        let Some(commit) = &mut self.commit else {
            return std::future::pending().await;
        };
        let ended = commit.await;
        self.commit = None;
        let then = mem::take(&mut self.then);
        let (store, result) = ended.map_err(|error| StoreError::Io(error.to_string()))?;
        self.store = Some(store);
        result?;
        Ok(then)
    }

    /// Waits until everything is durable; what is to be done now.
    ///
    /// # Errors
    /// As [`Self::written`].
    pub(super) async fn all_written(&mut self) -> Result<Vec<Output>, StoreError> {
        let mut due = Vec::new();
        while !self.is_idle() {
            due.extend(self.go_on());
            if self.commit.is_some() {
                due.extend(self.written().await?);
            }
        }
        Ok(due)
    }

    /// The store, with everything in it that [`Self::all_written`] waited for.
    ///
    /// # Errors
    /// When a commit has taken it along.
    pub(super) fn store(&self) -> Result<&RedbStore, StoreError> {
        self.store.as_ref().ok_or_else(gone)
    }

    /// Forgets what is not durable, and gives the store back, for opening it
    /// again.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(super) async fn give_up(&mut self) -> Result<&mut RedbStore, StoreError> {
        if self.commit.is_some() {
            // What it was to make durable is read again from the store.
            let _ = self.written().await;
        }
        self.next = Changes::default();
        self.store.as_mut().ok_or_else(gone)
    }
}

fn gone() -> StoreError {
    StoreError::Io("a write ended without a word".to_owned())
}
