//! Getting a file: ask the relay for a few chunks at a time, open each, write
//! it behind the others, and keep the whole only if its hash is right.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sotto_client_core::files;
use sotto_proto::wire::{self, BlobRange, FetchRequest, StoredKind};
use sotto_proto::{RoomAddress, limits};
use tokio::time::sleep;

use super::TransferError;
use crate::session::Session;

/// Chunks of one request.
const WINDOW: u32 = 16;

/// Requests in a row that may bring nothing while the relay answers.
const EMPTY_ANSWERS: u32 = 3;

/// Before a request that follows one which brought nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Gets `file` of a room to `target`, which must not exist, and tells
/// `report` how many bytes are here. Waits for a connection as long as there
/// is none. What came of a transfer that did not end is in `<target>.part`.
///
/// # Errors
/// [`TransferError`].
pub async fn download(
    session: &Session,
    address: &RoomAddress,
    file: &wire::File,
    target: &Path,
    mut report: impl FnMut(u64),
) -> Result<(), TransferError> {
    if files::chunk_count(file.size)? != file.chunks {
        return Err(files::FileError::Malformed.into());
    }
    if target.exists() {
        return Err(TransferError::Exists(target.display().to_string()));
    }
    let mut part = Part::create(target)?;
    let mut next = 0;
    let mut empty = 0;
    while next < file.chunks {
        let before = next;
        let answered = fetch(session, address, file, &mut next, &mut part, &mut report).await?;
        if next > before {
            empty = 0;
            continue;
        }
        empty += u32::from(answered);
        if empty == EMPTY_ANSWERS {
            return Err(TransferError::Missing);
        }
        sleep(PAUSE).await;
    }
    part.finish(file, target)
}

/// Asks once; whether the answer was complete.
async fn fetch(
    session: &Session,
    address: &RoomAddress,
    file: &wire::File,
    next: &mut u32,
    part: &mut Part,
    report: &mut impl FnMut(u64),
) -> Result<bool, TransferError> {
    let connection = session.connection().await?;
    let count = WINDOW.min(file.chunks - *next);
    let request = FetchRequest {
        rooms: Vec::new(),
        inbox_after: None,
        max_bytes: limits::FETCH_BYTES,
        blobs: vec![BlobRange {
            room: address.room.to_bytes(),
            file: file.file.clone(),
            first: *next,
            count,
        }],
    };
    let mut frames = connection.fetch_in(address.room, request);
    while let Some(frame) = frames.recv().await {
        if !frame.refused_rooms.is_empty() {
            return Err(TransferError::Missing);
        }
        for message in &frame.messages {
            let expected = message.kind == i32::from(StoredKind::Blob)
                && message.file == file.file
                && message.index == *next;
            if expected && *next < file.chunks {
                part.write(&files::open_chunk(file, *next, &message.payload)?)?;
                *next += 1;
                report(file.size.min(u64::from(*next) * limits::CHUNK as u64));
            }
        }
        if frame.last {
            return Ok(frame.refusal == i32::from(wire::FetchRefusal::None));
        }
    }
    Ok(false)
}

/// A file that is not complete yet.
struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
}

impl Part {
    fn create(target: &Path) -> Result<Self, TransferError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(TransferError::disk(&path))?;
        Ok(Self {
            path,
            file,
            hash: Sha256::new(),
        })
    }

    fn write(&mut self, content: &[u8]) -> Result<(), TransferError> {
        self.hash.update(content);
        self.file
            .write_all(content)
            .map_err(TransferError::disk(&self.path))
    }

    /// Gives the file its name when it is what was sent; else removes it.
    fn finish(self, file: &wire::File, target: &Path) -> Result<(), TransferError> {
        let Self {
            path,
            file: written,
            hash,
        } = self;
        if hash.finalize().as_slice() != file.sha256 {
            fs::remove_file(&path).map_err(TransferError::disk(&path))?;
            return Err(TransferError::Damaged);
        }
        written.sync_all().map_err(TransferError::disk(&path))?;
        // Unlike a rename, a link never replaces what has appeared meanwhile.
        match fs::hard_link(&path, target) {
            Ok(()) => fs::remove_file(&path).map_err(TransferError::disk(&path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(TransferError::Exists(target.display().to_string()))
            }
            // Not every file system has links.
            Err(_) => fs::rename(&path, target).map_err(TransferError::disk(target)),
        }
    }
}
