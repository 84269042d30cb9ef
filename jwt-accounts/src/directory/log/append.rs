//! Appending to the log. Two gateways cannot both win: every append names the
//! length that it was decided on, and is decided again when that has changed.

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderMap, header};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use sotto_proto::{DIRECTORY_SUBJECT, OrgName};
use tokio::sync::Mutex;

use super::super::chain;
use super::super::command::{Command, Refusal, decide};
use super::super::event::Change;
use super::super::state::State;
use super::super::terms::By;
use super::{DirectoryLog, LogError, batch};

/// How often a command is decided anew because others appended meanwhile.
const ATTEMPTS: u32 = 32;

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The directory does not do this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log cannot be used. After [`LogError::Unavailable`] the command may
    /// or may not have been carried out; asking again is safe.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Others were faster, many times in a row.
    #[error("the directory is being changed by many at once: try again")]
    Busy,
}

sotto_log::log_safe!(AppendError);

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// A state that has it.
    pub state: Arc<State>,
    /// The index of the first change.
    pub first: u64,
    /// What it changed, in order; nothing when all was so already.
    pub changes: Vec<Change>,
}

/// An org's directory, for reading and writing.
pub struct DirectoryWriter {
    log: DirectoryLog,
    key: SigningKey,
    /// Appends of one process take turns; only those of others can collide.
    turn: Mutex<()>,
}

impl DirectoryWriter {
    /// As [`DirectoryLog::open`], with the key that signs the log.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn open(
        js: &jetstream::Context,
        copies: usize,
        org: OrgName,
        key: SigningKey,
        snapshot: Option<PathBuf>,
    ) -> Result<Self, LogError> {
        Ok(Self {
            log: DirectoryLog::open(js, copies, org, key.verifying_key(), snapshot).await?,
            key,
            turn: Mutex::new(()),
        })
    }

    /// The log, for reading.
    pub fn log(&self) -> &DirectoryLog {
        &self.log
    }

    /// Decides a command and appends what follows from it, all or nothing.
    /// Answers when it is durable. The same command of the
    /// same actor at the same millisecond counts as one, wherever it is given.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(
        &self,
        by: &By,
        command: Command,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let _turn = self.turn.lock().await;
        let replica = &self.log.replica;
        for _ in 0..ATTEMPTS {
            let state = self.log.state()?;
            let changes = decide(&state, by, command.clone(), now_ms)?;
            let entries = chain::sign(state.head(), &by.actor, &changes, now_ms, &self.key);
            let length = state.head().length;
            // The replica then holds the only reference and grows in place.
            drop(state);
            let sequenced: Vec<(u64, Bytes)> = (length + 1..).zip(entries).collect();
            let Some((last_sequence, last_entry)) = sequenced.last() else {
                let state = self.log.state()?;
                let first = length;
                return Ok(Appended {
                    state,
                    first,
                    changes,
                });
            };
            let stored = match publish(&replica.client, length, &sequenced).await? {
                Outcome::Stored => true,
                // Perhaps by an attempt whose acknowledgement was lost.
                Outcome::NotNow => {
                    let found = batch::read_one(&replica.client, *last_sequence).await?;
                    found.as_ref() == Some(last_entry)
                }
            };
            if stored {
                self.take_own(&sequenced).await?;
                let state = self.log.state()?;
                let first = length;
                return Ok(Appended {
                    state,
                    first,
                    changes,
                });
            }
            replica.refresh().await?;
        }
        Err(AppendError::Busy)
    }

    /// Takes in what this process appended, without reading it back.
    async fn take_own(&self, entries: &[(u64, Bytes)]) -> Result<(), LogError> {
        let _reading = self.log.replica.reading.lock().await;
        self.log.replica.take(entries)
    }
}

/// What the stream made of an append.
enum Outcome {
    /// All of it is durable.
    Stored,
    /// The stream has another length, or did not answer in time.
    NotNow,
}

/// Publishes entries that follow the first `length` of the log; several as one
/// atomic batch, which takes the server several times as long as one message.
async fn publish(
    client: &Client,
    length: u64,
    entries: &[(u64, Bytes)],
) -> Result<Outcome, LogError> {
    let Some(((_, last), before)) = entries.split_last() else {
        return Ok(Outcome::Stored);
    };
    let batch = HEXLOWER.encode(&rand::random::<[u8; 16]>());
    for (place, (_, entry)) in (1..).zip(before) {
        let headers = batched(&batch, place, length);
        client
            .publish_with_headers(DIRECTORY_SUBJECT, headers, entry.clone())
            .await
            .map_err(LogError::unavailable)?;
    }
    let headers = if before.is_empty() {
        follows(length)
    } else {
        let mut headers = batched(&batch, entries.len(), length);
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        headers
    };
    let answer = client
        .request_with_headers(DIRECTORY_SUBJECT, headers, last.clone())
        .await;
    let Ok(answer) = answer else {
        return Ok(Outcome::NotNow);
    };
    match serde_json::from_slice(&answer.payload).map_err(LogError::unavailable)? {
        Response::Ok(PublishAck { .. }) => Ok(Outcome::Stored),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE => {
            Ok(Outcome::NotNow)
        }
        Response::Err { error } => Err(LogError::unavailable(error)),
    }
}

/// Stored only when the stream has just this length.
fn follows(length: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, length.to_string());
    headers
}

/// One message of a batch; the first names the length that all of it follows.
fn batched(batch: &str, place: usize, length: u64) -> HeaderMap {
    let mut headers = match place {
        1 => follows(length),
        _ => HeaderMap::new(),
    };
    headers.insert(header::NATS_BATCH_ID, batch);
    headers.insert(header::NATS_BATCH_SEQUENCE, place.to_string());
    headers
}
