//! What a store counts of itself, in redb and beside it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::failure::Failure;

/// How many commits there were and how many records they left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) generation: u64,
    pub(super) records: u64,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        pair(self.generation.to_be_bytes(), self.records.to_be_bytes())
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let bytes = bytes.try_into().map_err(|_| Failure::damaged())?;
        let (generation, records) = halves(bytes);
        Ok(Self {
            generation: u64::from_be_bytes(generation),
            records: u64::from_be_bytes(records),
        })
    }

    /// Notes the generation outside redb. Not synced: an older note after a
    /// power cut only notices less.
    pub(super) fn write_note(self, note: &File) -> io::Result<()> {
        let generation = self.generation.to_be_bytes();
        note.write_all_at(&pair(generation, check_value(generation)), 0)
    }

    /// The generation in a note; 0 when it holds no whole one.
    pub(super) fn noted(note: &File) -> u64 {
        let mut bytes = [0; 16];
        let read = note.read_exact_at(&mut bytes, 0);
        let (generation, check) = halves(bytes);
        match read {
            Ok(()) if check == check_value(generation) => u64::from_be_bytes(generation),
            _ => 0,
        }
    }
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

fn halves(bytes: [u8; 16]) -> ([u8; 8], [u8; 8]) {
    let (mut first, mut second) = ([0; 8], [0; 8]);
    first.copy_from_slice(bytes.split_at(8).0);
    second.copy_from_slice(bytes.split_at(8).1);
    (first, second)
}
