//! Getting a file: ask the relay for a few chunks at a time, open each, write
//! it behind the others, and keep the whole only if its hash is right.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sotto_client_core::files;
use sotto_proto::wire::{self, BlobRange, FetchFrame, FetchRequest, StoredKind};
use sotto_proto::{RoomAddress, limits};
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::TransferError;
use super::window::Window;
use crate::nats::Connection;
use crate::session::Session;

/// Chunks of one request at most.
const WINDOW: usize = 32;

/// Requests in a row that may bring nothing while the relay answers.
const EMPTY_ANSWERS: u32 = 3;

/// Before a request that follows one which brought nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Gets `file` of a room to `target`, which must not exist, and tells
/// `report` how many bytes are here. Waits for a connection as long as there
/// is none. What came of a transfer that did not end is in `<target>.part`,
/// and is not asked for again.
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
    let chunks = files::chunk_count(file.size)?;
    if chunks != file.chunks {
        return Err(files::FileError::Malformed.into());
    }
    if target.exists() {
        return Err(TransferError::Exists(target.display().to_string()));
    }
    loop {
        let (mut part, here) = block_in_place(|| Part::open(target, file.size))?;
        let mut bytes = u64::from(here) * limits::CHUNK as u64;
        report(bytes);
        let write = |content: &[u8]| {
            part.write(content)?;
            bytes += content.len() as u64;
            report(bytes);
            Ok(())
        };
        fetch_chunks(session, address, file, here..chunks, write).await?;
        match part.finish(file, target) {
            // What was here before may have been of another file.
            Err(TransferError::Damaged) if here > 0 => {}
            finished => return finished,
        }
    }
}

/// Gets the bytes of `range` of a room's file and gives them to `output` as
/// they come, each chunk verified by itself. Waits for a connection as long as
/// there is none.
///
/// # Errors
/// [`TransferError`]; the hash of the whole file is not checked.
pub async fn download_range(
    session: &Session,
    address: &RoomAddress,
    file: &wire::File,
    range: Range<u64>,
    mut output: impl Write,
) -> Result<(), TransferError> {
    let chunks = files::chunk_count(file.size)?;
    if chunks != file.chunks {
        return Err(files::FileError::Malformed.into());
    }
    if range.end > file.size || range.start > range.end {
        return Err(TransferError::BeyondTheEnd(file.size));
    }
    if range.is_empty() {
        return Ok(());
    }
    let chunk = limits::CHUNK as u64;
    // Both are below `chunks`, which is a u32.
    let first = u32::try_from(range.start / chunk).unwrap_or(chunks);
    let end = u32::try_from(range.end.div_ceil(chunk)).unwrap_or(chunks);
    let mut offset = u64::from(first) * chunk;
    let write = |content: &[u8]| {
        let within = |place: u64| {
            let place = place.saturating_sub(offset);
            usize::try_from(place).map_or(content.len(), |place| place.min(content.len()))
        };
        let wanted = content.get(within(range.start)..within(range.end));
        offset += content.len() as u64;
        output
            .write_all(wanted.unwrap_or_default())
            .map_err(TransferError::Output)
    };
    fetch_chunks(session, address, file, first..end, write).await?;
    output.flush().map_err(TransferError::Output)
}

