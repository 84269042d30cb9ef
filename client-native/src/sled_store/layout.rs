//! How records lie in sled: what is under which key, and in which bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::slice::Chunks;

use sha2::{Digest, Sha256};

use super::failure::Failure;

/// Longest key of a record, in bytes: a page of keys stays below sled's 128 KiB.
pub(super) const KEY: usize = 256;

/// Longest value kept in one record, in bytes. A leaf holds 16 records and ten
/// pending writes, so that a page stays below sled's 128 KiB.
const PIECE: usize = 4_096;

/// First byte of a record's key; the caller's key follows.
pub(super) const RECORD: u8 = b'r';
/// First byte of a piece's key; the long value's id and the index follow.
const PIECES: u8 = b'p';
/// The key of the [`Head`].
pub(super) const HEAD: &[u8] = b"h";

/// First byte of a stored value that follows as it is.
const INLINE: u8 = 0;
/// First byte of a stored value that is in pieces: id and count follow.
const LONG: u8 = 1;

/// How many commits there were and how many records they left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) generation: u64,
    pub(super) records: u64,
}

impl Head {
    /// The head of the commit that follows, as long as it changes no records.
    pub(super) fn next(self) -> Self {
        Self {
            generation: self.generation + 1,
            ..self
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        pair(self.generation.to_be_bytes(), self.records.to_be_bytes())
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let (generation, records) = halves(bytes).ok_or_else(Failure::damaged)?;
        Ok(Self {
            generation: u64::from_be_bytes(generation),
            records: u64::from_be_bytes(records),
        })
    }

    /// Notes the generation outside sled. Not synced: an older note after a
    /// power cut only notices less.
    pub(super) fn write_note(self, note: &File) -> io::Result<()> {
        let generation = self.generation.to_be_bytes();
        note.write_all_at(&pair(generation, check_value(generation)), 0)
    }

    /// The generation in a note; 0 when it holds no whole one.
    pub(super) fn noted(note: &File) -> u64 {
        let mut bytes = [0; 16];
        match note.read_exact_at(&mut bytes, 0).map(|()| halves(&bytes)) {
            Ok(Some((generation, check))) if check == check_value(generation) => {
                u64::from_be_bytes(generation)
            }
            _ => 0,
        }
    }
}

/// What stands under a record's key.
pub(super) enum Value<'a> {
    /// The caller's value.
    Inline(&'a [u8]),
    /// It is in pieces under keys of their own.
    Long { id: PieceId, count: u32 },
}

/// Names the pieces of one long value: its commit and its place in it.
type PieceId = [u8; 12];

impl<'a> Value<'a> {
    /// How the caller's value is stored, and the pieces for its
    /// [`Self::piece_keys`].
    pub(super) fn lay_out(bytes: &'a [u8], generation: u64, number: u32) -> (Self, Chunks<'a, u8>) {
        if bytes.len() <= PIECE {
            return (Self::Inline(bytes), [].chunks(PIECE));
        }
        let mut id = [0; 12];
        let (high, low) = id.split_at_mut(8);
        high.copy_from_slice(&generation.to_be_bytes());
        low.copy_from_slice(&number.to_be_bytes());
        let pieces = bytes.chunks(PIECE);
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        (Self::Long { id, count }, pieces)
    }

    pub(super) fn parse(stored: &'a [u8]) -> Result<Self, Failure> {
        match stored.split_first() {
            Some((&INLINE, bytes)) => Ok(Self::Inline(bytes)),
            Some((&LONG, place)) => Self::parse_place(place).ok_or_else(Failure::damaged),
            _ => Err(Failure::damaged()),
        }
    }

    fn parse_place(place: &[u8]) -> Option<Self> {
        let (id, count) = place.split_at_checked(12)?;
        Some(Self::Long {
            id: id.try_into().ok()?,
            count: u32::from_be_bytes(count.try_into().ok()?),
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => [&[INLINE], *bytes].concat(),
            Self::Long { id, count } => [&[LONG], id.as_slice(), &count.to_be_bytes()].concat(),
        }
    }

    /// Where the pieces are, in order; none for an inline value.
    pub(super) fn piece_keys(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let (id, count) = match self {
            Self::Inline(_) => ([0; 12], 0),
            Self::Long { id, count } => (*id, *count),
        };
        (0..count).map(move |index| [&[PIECES], id.as_slice(), &index.to_be_bytes()].concat())
    }
}

/// The key of a record, or the start of the keys of several.
pub(super) fn record_key(key: &[u8]) -> Vec<u8> {
    [&[RECORD], key].concat()
}

fn check_value(generation: [u8; 8]) -> [u8; 8] {
    let hash: [u8; 32] = Sha256::digest(generation).into();
    let mut check = [0; 8];
    check.copy_from_slice(hash.split_at(8).0);
    check
}

fn pair(first: [u8; 8], second: [u8; 8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (left, right) = bytes.split_at_mut(8);
    left.copy_from_slice(&first);
    right.copy_from_slice(&second);
    bytes
}

fn halves(bytes: &[u8]) -> Option<([u8; 8], [u8; 8])> {
    let (first, second) = bytes.split_at_checked(8)?;
    Some((first.try_into().ok()?, second.try_into().ok()?))
}
