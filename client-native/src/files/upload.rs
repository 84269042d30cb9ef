//! Sending a file: read it once for its hash, then seal and publish its chunks
//! with a few outstanding. Goes on after a broken connection and after a
//! restart.
//!
//! A chunk's key and nonce are fixed, so the same chunk must never be sealed
//! with two contents: within a run each is sealed once and kept until it is
//! stored, and a later run first checks that the file has not changed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sotto_client_core::engine::UploadProgress;
use sotto_client_core::files::{self, FileError};
use sotto_client_core::io::{Command, NewUpload, PublishFailure};
use sotto_proto::refusals::Refusal;
use sotto_proto::{FileId, RoomAddress, RoomId, limits};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::TransferError;
use super::window::Window;
use crate::nats::{Connection, Message};
use crate::session::{CommandError, Progress, Running, Session};

/// Chunks that are published and not acknowledged at most.
const WINDOW: usize = 16;

/// The pause when the server has too much to do.
const BUSY: Duration = Duration::from_secs(2);

/// A file to send that is remembered on this device.
pub struct Upload {
    progress: UploadProgress,
    address: RoomAddress,
    source: Arc<File>,
    /// Of what comes before the first chunk to send.
    hash: Sha256,
}

/// The answer to a publish, as it becomes known.
type Answer = JoinHandle<Result<u64, PublishFailure>>;

impl Upload {
    /// Remembers a file to send.
    ///
    /// # Errors
    /// When the file does not read or the room cannot be written to.
    pub async fn begin(
        session: &Session,
        room: RoomId,
        path: &Path,
    ) -> Result<Self, TransferError> {
        let path = std::path::absolute(path).map_err(TransferError::disk(path))?;
        let metadata = path.metadata().map_err(TransferError::disk(&path))?;
        if !metadata.is_file() {
            return Err(TransferError::NotAFile(path.display().to_string()));
        }
        files::chunk_count(metadata.len())?;
        let source = open(&path)?;
        let read = read_whole(Arc::clone(&source), &path, 0).await?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let upload = NewUpload {
            room,
            name: truncated(&name, limits::DISPLAY_NAME).to_owned(),
            size: read.size,
            sha256: read.sha256,
            path: path.display().to_string(),
        };
        let mut running = session.command(Command::BeginUpload(upload)).await;
        let file = loop {
            if let Progress::UploadBegun(file) = running.next().await? {
                break file;
            }
        };
        let (progress, address) = find(session, file).await?;
        Ok(Self {
            progress,
            address,
            source,
            hash: read.prefix,
        })
    }

    /// Takes up an upload of an earlier run. One whose file has changed, or is
    /// gone, is forgotten.
    ///
    /// # Errors
    /// [`TransferError::Changed`], or when the file does not read.
    pub async fn reopen(session: &Session, file: FileId) -> Result<Self, TransferError> {
        let (progress, address) = find(session, file).await?;
        let path = PathBuf::from(&progress.path);
        let source = match open(&path) {
            Err(TransferError::Disk { reason, .. }) if reason.kind() == ErrorKind::NotFound => {
                return Err(cancel(session, &progress).await);
            }
            opened => opened?,
        };
        let sent = u64::from(progress.next) * limits::CHUNK as u64;
        let read = read_whole(Arc::clone(&source), &path, sent.min(progress.size)).await?;
        if (read.size, read.sha256) != (progress.size, progress.sha256) {
            return Err(cancel(session, &progress).await);
        }
        Ok(Self {
            progress,
            address,
            source,
            hash: read.prefix,
        })
    }

    /// Its id.
    pub fn file(&self) -> FileId {
        self.progress.file
    }

    /// What receivers see.
    pub fn name(&self) -> &str {
        &self.progress.name
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.progress.size
    }

