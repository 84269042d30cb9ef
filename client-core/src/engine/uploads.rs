//! Files on their way to a room. The shell publishes the chunks; here is what
//! must survive a restart: which file, under which key, how far.

use prost::Message;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sotto_proto::{FileId, RoomId, wire};
use zeroize::Zeroize;

use super::commands::{Refusal, check_name};
use super::{Engine, Goal};
use crate::account::random_bytes;
use crate::files::{FileError, chunk_count, seal_chunk};
use crate::io::{Event, NewUpload, Ticket, Timestamp};
use crate::records::Key;

/// An upload that is not finished, format 1.
#[derive(Clone, Serialize, Deserialize)]
pub struct UploadProgress {
    /// Its id.
    pub file: FileId,
    /// The room.
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
        let key = random_bytes(rng);
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
            file: file.to_bytes(),
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
        self.wait(ticket, upload.room, Goal::Sent(counter));
        Ok(())
    }

    pub(super) fn cancel_upload(&mut self, file: FileId) {
        self.uploads.remove(&file);
        self.provider.records().delete(Key::Upload(file));
    }
}
