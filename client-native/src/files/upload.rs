//! Sending a file: read it once for its hash, then seal and publish its chunks
//! with a few outstanding. Goes on after a broken connection and after a
//! restart, however long ago: the relay is asked which chunks it has, and only
//! the others are sent, be they gone or never stored. What this device has sent
//! before is not sent at all, as long as the relay copies it (`copy`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sotto_client_core::engine::UploadProgress;
use sotto_client_core::files::FileError;
use sotto_client_core::io::{Command, NewUpload, PublishFailure};
use sotto_proto::refusals::Refusal;
use sotto_proto::wire::{BlobRange, FetchRefusal, FetchRequest};
use sotto_proto::{FileId, RoomAddress, RoomId, limits};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::TransferError;
use super::source::Source;
use super::window::Window;
use crate::nats::{Connection, Message};
use crate::session::{Progress, Running, Session};

/// Chunks that are published and not acknowledged at most.
const WINDOW: usize = 16;

/// The pause when the server has too much to do.
const BUSY: Duration = Duration::from_secs(2);

/// A file to send that is remembered on this device.
pub struct Upload {
    pub(super) progress: UploadProgress,
    pub(super) address: RoomAddress,
    source: Source,
    /// The relay may have chunks of it, or have had.
    pub(super) begun_before: bool,
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
        let source = Source::read(&path).await?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let upload = NewUpload {
            room,
            name: truncated(&name, limits::DISPLAY_NAME).to_owned(),
            size: source.size(),
            sha256: source.sha256(),
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
            begun_before: false,
        })
    }

    /// Takes up an upload of an earlier run. One whose file has changed, or is
    /// gone, is forgotten.
    ///
    /// # Errors
    /// [`TransferError::Changed`], or when the file does not read.
    pub async fn reopen(session: &Session, file: FileId) -> Result<Self, TransferError> {
        let (progress, address) = find(session, file).await?;
        let source = match Source::read(Path::new(&progress.path)).await {
            Err(TransferError::Disk { reason, .. }) if reason.kind() == ErrorKind::NotFound => {
                return Err(cancel(session, &progress).await);
            }
            read => read?,
        };
        if (source.size(), source.sha256()) != (progress.size, progress.sha256) {
            return Err(cancel(session, &progress).await);
        }
        Ok(Self {
            progress,
            address,
            source,
            begun_before: true,
        })
    }

    /// The id under which it is to be announced.
    pub fn file(&self) -> FileId {
        self.progress.announced()
    }

    /// What receivers see.
    pub fn name(&self) -> &str {
        &self.progress.name
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.progress.size
    }

    /// Has the relay store the chunks that are missing and tells `report` how
    /// many bytes are stored; ends when the message about the file is stored,
    /// too, with the id that it has there. Waits for a connection as long as
    /// there is none. May be dropped at any time: the upload stays remembered.
    ///
    /// # Errors
    /// [`TransferError`]; the upload stays remembered unless the file has
    /// changed.
    pub async fn transfer(
        mut self,
        session: &Session,
        mut report: impl FnMut(u64),
    ) -> Result<FileId, TransferError> {
        if let Some(of) = self.progress.copy_of
            && !self.copy(session, of, &mut report).await?
        {
            self.upload_instead(session).await?;
        }
        if self.progress.copy_of.is_none() {
            self.upload(session, &mut report).await?;
        }
        let (file, chunks) = (self.progress.file, self.progress.chunks);
        advance(session, file, chunks).await.done().await?;
        Ok(self.file())
    }

    /// Publishes the chunks that are missing.
    async fn upload(
        &mut self,
        session: &Session,
        report: &mut impl FnMut(u64),
    ) -> Result<(), TransferError> {
        let (file, chunks) = (self.progress.file, self.progress.chunks);
        // Not known to be stored; of these, what is sealed.
        let mut missing: BTreeSet<u32> = (self.progress.next..chunks).collect();
        let mut sealed: BTreeMap<u32, Bytes> = BTreeMap::new();
        let mut window = Window::new(WINDOW);
        // The progress that is being made durable.
        let mut noting: Option<Running> = None;
        while !missing.is_empty() || self.begun_before {
            let connection = session.connection().await?;
            if self.begun_before
                && let Some(stored) = self.stored(&connection).await
            {
                missing = (0..chunks)
                    .filter(|chunk| !stored.contains(chunk))
                    .collect();
                sealed.retain(|chunk, _| missing.contains(chunk));
                report(self.bytes(chunks - count(&missing)));
            }
            self.begun_before = false;
            let mut todo: VecDeque<u32> = missing.iter().copied().collect();
            let mut answers: VecDeque<(u32, Instant, Answer)> = VecDeque::new();
            loop {
                while answers.len() < window.size()
                    && let Some(index) = todo.pop_front()
                {
                    // After a broken connection what is sealed is published
                    // again, under the same message id.
                    let chunk = match sealed.get(&index) {
                        Some(chunk) => chunk.clone(),
                        None => {
                            let chunk = self.seal(session, index).await?;
                            sealed.insert(index, chunk.clone());
                            chunk
                        }
                    };
                    let answer = self.publish(&connection, index, chunk);
                    answers.push_back((index, Instant::now(), answer));
                }
                let Some((index, published, oldest)) = answers.pop_front() else {
                    break;
                };
                let answer = oldest.await.unwrap_or(Err(PublishFailure::Lost));
                if !went_through(answer, published, &mut window).await? {
                    // Others may have been stored meanwhile.
                    self.begun_before = true;
                    break;
                }
                sealed.remove(&index);
                missing.remove(&index);
                report(self.bytes(chunks - count(&missing)));
                // One write at a time: on a slow disk it is of several chunks.
                let noted = match &mut noting {
                    Some(running) => running.has_ended()?,
                    None => true,
                };
                if let Some(&next) = missing.first()
                    && noted
                {
                    noting = Some(advance(session, file, next).await);
                }
            }
        }
        Ok(())
    }

    /// Asks the relay which chunks it has; `None` when it does not say.
    async fn stored(&self, connection: &Connection) -> Option<BTreeSet<u32>> {
        let chunks = self.progress.chunks;
        let request = FetchRequest {
            stored: Some(BlobRange {
                room: self.address.room.to_bytes(),
                file: self.progress.file.to_bytes(),
                first: 0,
                count: chunks,
            }),
            ..FetchRequest::default()
        };
        let mut frames = connection.fetch_in(self.address.room, request);
        let frame = frames.recv().await?;
        let understood = frame.last
            && frame.refusal == i32::from(FetchRefusal::None)
            && frame.refused_rooms.is_empty();
        let spans = frame.stored.iter();
        let stored = spans.flat_map(|span| {
            let end = span.first.saturating_add(span.count).min(chunks);
            span.first..end
        });
        // Spans that overlap cost a relay more to say than us to read.
        understood.then(|| stored.take(chunks as usize).collect())
    }

    /// Reads and seals a chunk.
    async fn seal(&self, session: &Session, index: u32) -> Result<Bytes, TransferError> {
        let content = match self.source.chunk(index).await {
            Err(TransferError::Changed(_)) => return Err(cancel(session, &self.progress).await),
            read => read?,
        };
        let file = self.progress.file;
        let sealed = session.look(move |engine, _| engine.seal_chunk(file, index, &content));
        Ok(sealed.await??)
    }

    fn publish(&self, connection: &Connection, index: u32, chunk: Bytes) -> Answer {
        let file = self.progress.file;
        let answer = connection.publish(Message {
            subject: self.address.blob(file, index),
            message_id: format!("{file}.{index}"),
            expected_last_sequence: None,
            payload: chunk,
        });
        tokio::spawn(answer)
    }

    /// So many chunks, in bytes.
    pub(super) fn bytes(&self, chunks: u32) -> u64 {
        self.size().min(u64::from(chunks) * limits::CHUNK as u64)
    }
}