    /// Publishes the chunks that are missing and tells `report` how many bytes
    /// are stored; ends when the message about the file is stored, too. Waits
    /// for a connection as long as there is none. May be dropped at any time:
    /// the upload stays remembered.
    ///
    /// # Errors
    /// [`TransferError`]; the upload stays remembered unless the file has
    /// changed.
    pub async fn transfer(
        mut self,
        session: &Session,
        mut report: impl FnMut(u64),
    ) -> Result<(), TransferError> {
        let (file, chunks) = (self.progress.file, self.progress.chunks);
        // Sealed and not known to be stored, oldest first.
        let mut sealed: VecDeque<Bytes> = VecDeque::new();
        let mut stored = self.progress.next;
        let mut window = Window::new(WINDOW);
        // The progress that is being made durable.
        let mut noting: Option<Running> = None;
        while stored < chunks {
            let connection = session.connection().await?;
            // After a broken connection these are published again, under the
            // same message ids.
            let mut answers: VecDeque<(Instant, Answer)> = (stored..)
                .zip(&sealed)
                .map(|(index, chunk)| self.publish(&connection, index, chunk))
                .collect();
            loop {
                while answers.len() < window.size() && self.progress.next < chunks {
                    let chunk = self.seal_next(session).await?;
                    let index = self.progress.next;
                    answers.push_back(self.publish(&connection, index, &chunk));
                    sealed.push_back(chunk);
                    self.progress.next += 1;
                }
                let Some((published, oldest)) = answers.pop_front() else {
                    break;
                };
                match oldest.await.unwrap_or(Err(PublishFailure::Lost)) {
                    Ok(_) => window.answered(published.elapsed()),
                    Err(PublishFailure::Lost) => {
                        window.failed();
                        break;
                    }
                    Err(PublishFailure::Refused(Refusal::TooFast { retry_after })) => {
                        window.failed();
                        sleep(retry_after).await;
                        break;
                    }
                    Err(PublishFailure::Refused(Refusal::Busy)) => {
                        window.failed();
                        sleep(BUSY).await;
                        break;
                    }
                    Err(PublishFailure::Refused(refusal)) => {
                        return Err(TransferError::Refused(refusal));
                    }
                    Err(PublishFailure::Denied | PublishFailure::Conflict) => {
                        return Err(TransferError::Denied);
                    }
                }
                sealed.pop_front();
                stored += 1;
                report(self.size().min(u64::from(stored) * limits::CHUNK as u64));
                // One write at a time: on a slow disk it is of several chunks.
                let noted = match &mut noting {
                    Some(running) => running.has_ended()?,
                    None => true,
                };
                if noted && stored < chunks {
                    noting = Some(advance(session, file, stored).await);
                }
            }
        }
        let sha256: [u8; 32] = self.hash.clone().finalize().into();
        if sha256 != self.progress.sha256 {
            return Err(cancel(session, &self.progress).await);
        }
        advance(session, file, chunks).await.done().await?;
        Ok(())
    }

    /// Reads and seals chunk `progress.next`.
    async fn seal_next(&mut self, session: &Session) -> Result<Bytes, TransferError> {
        let (file, index) = (self.progress.file, self.progress.next);
        let length = files::chunk_length(self.progress.size, index);
        let offset = u64::from(index) * limits::CHUNK as u64;
        let source = Arc::clone(&self.source);
        let read = spawn_blocking(move || {
            let mut content = vec![0; length];
            source.read_exact_at(&mut content, offset)?;
            Ok(content)
        });
        let content = blocking(read, Path::new(&self.progress.path)).await?;
        self.hash.update(&content);
        let sealed = session.look(move |engine, _| engine.seal_chunk(file, index, &content));
        Ok(sealed.await??)
    }

    fn publish(&self, connection: &Connection, index: u32, chunk: &Bytes) -> (Instant, Answer) {
        let file = self.progress.file;
        let answer = connection.publish(Message {
            subject: self.address.blob(file, index),
            message_id: format!("{file}.{index}"),
            expected_last_sequence: None,
            payload: chunk.clone(),
        });
        (Instant::now(), tokio::spawn(answer))
    }
}

/// Forgets an upload whose file is not what it was; the error that says so.
async fn cancel(session: &Session, upload: &UploadProgress) -> TransferError {
    let command = Command::CancelUpload { file: upload.file };
    match session.command(command).await.done().await {
        Ok(_) => TransferError::Changed(upload.path.clone()),
        Err(error) => error.into(),
    }
}

async fn advance(session: &Session, file: FileId, next: u32) -> Running {
    let command = Command::AdvanceUpload { file, next };
    session.command(command).await
}

async fn find(
    session: &Session,
    file: FileId,
) -> Result<(UploadProgress, RoomAddress), TransferError> {
    let found = session.look(move |engine, _| {
        let upload = engine.uploads().find(|upload| upload.file == file)?;
        let rooms = engine.rooms();
        let room = rooms.into_iter().find(|room| room.room == upload.room)?;
        Some((upload.clone(), room.address?))
    });
    Ok(found.await?.ok_or(FileError::UnknownUpload)?)
}

/// What was seen when a file was read from beginning to end.
struct WholeRead {
    size: u64,
    sha256: [u8; 32],
    /// The state of the hash after the bytes that were asked for.
    prefix: Sha256,
}

async fn read_whole(file: Arc<File>, path: &Path, prefix: u64) -> Result<WholeRead, TransferError> {
    let read = spawn_blocking(move || {
        let mut hash = Sha256::new();
        let prefix_read = std::io::copy(&mut (&*file).take(prefix), &mut hash)?;
        let after_prefix = hash.clone();
        let rest_read = std::io::copy(&mut &*file, &mut hash)?;
        Ok(WholeRead {
            size: prefix_read + rest_read,
            sha256: hash.finalize().into(),
            prefix: after_prefix,
        })
    });
    blocking(read, path).await
}

async fn blocking<T>(
    task: JoinHandle<std::io::Result<T>>,
    path: &Path,
) -> Result<T, TransferError> {
    match task.await {
        Ok(result) => result.map_err(TransferError::disk(path)),
        // The runtime is shutting down.
        Err(_) => Err(CommandError::Stopped.into()),
    }
}

fn open(path: &Path) -> Result<Arc<File>, TransferError> {
    let file = File::open(path).map_err(TransferError::disk(path))?;
    Ok(Arc::new(file))
}

/// The longest start of `text` of at most `bytes` bytes.
fn truncated(text: &str, bytes: usize) -> &str {
    text.split_at(text.floor_char_boundary(bytes)).0
}