/// Gets chunks in order and gives what is in them to `sink`. While one answer
/// comes the next is asked for: the way to the relay and back costs no time.
async fn fetch_chunks(
    session: &Session,
    address: &RoomAddress,
    file: &wire::File,
    chunks: Range<u32>,
    mut sink: impl FnMut(&[u8]) -> Result<(), TransferError>,
) -> Result<(), TransferError> {
    let mut window = Window::new(WINDOW);
    let mut next = chunks.start;
    let mut empty = 0;
    while next < chunks.end {
        let connection = session.connection().await?;
        let before = next;
        let mut ahead = next;
        let mut asked: VecDeque<Asked> = VecDeque::new();
        let answered = loop {
            let size = u32::try_from(window.size()).unwrap_or(1);
            while ahead - next < size && ahead < chunks.end && asked.len() < 2 {
                // Half a window, so that there are two.
                let count = (size - (ahead - next)).min(size.div_ceil(2));
                let end = chunks.end.min(ahead + count);
                asked.push_back(Asked::ask(&connection, address, file, ahead..end));
                ahead = end;
            }
            let Some(first) = asked.pop_front() else {
                break true;
            };
            let (began, wanted) = (Instant::now(), first.chunks.clone());
            let answered = first.take(file, &mut next, &mut sink).await?;
            let pace = began.elapsed() / (wanted.end - wanted.start).max(1);
            (wanted.start..next).for_each(|_| window.answered(pace));
            if next < wanted.end {
                window.failed();
                break answered;
            }
        };
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
    Ok(())
}

/// A request whose answer comes.
struct Asked {
    chunks: Range<u32>,
    frames: mpsc::Receiver<FetchFrame>,
}

impl Asked {
    fn ask(
        connection: &Connection,
        address: &RoomAddress,
        file: &wire::File,
        chunks: Range<u32>,
    ) -> Self {
        let request = FetchRequest {
            max_bytes: limits::FETCH_BYTES,
            blobs: vec![BlobRange {
                room: address.room.to_bytes(),
                file: file.file.clone(),
                first: chunks.start,
                count: chunks.end - chunks.start,
            }],
            ..FetchRequest::default()
        };
        let frames = connection.fetch_in(address.room, request);
        Self { chunks, frames }
    }

    /// Takes the answer in; whether it was complete.
    async fn take(
        mut self,
        file: &wire::File,
        next: &mut u32,
        sink: &mut impl FnMut(&[u8]) -> Result<(), TransferError>,
    ) -> Result<bool, TransferError> {
        while let Some(frame) = self.frames.recv().await {
            if !frame.refused_rooms.is_empty() {
                return Err(TransferError::Missing);
            }
            for message in &frame.messages {
                let expected = message.kind == i32::from(StoredKind::Blob)
                    && message.file == file.file
                    && message.index == *next;
                if expected && *next < self.chunks.end {
                    sink(&files::open_chunk(file, *next, &message.payload)?)?;
                    *next += 1;
                }
            }
            if frame.last {
                return Ok(frame.refusal == i32::from(wire::FetchRefusal::None));
            }
        }
        Ok(false)
    }
}

/// A file that is not complete yet.
struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
}

impl Part {
    /// Takes up what is here of a file of so many bytes, and how many whole
    /// chunks that is.
    fn open(target: &Path, size: u64) -> Result<(Self, u32), TransferError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let disk = || TransferError::disk(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(disk())?;
        let length = file.metadata().map_err(disk())?.len();
        // The last chunk may be one that was being written.
        let last = size.saturating_sub(1) / limits::CHUNK as u64;
        let here = last.min(length / limits::CHUNK as u64);
        let kept = here * limits::CHUNK as u64;
        file.set_len(kept).map_err(disk())?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut hash).map_err(disk())?;
        let here = u32::try_from(here).unwrap_or(0);
        Ok((Self { path, file, hash }, here))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_taken_up_in_whole_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("film");
        let chunk = limits::CHUNK;
        let content: Vec<u8> = (0..3 * chunk + 5).map(|n| n as u8).collect();
        let size = content.len() as u64;
        let file = wire::File {
            sha256: Sha256::digest(&content).to_vec().into(),
            ..wire::File::default()
        };

        let (mut part, here) = Part::open(&target, size).unwrap();
        assert_eq!(here, 0);
        part.write(&content[..2 * chunk + 7]).unwrap();
        drop(part);
        let (mut part, here) = Part::open(&target, size).unwrap();
        assert_eq!(here, 2, "half a chunk is none");
        part.write(&content[2 * chunk..]).unwrap();
        part.finish(&file, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), content);
        assert!(!folder.path().join("film.part").exists());
    }

    #[test]
    fn what_is_here_of_another_file_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("film");
        let part = folder.path().join("film.part");
        fs::write(&part, vec![1; limits::CHUNK + 1]).unwrap();
        let size = 2 * limits::CHUNK as u64;
        let (opened, here) = Part::open(&target, size).unwrap();
        assert_eq!(here, 1);
        let finished = opened.finish(&wire::File::default(), &target);
        assert!(matches!(finished, Err(TransferError::Damaged)));
        assert!(!part.exists() && !target.exists());
    }
}
