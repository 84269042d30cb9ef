//! The log in its JetStream stream: entry n is the message with sequence n + 1,
//! and nothing is ever deleted.
//!
//! [`DirectoryLog`] follows the stream by Direct Get, woken by what the stream
//! republishes; it needs no consumer. [`DirectoryWriter`] appends as well. An
//! entry that does not verify breaks the log for good: neither it nor anything
//! after it is believed, and no state is given out any more.

mod append;
mod batch;
mod kept;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, Message, header};
use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use futures::StreamExt;
use sotto_proto::{DIRECTORY_STREAM, DIRECTORY_SUBJECT, OrgName};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

pub use append::{AppendError, Appended, DirectoryWriter};

use super::chain::ChainError;
use super::state::State;
use crate::grants;

use kept::Kept;

/// How long a change may go unnoticed when the message about it is lost.
const POLL: Duration = Duration::from_secs(5);

/// How often, and after which pause, what was told of is read again.
const BEHIND: usize = 100;
const CATCHING_UP: Duration = Duration::from_millis(20);

/// Largest entry, in bytes; a policy is the largest thing in one.
const ENTRY_MAX: i32 = 32 * 1024;

/// Why the directory cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The log was tampered with, damaged, or written by a newer version.
    #[error(
        "entry {index} of the directory cannot be believed ({why}): restore the directory stream from a backup, or update this server"
    )]
    Broken {
        /// Which entry, from 0.
        index: u64,
        /// What is wrong with it.
        why: ChainError,
    },
    /// The log begins with another org.
    #[error("this is the directory of another organisation: check the credentials")]
    OtherOrg,
    /// The server did not answer, or not sensibly.
    #[error("the directory cannot be reached: is the NATS server running? ({0})")]
    Unavailable(String),
}

sotto_log::log_safe!(LogError);

impl LogError {
    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The newest state that is known, or why there is none to believe.
pub type Known = Result<Arc<State>, LogError>;

/// An org's directory, kept current for reading. Dropping it stops that.
pub struct DirectoryLog {
    replica: Arc<Replica>,
    kept: Option<Arc<Kept>>,
    /// Aborts its tasks when dropped.
    _tail: JoinSet<()>,
}

impl DirectoryLog {
    /// Makes the stream if there is none, on as many nodes as there are to be
    /// `copies`, reads all of it, and follows it from
    /// then on. With a `snapshot`, a file in a folder that is there, only what
    /// came after it is read, and the file is written anew now and then; one
    /// that does not fit the log is as good as none. Needs the grants of a relay or gateway, and an inbox prefix of
    /// the same kind on the client.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn open(
        js: &jetstream::Context,
        copies: usize,
        org: OrgName,
        gateway: VerifyingKey,
        snapshot: Option<PathBuf>,
    ) -> Result<Self, LogError> {
        let created = js.get_or_create_stream(stream_config(copies)).await;
        created.map_err(LogError::unavailable)?;
        let client = js.client();
        let live = client.subscribe(grants::directory_live()).await;
        let live = live.map_err(LogError::unavailable)?;
        let kept = match &snapshot {
            Some(path) => kept::load(&client, path, &org, &gateway).await?,
            None => None,
        };
        let kept = kept.unwrap_or_default();
        let snapshot = snapshot.map(|path| Arc::new(Kept::new(path, kept.head().length)));
        let replica = Arc::new(Replica {
            client,
            org,
            gateway,
            known: watch::Sender::new(Ok(Arc::new(kept))),
            reading: Mutex::new(()),
        });
        replica.refresh().await?;
        let mut tail = JoinSet::new();
        tail.spawn(follow(Arc::clone(&replica), live));
        if let Some(kept) = &snapshot {
            tail.spawn(Arc::clone(kept).follow(replica.known.subscribe()));
        }
        Ok(Self {
            replica,
            kept: snapshot,
            _tail: tail,
        })
    }

    /// The newest state that this process knows of.
    ///
    /// # Errors
    /// [`LogError::Broken`] or [`LogError::OtherOrg`].
    pub fn state(&self) -> Known {
        self.replica.state()
    }

    /// Writes the snapshot, if there is one to keep and it is not of just this
    /// state, so that starting again reads nothing twice. For a clean stop.
    pub async fn keep(&self) {
        if let (Some(kept), Ok(state)) = (&self.kept, self.state()) {
            kept.write(state, 1).await;
        }
    }

