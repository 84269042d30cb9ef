//! What can go wrong in redb and around it, as a [`StoreError`].

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sotto_client_core::store::StoreError;

/// A [`StoreError`] on its way out; `?` makes it from whatever failed.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StoreError);

impl Failure {
    /// Something that was committed is not there any more.
    pub(super) fn corrupt(what: &str) -> Self {
        Self(StoreError::Corrupt(what.into()))
    }

    /// Files that do not read as a store.
    pub(super) fn damaged() -> Self {
        Self::corrupt("its files do not read")
    }

    /// A store that is not used any more after a failure.
    pub(super) fn closed() -> Self {
        Self(StoreError::Io(
            "it failed before and must be opened again".into(),
        ))
    }

    fn of_redb(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Self(StoreError::InUse)
            }
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::closed(),
            redb::Error::ValueTooLarge(_)
            | redb::Error::Backend(_)
            | redb::Error::Unsupported
            | redb::Error::TransactionInProgress => Self(StoreError::Io(error.to_string())),
            _ => Self::damaged(),
        }
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

macro_rules! from_redb {
    ($($error:ident)*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                Self::of_redb(error.into())
            }
        }
    )*};
}

from_redb!(DatabaseError TransactionError SetDurabilityError TableError StorageError CommitError);

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside redb, where a panic means a damaged file and
/// becomes an error. A program's panic hook says nothing then.
pub fn guards_this_thread() -> bool {
    GUARDED.get()
}

/// Runs something that calls redb; a panic of it is [`StoreError::Corrupt`].
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(false);
    match result {
        Ok(result) => result,
        Err(_) => Err(Failure::damaged()),
    }
}
