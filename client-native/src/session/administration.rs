//! The directory: commands for it, and reading its log. Nothing that the
//! gateway says about the log is believed before it is verified.

use sotto_jwt_accounts::directory::{ChainError, State};
use sotto_proto::{limits, wire};

use super::{CommandError, Session};
use crate::gateway::GatewayError;

/// Bytes of entries asked for at a time: an answer fits into one HTTP body.
const PAGE: u32 = limits::HTTP_BODY as u32 / 2;

/// Why the log was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryReadError {
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// An entry does not fit the ones before it.
    #[error(
        "entry {index} of the directory does not verify ({why}): trust nothing that this server says, and tell whoever runs it"
    )]
    Entry {
        /// Its index, from 0.
        index: u64,
        /// What is wrong with it.
        why: ChainError,
    },
    /// The gateway gave nothing where it says that there is more.
    #[error(
        "the server holds back entry {0} of the directory: try again, and tell whoever runs it if it stays so"
    )]
    HeldBack(u64),
    /// Whoever takes the entries refused one.
    #[error("the entries cannot be kept: {0}")]
    Sink(#[from] std::io::Error),
    /// The session has ended.
    #[error(transparent)]
    Session(#[from] CommandError),
}

impl Session {
    /// Has the gateway carry out commands in order, all or none; with
    /// `dry_run` nothing is appended. The events that follow from them.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn change_directory(
        &self,
        commands: Vec<wire::DirectoryCommand>,
        dry_run: bool,
    ) -> Result<wire::DirectoryChanged, GatewayError> {
        self.call(&wire::DirectoryChange { commands, dry_run })
            .await
    }

    /// Reads the directory's whole log, verifies every entry with the key that
    /// this device keeps of its gateway, and gives each to `sink`, as it is
    /// stored, before the next.
    ///
    /// # Errors
    /// [`DirectoryReadError`]; the entries that `sink` has are good.
    pub async fn read_directory(
        &self,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<State, DirectoryReadError> {
        let gateway_key = self.look(|engine, _| engine.account().gateway_key).await?;
        let mut state = State::default();
        loop {
            let from = state.head().length;
            let request = wire::DirectoryRead {
                from,
                max_bytes: PAGE,
            };
            let wire::DirectoryEntries { entries, length } = self.call(&request).await?;
            tokio::task::block_in_place(|| {
                entries.iter().try_for_each(|entry| {
                    let index = state.head().length;
                    state
                        .advance(entry, &gateway_key)
                        .map_err(|why| DirectoryReadError::Entry { index, why })?;
                    Ok::<_, DirectoryReadError>(sink(entry)?)
                })
            })?;
            let read = state.head().length;
            if read >= length {
                return Ok(state);
            }
            if read == from {
                return Err(DirectoryReadError::HeldBack(read));
            }
        }
    }
}
