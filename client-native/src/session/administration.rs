//! The directory: commands for it, and reading its log. Nothing that the
//! gateway says about the log is believed before it is verified.

use ed25519_dalek::VerifyingKey;
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
        sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<State, DirectoryReadError> {
        let gateway_key = self.look(|engine, _| engine.account().gateway_key).await?;
        let page = async |from| {
            let request = wire::DirectoryRead {
                from,
                max_bytes: PAGE,
            };
            self.call(&request).await
        };
        read(&gateway_key, page, sink).await
    }
}

/// Reads a log that comes page by page, each from an index on.
async fn read(
    gateway_key: &VerifyingKey,
    mut page: impl AsyncFnMut(u64) -> Result<wire::DirectoryEntries, GatewayError>,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<State, DirectoryReadError> {
    let mut state = State::default();
    loop {
        let from = state.head().length;
        let wire::DirectoryEntries { entries, length } = page(from).await?;
        // Many signatures take a moment.
        tokio::task::block_in_place(|| {
            entries.iter().try_for_each(|entry| {
                let index = state.head().length;
                state
                    .advance(entry, gateway_key)
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

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use ed25519_dalek::SigningKey;
    use prost::Message;
    use sha2::{Digest, Sha256};
    use sotto_proto::signed;
    use sotto_proto::wire::directory_event::Body;

    use super::*;

    fn gateway() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    /// The log of an org with so many projects.
    fn log(projects: usize) -> Vec<Bytes> {
        let founded = Body::OrgCreated(wire::OrgCreated {
            org: "acme".to_owned(),
            gateway_key: signed::key_bytes(&gateway().verifying_key()),
        });
        let project = |n: usize| {
            let project = format!("project-{n}");
            Body::ProjectCreated(wire::ProjectCreated { project })
        };
        let mut entries: Vec<Bytes> = Vec::new();
        for body in std::iter::once(founded).chain((0..projects).map(project)) {
            let previous_hash = entries
                .last()
                .map(|entry| Bytes::copy_from_slice(&Sha256::digest(entry)));
            let event = wire::DirectoryEvent {
                index: entries.len() as u64,
                previous_hash: previous_hash.unwrap_or_default(),
                body: Some(body),
                ..wire::DirectoryEvent::default()
            };
            let signed = signed::sign(&event, &gateway());
            entries.push(signed.encode_to_vec().into());
        }
        entries
    }

    /// Reads a log, a few entries at a time, of which the server says that it
    /// is so long; with what the sink got.
    async fn read_from(
        log: &[Bytes],
        length: usize,
    ) -> (Result<State, DirectoryReadError>, Vec<Vec<u8>>) {
        let mut kept = Vec::new();
        let page = async |from| {
            let rest = log.iter().skip(from as usize);
            Ok(wire::DirectoryEntries {
                entries: rest.take(3).cloned().collect(),
                length: length as u64,
            })
        };
        let key = gateway().verifying_key();
        let sink = |entry: &[u8]| {
            kept.push(entry.to_vec());
            Ok(())
        };
        (read(&key, page, sink).await, kept)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_is_read_to_its_end() {
        for projects in [0, 1, 2, 3, 9] {
            let log = log(projects);
            let (state, kept) = read_from(&log, log.len()).await;
            assert_eq!(state.unwrap().projects().count(), projects);
            assert_eq!(kept, log);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_entry_that_does_not_fit_is_named_and_not_kept() {
        for bad in 0..8 {
            let mut log = log(7);
            let mut entry = log[bad].to_vec();
            entry[20] ^= 1;
            log[bad] = entry.into();
            let (state, kept) = read_from(&log, log.len()).await;
            let index = match state {
                Err(DirectoryReadError::Entry { index, .. }) => index,
                other => panic!("{other:?}"),
            };
            assert_eq!((index, kept.len()), (bad as u64, bad));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_holds_entries_back_does_not_keep_a_reader_waiting() {
        let log = log(4);
        let (state, kept) = read_from(&log, log.len() + 1).await;
        assert!(matches!(state, Err(DirectoryReadError::HeldBack(5))));
        assert_eq!(kept, log);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_ends_the_reading() {
        let log = log(1);
        let page = async |_| {
            let (entries, length) = (log.clone(), 2);
            Ok(wire::DirectoryEntries { entries, length })
        };
        let full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
        let read = read(&gateway().verifying_key(), page, full).await;
        assert!(matches!(read, Err(DirectoryReadError::Sink(_))));
    }
}
