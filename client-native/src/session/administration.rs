//! The directory: commands for it, and reading its log. Nothing that the
//! gateway says about the log is believed before it is verified.

use std::fs;
use std::io;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{ChainError, State, snapshot};
use sotto_proto::{limits, wire};
use zeroize::Zeroizing;

use super::{CommandError, Session};
use crate::gateway::GatewayError;

/// Bytes of entries asked for at a time: an answer fits into one HTTP body.
const PAGE: u32 = limits::HTTP_BODY as u32 / 2;

/// What the kept directory is sealed as.
const KEPT: &str = "directory";

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
    /// The log is shorter than it was.
    #[error(
        "the server's directory has {1} entries, and this device has verified {0}: it was taken back; tell whoever runs the server, and trust nothing that it says until then"
    )]
    CutShort(u64, u64),
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

    /// Which version of the org's NATS accounts each nats-server has in force.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn nats_accounts(&self) -> Result<wire::Accounts, GatewayError> {
        self.call(&wire::AccountsRequest {}).await
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
        self.read_on(State::default(), sink).await
    }

    /// What the directory's log adds up to, of which only what is new is read:
    /// what was verified before is kept in the file `kept`, sealed.
    ///
    /// # Errors
    /// [`DirectoryReadError`].
    pub async fn directory(&self, kept: &Path) -> Result<State, DirectoryReadError> {
        let known = self.known_directory(kept).await?.unwrap_or_default();
        let before = known.head().length;
        let state = self.read_on(known, |_| Ok(())).await?;
        if state.head().length > before {
            self.keep_directory(&state, kept).await?;
        }
        Ok(state)
    }

    async fn read_on(
        &self,
        known: State,
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
        read(&gateway_key, known, page, sink).await
    }

    /// What is kept, when it is whole and of this org. It is only worth time.
    async fn known_directory(&self, kept: &Path) -> Result<Option<State>, CommandError> {
        let Ok(sealed) = fs::read(kept) else {
            return Ok(None);
        };
        let opened = self.look(move |engine, _| {
            let account = engine.account();
            let opened = engine.open_file(KEPT, &sealed)?;
            snapshot::read(&opened[..], &account.org, &account.gateway_key).ok()
        });
        opened.await
    }

    /// Keeps a state; a disk that does not take it costs time next time.
    async fn keep_directory(&self, state: &State, kept: &Path) -> Result<(), CommandError> {
        let mut content = Zeroizing::new(Vec::new());
        if snapshot::write(state, &mut *content).is_err() {
            return Ok(());
        }
        let sealed = self.look(move |engine, _| engine.seal_file(KEPT, &content, &mut OsRng));
        let new = kept.with_extension("new");
        let written = sealed.await?.map_err(io::Error::other).and_then(|sealed| {
            fs::write(&new, sealed)?;
            fs::rename(&new, kept)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the directory will be read from its beginning again");
        }
        Ok(())
    }
}

/// Reads a log that comes page by page, each from an index on, after what is
/// known of it.
async fn read(
    gateway_key: &VerifyingKey,
    known: State,
    mut page: impl AsyncFnMut(u64) -> Result<wire::DirectoryEntries, GatewayError>,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<State, DirectoryReadError> {
    let mut state = known;
    loop {
        let from = state.head().length;
        let wire::DirectoryEntries { entries, length } = page(from).await?;
        if length < from {
            return Err(DirectoryReadError::CutShort(from, length));
        }
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
        (read(&key, State::default(), page, sink).await, kept)
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
    async fn what_is_known_is_not_read_again_and_must_still_be_there() {
        let key = gateway().verifying_key();
        let (long, short) = (log(9), log(4));
        let (known, _) = read_from(&short, short.len()).await;
        let known = known.unwrap();
        let ask = async |from: u64, log: &[Bytes]| {
            assert!(from >= known.head().length, "{from} is known");
            Ok(wire::DirectoryEntries {
                entries: log.iter().skip(from as usize).cloned().collect(),
                length: log.len() as u64,
            })
        };
        let page = async |from| ask(from, &long).await;
        let grown = read(&key, known.clone(), page, |_| Ok(())).await.unwrap();
        assert_eq!(grown.head().length, long.len() as u64);
        // A log that is another one from where it was known on.
        let mut other = long.clone();
        other[5] = other[6].clone();
        let page = async |from| ask(from, &other).await;
        let broken = read(&key, known.clone(), page, |_| Ok(())).await;
        assert!(matches!(
            broken,
            Err(DirectoryReadError::Entry { index: 5, .. })
        ));
        let page = async |from| ask(from, &short[..2]).await;
        let cut = read(&key, known.clone(), page, |_| Ok(())).await;
        assert!(matches!(cut, Err(DirectoryReadError::CutShort(5, 2))));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_ends_the_reading() {
        let log = log(1);
        let page = async |_| {
            let (entries, length) = (log.clone(), 2);
            Ok(wire::DirectoryEntries { entries, length })
        };
        let full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
        let key = gateway().verifying_key();
        let read = read(&key, State::default(), page, full).await;
        assert!(matches!(read, Err(DirectoryReadError::Sink(_))));
    }
}