    /// The state, as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Known> {
        self.replica.known.subscribe()
    }

    /// The entries from `index` on as they are stored, in order: no more than
    /// `max_bytes` of them, but always the first. For whoever verifies the log
    /// themselves.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn entries(&self, index: u64, max_bytes: usize) -> Result<Vec<Bytes>, LogError> {
        let batch = batch::read(&self.replica.client, index.saturating_add(1)).await?;
        let mut left = max_bytes;
        let entries = batch.entries.into_iter().map(|(_, entry)| entry);
        let fit = entries.enumerate().take_while(|(place, entry)| {
            let fits = *place == 0 || entry.len() <= left;
            left = left.saturating_sub(entry.len());
            fits
        });
        Ok(fit.map(|(_, entry)| entry).collect())
    }

    /// Reads what was appended elsewhere until now, without waiting to hear of
    /// it. Worth it before something is refused that may just have been granted.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn refresh(&self) -> Known {
        self.replica.refresh().await?;
        self.state()
    }
}

/// A copy of the log's state.
struct Replica {
    client: Client,
    org: OrgName,
    gateway: VerifyingKey,
    known: watch::Sender<Known>,
    /// Held while reading, so that two readers do not fetch the same.
    reading: Mutex<()>,
}

impl Replica {
    fn state(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Reads to the end of the stream.
    async fn refresh(&self) -> Result<(), LogError> {
        let _reading = self.reading.lock().await;
        loop {
            let next = self.state()?.head().length + 1;
            let batch = batch::read(&self.client, next).await?;
            self.take(&batch.entries)?;
            if batch.last {
                return Ok(());
            }
        }
    }

    /// Reads to the end of the stream, and again for a while until that is at
    /// least `length`: the copy that answers may not have yet what another
    /// node's told of.
    async fn read_to(&self, length: u64) -> Result<(), LogError> {
        for _ in 0..BEHIND {
            self.refresh().await?;
            if self.state()?.head().length >= length {
                break;
            }
            tokio::time::sleep(CATCHING_UP).await;
        }
        Ok(())
    }

    /// Takes in entries with their stream sequences; those known already are
    /// passed over.
    fn take(&self, entries: &[(u64, bytes::Bytes)]) -> Result<(), LogError> {
        let mut outcome = Ok(());
        self.known.send_if_modified(|known| {
            let Ok(state) = known else {
                outcome = known.as_ref().map(|_| ()).map_err(LogError::clone);
                return false;
            };
            let before = state.head().length;
            let after = Arc::make_mut(state);
            outcome = entries
                .iter()
                .try_for_each(|(sequence, entry)| self.take_one(after, *sequence, entry));
            let grown = state.head().length > before;
            if let Err(error) = &outcome {
                *known = Err(error.clone());
            }
            grown || outcome.is_err()
        });
        outcome
    }

    fn take_one(&self, state: &mut State, sequence: u64, entry: &[u8]) -> Result<(), LogError> {
        let index = state.head().length;
        if sequence <= index {
            return Ok(());
        }
        let broken = |why| LogError::Broken { index, why };
        if sequence != index + 1 {
            return Err(broken(ChainError::Order));
        }
        state.advance(entry, &self.gateway).map_err(broken)?;
        if state.org() == Some(&self.org) {
            Ok(())
        } else {
            Err(LogError::OtherOrg)
        }
    }
}

/// Reads on whenever the stream says that there is more, and now and then
/// anyway, because such a message can be lost.
async fn follow(replica: Arc<Replica>, mut live: async_nats::Subscriber) {
    loop {
        let heard = match tokio::time::timeout(POLL, live.next()).await {
            Ok(None) => return,
            Ok(Some(message)) if is_known(&replica, &message) => continue,
            Ok(Some(message)) => batch::number(&message, header::NATS_SEQUENCE),
            Err(_) => None,
        };
        match replica.read_to(heard.unwrap_or_default()).await {
            Ok(()) => {}
            Err(error @ LogError::Unavailable(_)) => {
                sotto_log::warn!(error, "the directory may be out of date");
            }
            Err(error) => {
                sotto_log::error!(error, "the directory is not used any more");
                return;
            }
        }
    }
}

fn is_known(replica: &Replica, message: &Message) -> bool {
    let sequence = batch::number(message, header::NATS_SEQUENCE);
    let state = replica.state();
    sequence.is_some_and(|sequence| state.is_ok_and(|state| sequence <= state.head().length))
}

fn stream_config(copies: usize) -> stream::Config {
    stream::Config {
        name: DIRECTORY_STREAM.to_owned(),
        description: Some("who is in the organisation, and as what".to_owned()),
        subjects: vec![DIRECTORY_SUBJECT.to_owned()],
        max_message_size: ENTRY_MAX,
        storage: stream::StorageType::File,
        num_replicas: copies,
        allow_direct: true,
        allow_atomic_publish: true,
        deny_delete: true,
        deny_purge: true,
        republish: Some(stream::Republish {
            source: DIRECTORY_SUBJECT.to_owned(),
            destination: grants::directory_live(),
            headers_only: true,
        }),
        ..stream::Config::default()
    }
}
