//! Files on their way to a room. The shell publishes the chunks; here is what
//! must survive a restart: which file, under which key, how far. And which
//! files this device has sent lately: another room gets a copy of their chunks
//! under the same id and key, without another upload.

use prost::Message;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sotto_proto::{FileId, RoomId, limits, wire};
use zeroize::Zeroize;

use super::commands::{Refusal, check_name};
use super::{Engine, Goal};
use crate::account::random_bytes;
use crate::files::{FileError, chunk_count, seal_chunk};
use crate::io::{Event, NewUpload, Ticket, Timestamp};
use crate::records::Key;
use crate::room::Phase;

/// An upload that is not finished, format 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct UploadProgress {
    /// Its id.
    pub file: FileId,
    /// The room that is to get it.
    pub room: RoomId,
    /// Where the shell finds the file.
    pub path: String,
    /// What receivers see.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Of the content.
    pub sha256: [u8; 32],
    /// How many chunks it has.
    pub chunks: u32,
    /// The first that is not stored yet.
    pub next: u32,
    key: [u8; 32],
    /// What it is a copy of, when the server is to copy it.
    #[serde(default)]
    pub copy_of: Option<CopyOf>,
}

/// A file that a room has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOf {
    /// The room.
    pub room: RoomId,
    /// The file's id there, by which its chunks are sealed.
    pub file: FileId,
}

impl UploadProgress {
    /// The id under which the file is announced: a copy keeps its own.
    pub fn announced(&self) -> FileId {
        self.copy_of.map_or(self.file, |of| of.file)
    }
}

/// A file that this device has sent, by its hash, format 1.
#[derive(Serialize, Deserialize)]
struct SentFile {
    place: CopyOf,
    size: u64,
    key: [u8; 32],
    /// When.
    at_ms: i64,
}

impl Drop for SentFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Drop for UploadProgress {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for UploadProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "UploadProgress({:?}, {} of {})",
            self.file, self.next, self.chunks
        )
    }
}

impl Engine {
    /// Uploads that are not finished, for the shell to go on with.
    pub fn uploads(&self) -> impl Iterator<Item = &UploadProgress> {
        self.uploads.values()
    }

    /// Seals one chunk of an upload for its blob subject.
    ///
    /// # Errors
    /// [`FileError::UnknownUpload`], or [`FileError::TooLarge`] for more than a chunk.
    pub fn seal_chunk(
        &self,
        file: FileId,
        index: u32,
        content: &[u8],
    ) -> Result<bytes::Bytes, FileError> {
        let upload = self.uploads.get(&file).ok_or(FileError::UnknownUpload)?;
        seal_chunk(file, &upload.key, index, content)
    }

    pub(super) fn begin_upload(
        &mut self,
        ticket: Ticket,
        upload: NewUpload,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(), Refusal> {
        check_name(&upload.name, "file")?;
        let chunks = chunk_count(upload.size).map_err(|error| error.to_string())?;
        self.member_of(upload.room)?;
        let file = FileId::random(rng);
        let NewUpload {
            room,
            name,
            size,
            sha256,
            path,
        } = upload;
        let sent = self.sent_file(&sha256, size);
        let (key, copy_of) = match &sent {
            Some(sent) => (sent.key, Some(sent.place)),
            None => (random_bytes(rng), None),
        };
        let upload = UploadProgress {
            file,
            room,
            path,
            name,
            size,
            sha256,
            chunks,
            next: 0,
            key,
            copy_of,
        };
        self.provider.records().put(Key::Upload(file), &upload);
        self.uploads.insert(file, upload);
        self.event(Event::UploadBegun { ticket, file });
        Ok(())
    }

    pub(super) fn advance_upload(
        &mut self,
        ticket: Ticket,
        file: FileId,
        next: u32,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let upload = self
            .uploads
            .get_mut(&file)
            .ok_or_else(|| FileError::UnknownUpload.to_string())?;
        upload.next = next.min(upload.chunks).max(upload.next);
        let upload = upload.clone();
        if upload.next < upload.chunks {
            self.provider.records().put(Key::Upload(file), &upload);
            self.event(Event::Done {
                ticket,
                room: Some(upload.room),
            });
            return Ok(());
        }
        let record = &mut self.member_of(upload.room)?.record;
        record.counter += 1;
        let counter = record.counter;
        let body = wire::File {
            file: upload.announced().to_bytes(),
            name: upload.name.clone(),
            size: upload.size,
            sha256: upload.sha256.to_vec().into(),
            key: upload.key.to_vec().into(),
            chunks: upload.chunks,
        };
        self.queue_entry(
            upload.room,
            counter,
            wire::EntryKind::File,
            body.encode_to_vec(),
            now,
        );
        self.cancel_upload(file);
        self.note_sent(&upload, now);
        self.wait(ticket, upload.room, Goal::Sent(counter));
        Ok(())
    }

    pub(super) fn cancel_upload(&mut self, file: FileId) {
        self.uploads.remove(&file);
        self.provider.records().delete(Key::Upload(file));
    }
    /// The server does not copy: the file is uploaded from the beginning, under
    /// a key of its own.
    pub(super) fn upload_instead(
        &mut self,
        ticket: Ticket,
        file: FileId,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(), Refusal> {
        let upload = self
            .uploads
            .get_mut(&file)
            .ok_or_else(|| FileError::UnknownUpload.to_string())?;
        let records = self.provider.records();
        if upload.copy_of.take().is_some() {
            upload.key = random_bytes(rng);
            upload.next = 0;
            records.put(Key::Upload(file), upload);
            records.delete(Key::SentFile(upload.sha256));
        }
        let room = Some(upload.room);
        self.event(Event::Done { ticket, room });
        Ok(())
    }

    /// Whether, and where, this device has sent a file before.
    fn sent_file(&self, sha256: &[u8; 32], size: u64) -> Option<SentFile> {
        let records = self.provider.records();
        // What does not read is not there: then the file is uploaded.
        let sent: SentFile = records.get(&Key::SentFile(*sha256)).ok()??;
        let room = self.rooms.get(&sent.place.room)?;
        let readable = room.record.phase == Phase::Member;
        (sent.size == size && readable).then_some(sent)
    }

    /// Remembers a file that all of a room's members can get now, and forgets
    /// those that the server has no more.
    fn note_sent(&self, upload: &UploadProgress, now: Timestamp) {
        let records = self.provider.records();
        let kept = i64::try_from(limits::FILE.as_millis()).unwrap_or(i64::MAX);
        for key in records.keys(Key::SentFile([0; 32])..=Key::SentFile([u8::MAX; 32])) {
            let sent = records.get::<SentFile>(&key).ok().flatten();
            if sent.is_none_or(|sent| now.0.saturating_sub(sent.at_ms) > kept) {
                records.delete(key);
            }
        }
        let sent = SentFile {
            place: CopyOf {
                room: upload.room,
                file: upload.announced(),
            },
            size: upload.size,
            key: upload.key,
            at_ms: now.0,
        };
        records.put(Key::SentFile(upload.sha256), &sent);
    }
}
