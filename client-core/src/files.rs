//! Files in chunks: how many, and how each is sealed. Chunk `n` is sealed
//! under the file's own key with `n` as the nonce and the file's id as
//! authenticated data; length, number and SHA-256 of the whole are in the
//! file's message, so that a missing or swapped chunk shows.

use bytes::Bytes;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};
use sotto_proto::{FileId, limits, wire};

use crate::vault::cipher;

/// Why a chunk could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file's message lacks an id or a key.
    #[error("the file's message is incomplete: ask its sender to send it again")]
    Malformed,
    /// Not the chunk that was sent.
    #[error(
        "a part of the file was changed on the way: try again, and tell your administrator if it stays so"
    )]
    Tampered,
    /// More than a file may have.
    #[error("the file is larger than {} GiB, the most that can be sent", MAX_SIZE >> 30)]
    TooLarge,
    /// No upload of that name is under way.
    #[error("this upload is not known any more: send the file again")]
    UnknownUpload,
}

/// The largest file, in bytes.
pub const MAX_SIZE: u64 = limits::FILE_CHUNKS as u64 * limits::CHUNK as u64;

/// How many chunks a file of `size` bytes has; an empty file has one.
///
/// # Errors
/// [`FileError::TooLarge`].
pub fn chunk_count(size: u64) -> Result<u32, FileError> {
    let chunks = size.div_ceil(limits::CHUNK as u64).max(1);
    u32::try_from(chunks)
        .ok()
        .filter(|chunks| *chunks <= limits::FILE_CHUNKS)
        .ok_or(FileError::TooLarge)
}

/// The length of chunk `index` of a file of `size` bytes.
pub fn chunk_length(size: u64, index: u32) -> usize {
    let start = u64::from(index) * limits::CHUNK as u64;
    let length = size.saturating_sub(start).min(limits::CHUNK as u64);
    usize::try_from(length).unwrap_or(limits::CHUNK)
}

pub(crate) fn seal_chunk(
    file: FileId,
    key: &[u8; 32],
    index: u32,
    content: &[u8],
) -> Result<Bytes, FileError> {
    if content.len() > limits::CHUNK {
        return Err(FileError::TooLarge);
    }
    let payload = Payload {
        msg: content,
        aad: file.as_bytes(),
    };
    let sealed = cipher(key).encrypt(&nonce(index), payload);
    sealed.map(Bytes::from).map_err(|_| FileError::Tampered)
}

/// Opens chunk `index` of a received file.
///
/// # Errors
/// [`FileError::Malformed`] or [`FileError::Tampered`].
pub fn open_chunk(file: &wire::File, index: u32, sealed: &[u8]) -> Result<Vec<u8>, FileError> {
    let key = file
        .key
        .as_ref()
        .try_into()
        .map_err(|_| FileError::Malformed)?;
    let id = FileId::try_from(&file.file).map_err(|_| FileError::Malformed)?;
    let payload = Payload {
        msg: sealed,
        aad: id.as_bytes(),
    };
    let content = cipher(key)
        .decrypt(&nonce(index), payload)
        .map_err(|_| FileError::Tampered)?;
    if content.len() == chunk_length(file.size, index) {
        Ok(content)
    } else {
        Err(FileError::Tampered)
    }
}

fn nonce(index: u32) -> XNonce {
    let mut nonce = [0; 24];
    nonce
        .iter_mut()
        .zip(index.to_be_bytes())
        .for_each(|(to, from)| *to = from);
    nonce.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> (FileId, wire::File) {
        let id = FileId::try_from(&[1u8; 16][..]).unwrap();
        let file = wire::File {
            file: id.to_bytes(),
            key: vec![2; 32].into(),
            size,
            chunks: chunk_count(size).unwrap(),
            ..wire::File::default()
        };
        (id, file)
    }

    #[test]
    fn chunks_come_back_and_cannot_be_swapped() {
        let size = limits::CHUNK as u64 + 3;
        let (id, file) = file(size);
        let first = seal_chunk(id, &[2; 32], 0, &vec![7; limits::CHUNK]).unwrap();
        let second = seal_chunk(id, &[2; 32], 1, &[8; 3]).unwrap();
        assert_eq!(
            open_chunk(&file, 0, &first).unwrap(),
            vec![7; limits::CHUNK]
        );
        assert_eq!(open_chunk(&file, 1, &second).unwrap(), [8; 3]);
        assert_eq!(open_chunk(&file, 0, &second), Err(FileError::Tampered));
        assert_eq!(open_chunk(&file, 1, &second[1..]), Err(FileError::Tampered));
    }

    #[test]
    fn a_sealed_chunk_fits_into_a_payload() {
        let (id, _) = file(1);
        let sealed = seal_chunk(id, &[2; 32], 0, &vec![7; limits::CHUNK]).unwrap();
        assert!(sealed.len() <= limits::PAYLOAD);
    }

    #[test]
    fn chunk_counts() {
        let chunk = limits::CHUNK as u64;
        for (size, chunks) in [(0, 1), (1, 1), (chunk, 1), (chunk + 1, 2)] {
            assert_eq!(chunk_count(size), Ok(chunks));
        }
        assert_eq!(chunk_count(MAX_SIZE + 1), Err(FileError::TooLarge));
        assert_eq!(
            (chunk_length(chunk + 3, 0), chunk_length(chunk + 3, 1)),
            (limits::CHUNK, 3)
        );
    }
}
