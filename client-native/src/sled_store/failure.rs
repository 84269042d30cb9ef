//! What can go wrong in sled and around it, as a [`StoreError`].

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sotto_client_core::store::StoreError;

/// A [`StoreError`] on its way out; `?` makes it from whatever failed.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StoreError);

impl Failure {
    /// Files that do not read as a store.
    pub(super) fn damaged() -> Self {
        Self(StoreError::Corrupt("its files do not read".into()))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self(StoreError::Full),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::damaged(),
            _ => Self(StoreError::Io(error.to_string())),
        }
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => error.into(),
            _ => Self::damaged(),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside sled, where a panic means a damaged file and
/// becomes an error. A program's panic hook says nothing then.
pub fn guards_this_thread() -> bool {
    GUARDED.get()
}

/// Runs something that calls sled; a panic of it is [`StoreError::Corrupt`].
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(false);
    match result {
        Ok(result) => result,
        Err(_) => Err(Failure::damaged()),
    }
}