/// What became of a publish: whether it is stored, or is to be sent again after
/// a pause that has passed.
pub(super) async fn went_through(
    answer: Result<u64, PublishFailure>,
    published: Instant,
    window: &mut Window,
) -> Result<bool, TransferError> {
    let pause = match answer {
        Ok(_) => {
            window.answered(published.elapsed());
            return Ok(true);
        }
        Err(PublishFailure::Lost) => Duration::ZERO,
        Err(PublishFailure::Refused(Refusal::TooFast { retry_after })) => retry_after,
        Err(PublishFailure::Refused(Refusal::Busy)) => BUSY,
        Err(PublishFailure::Refused(refusal)) => return Err(TransferError::Refused(refusal)),
        Err(PublishFailure::Denied | PublishFailure::Conflict) => {
            return Err(TransferError::Denied);
        }
    };
    window.failed();
    sleep(pause).await;
    Ok(false)
}

fn count(chunks: &BTreeSet<u32>) -> u32 {
    u32::try_from(chunks.len()).unwrap_or(u32::MAX)
}

/// Forgets an upload whose file is not what it was; the error that says so.
async fn cancel(session: &Session, upload: &UploadProgress) -> TransferError {
    let command = Command::CancelUpload { file: upload.file };
    match session.command(command).await.done().await {
        Ok(_) => TransferError::Changed(upload.path.clone()),
        Err(error) => error.into(),
    }
}

pub(super) async fn advance(session: &Session, file: FileId, next: u32) -> Running {
    let command = Command::AdvanceUpload { file, next };
    session.command(command).await
}

pub(super) async fn find(
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

/// The longest start of `text` of at most `bytes` bytes.
fn truncated(text: &str, bytes: usize) -> &str {
    text.split_at(text.floor_char_boundary(bytes)).0
}
