//! A file to send, as it was when it was read from beginning to end.
//!
//! A chunk's key and nonce are fixed, so that two contents must never be sealed
//! as the same chunk, in whatever run: a chunk that has changed since the whole
//! was read is not given away.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use sotto_client_core::files::{self, FileError};
use sotto_proto::limits;
use tokio::task::{JoinHandle, spawn_blocking};
use zeroize::Zeroizing;

use super::TransferError;
use crate::session::CommandError;

/// See the module.
pub(super) struct Source {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
    sha256: [u8; 32],
    marks: Arc<Marks>,
}

/// By what a chunk is known again: a universal hash under a key that nobody
/// else knows, which costs a fraction of hashing it again.
struct Marks {
    key: Zeroizing<[u8; 32]>,
    chunks: Vec<[u8; 16]>,
}

impl Marks {
    fn of(&self, content: &[u8]) -> [u8; 16] {
        let key: &[u8; 32] = &self.key;
        Poly1305::new(key.into()).compute_unpadded(content).into()
    }
}

impl Source {
    /// Opens and reads it.
    pub(super) async fn read(path: &Path) -> Result<Self, TransferError> {
        let metadata = path.metadata().map_err(TransferError::disk(path))?;
        if !metadata.is_file() {
            return Err(TransferError::NotAFile(path.display().to_string()));
        }
        files::chunk_count(metadata.len())?;
        let file = File::open(path).map_err(TransferError::disk(path))?;
        let owned = path.to_owned();
        finished(spawn_blocking(move || Self::of(file, owned))).await
    }

    fn of(mut file: File, path: PathBuf) -> Result<Self, TransferError> {
        let mut marks = Marks {
            key: Zeroizing::new([0; 32]),
            chunks: Vec::new(),
        };
        OsRng.fill_bytes(marks.key.as_mut_slice());
        let (mut size, mut hash) = (0, Sha256::new());
        let mut chunk = Vec::with_capacity(limits::CHUNK);
        loop {
            chunk.clear();
            let mut rest = (&mut file).take(limits::CHUNK as u64);
            let length = rest.read_to_end(&mut chunk);
            let length = length.map_err(TransferError::disk(&path))?;
            // An empty file has one chunk, too.
            if length == 0 && !marks.chunks.is_empty() {
                break;
            }
            // It may grow while it is read.
            if marks.chunks.len() >= limits::FILE_CHUNKS as usize {
                return Err(FileError::TooLarge.into());
            }
            size += length as u64;
            hash.update(&chunk);
            let mark = marks.of(&chunk);
            marks.chunks.push(mark);
            if length < limits::CHUNK {
                break;
            }
        }
        Ok(Self {
            file: Arc::new(file),
            path,
            size,
            sha256: hash.finalize().into(),
            marks: Arc::new(marks),
        })
    }

    /// Its length in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Of all of it.
    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Reads a chunk again.
    ///
    /// # Errors
    /// [`TransferError::Changed`] when it is not what it was.
    pub(super) async fn chunk(&self, index: u32) -> Result<Vec<u8>, TransferError> {
        let length = files::chunk_length(self.size, index);
        let offset = u64::from(index) * limits::CHUNK as u64;
        let (file, marks) = (Arc::clone(&self.file), Arc::clone(&self.marks));
        let path = self.path.clone();
        finished(spawn_blocking(move || {
            let changed = || TransferError::Changed(path.display().to_string());
            let mut content = vec![0; length];
            match file.read_exact_at(&mut content, offset) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(changed()),
                read => read.map_err(TransferError::disk(&path))?,
            }
            match marks.chunks.get(index as usize) {
                Some(mark) if *mark == marks.of(&content) => Ok(content),
                _ => Err(changed()),
            }
        }))
        .await
    }
}

async fn finished<T>(task: JoinHandle<Result<T, TransferError>>) -> Result<T, TransferError> {
    // An error means that the runtime is shutting down.
    task.await.unwrap_or(Err(CommandError::Stopped.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn source(content: &[u8]) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film");
        fs::write(&path, content).unwrap();
        let source = Source::read(&path).await.unwrap();
        (folder, source)
    }

    #[tokio::test]
    async fn a_file_is_read_in_chunks() {
        let chunk = limits::CHUNK;
        for length in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk] {
            let content: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            let (_folder, source) = source(&content).await;
            assert_eq!(source.size(), length as u64);
            assert_eq!(source.sha256(), <[u8; 32]>::from(Sha256::digest(&content)));
            let chunks = files::chunk_count(length as u64).unwrap();
            assert_eq!(source.marks.chunks.len(), chunks as usize);
            let mut read = Vec::new();
            for index in 0..chunks {
                read.extend(source.chunk(index).await.unwrap());
            }
            assert!(read == content, "{length}");
        }
    }

    #[tokio::test]
    async fn what_has_changed_is_not_given_away() {
        let mut content = vec![1; 2 * limits::CHUNK];
        let (_folder, source) = source(&content).await;
        content[limits::CHUNK + 9] ^= 1;
        fs::write(&source.path, &content).unwrap();
        assert!(source.chunk(0).await.is_ok());
        let changed = source.chunk(1).await;
        assert!(matches!(changed, Err(TransferError::Changed(_))));
        fs::write(&source.path, &content[..10]).unwrap();
        let shorter = source.chunk(0).await;
        assert!(matches!(shorter, Err(TransferError::Changed(_))));
        assert!(source.chunk(2).await.is_err());
    }
}
