//! A whole log in one file, to be kept, and checked without a server.
//!
//! `SOTTOLOG`, the version (u32), then every entry as it is in the log, each
//! with its length before it (u32), then the length 0 and the number of entries
//! (u64); numbers are big endian.

use std::io::{self, Read, Write};

use ed25519_dalek::VerifyingKey;

use super::chain::ChainError;
use super::state::State;

const MAGIC: &[u8; 8] = b"SOTTOLOG";
const VERSION: u32 = 1;
/// Largest entry, in bytes: more than the log's stream takes.
const ENTRY_MAX: u32 = 64 * 1024;

/// Writes an export, entry by entry.
#[derive(Debug)]
pub struct Exporter<W> {
    to: W,
    entries: u64,
}

impl<W: Write> Exporter<W> {
    /// Begins an export.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_be_bytes())?;
        Ok(Self { to, entries: 0 })
    }

    /// Adds the next entry, as it is in the log.
    ///
    /// # Errors
    /// When it cannot be written, or is longer than any entry.
    pub fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = u32::try_from(entry.len()).ok();
        let length = length.filter(|length| (1..=ENTRY_MAX).contains(length));
        let length = length.ok_or_else(|| io::Error::other("this is no entry of a directory"))?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(entry)?;
        self.entries += 1;
        Ok(())
    }

    /// Ends the export and gives back what it was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&0_u32.to_be_bytes())?;
        self.to.write_all(&self.entries.to_be_bytes())?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Where an export stops being a log that the gateway signed, and why.
#[derive(Debug, thiserror::Error)]
#[error(
    "entry {index} of the export does not fit: {why}; nothing from there on can be believed, so export the log again or look for who changed it"
)]
pub struct BadExport {
    /// The first entry that does not fit, from 0.
    pub index: u64,
    /// What is wrong there.
    pub why: ExportError,
}

/// What is wrong in an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("the file is no export of a directory, or one of a newer Sotto")]
    Format,
    /// The file ends before its end mark.
    #[error("the file is truncated")]
    Truncated,
    /// The end mark counts otherwise, or is not the end.
    #[error("the file's end does not fit what stands before it")]
    End,
    /// The entry is not the next one of the log.
    #[error(transparent)]
    Entry(#[from] ChainError),
}

/// Checks an export from its first entry to its end, with one entry in memory
/// at a time, and answers what the log adds up to.
///
/// # Errors
/// [`BadExport`] names the first entry that does not fit.
pub fn verify(mut from: impl Read, gateway_key: &VerifyingKey) -> Result<State, BadExport> {
    let mut state = State::default();
    match read(&mut from, gateway_key, &mut state) {
        Ok(()) => Ok(state),
        Err(why) => Err(BadExport {
            index: state.head().length,
            why,
        }),
    }
}

fn read(from: &mut impl Read, key: &VerifyingKey, state: &mut State) -> Result<(), ExportError> {
    let mut magic = [0; MAGIC.len()];
    fill(from, &mut magic)?;
    if magic != *MAGIC || number(from)? != VERSION {
        return Err(ExportError::Format);
    }
    let mut entry = Vec::new();
    loop {
        let length = number(from)?;
        if length == 0 {
            break;
        }
        if length > ENTRY_MAX {
            return Err(ExportError::Entry(ChainError::Signature));
        }
        entry.resize(length as usize, 0);
        fill(from, &mut entry)?;
        state.advance(&entry, key)?;
    }
    let mut count = [0; 8];
    fill(from, &mut count)?;
    if u64::from_be_bytes(count) != state.head().length || from.read(&mut [0])? != 0 {
        return Err(ExportError::End);
    }
    Ok(())
}

fn number(from: &mut impl Read) -> Result<u32, ExportError> {
    let mut bytes = [0; 4];
    fill(from, &mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), ExportError> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ExportError::Truncated,
        _ => ExportError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ed25519_dalek::SigningKey;

    use super::super::chain::{self, Head};
    use super::super::event::Change;
    use super::super::terms::Actor;
    use super::*;

    fn gateway() -> SigningKey {
        SigningKey::from_bytes(&[200; 32])
    }

    fn entries() -> Vec<Bytes> {
        let mut changes = vec![Change::OrgCreated {
            org: "acme".parse().unwrap(),
            gateway_key: gateway().verifying_key(),
        }];
        changes.extend((0..4).map(|number| Change::ProjectCreated {
            project: format!("p{number}").parse().unwrap(),
        }));
        chain::sign(&Head::default(), &Actor::Gateway, &changes, 1, &gateway())
    }

    fn exported(entries: &[Bytes]) -> Vec<u8> {
        let mut exporter = Exporter::new(Vec::new()).unwrap();
        for entry in entries {
            exporter.append(entry).unwrap();
        }
        exporter.finish().unwrap()
    }

    fn checked(bytes: &[u8]) -> Result<State, BadExport> {
        verify(bytes, &gateway().verifying_key())
    }

    #[test]
    fn a_whole_log_is_believed() {
        let state = checked(&exported(&entries())).unwrap();
        assert_eq!((state.head().length, state.projects().count()), (5, 4));
    }

    #[test]
    fn the_first_entry_that_does_not_fit_is_named() {
        let mut changed = entries();
        let mut entry = changed[3].to_vec();
        *entry.last_mut().unwrap() ^= 1;
        changed[3] = entry.into();
        assert_eq!(checked(&exported(&changed)).unwrap_err().index, 3);

        let mut left_out = entries();
        left_out.remove(2);
        let error = checked(&exported(&left_out)).unwrap_err();
        assert_eq!(error.index, 2);
        assert!(matches!(error.why, ExportError::Entry(ChainError::Order)));

        let other = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let error = verify(&exported(&entries())[..], &other).unwrap_err();
        assert_eq!(error.index, 0);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_noticed() {
        let bytes = exported(&entries());
        for length in 0..bytes.len() {
            let error = checked(&bytes[..length]).unwrap_err();
            assert!(matches!(error.why, ExportError::Truncated), "{length}");
        }
        let error = checked(&[&bytes[..], b"x"].concat()).unwrap_err();
        assert!(matches!(error.why, ExportError::End));
        // An end that counts fewer entries than there were.
        let mut fewer = bytes;
        *fewer.last_mut().unwrap() -= 1;
        assert!(matches!(checked(&fewer).unwrap_err().why, ExportError::End));
    }

    #[test]
    fn any_bytes_are_refused_not_feared() {
        let lies = [&MAGIC[..], &VERSION.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
        assert!(checked(&lies).is_err());
        assert!(checked(b"").is_err());
    }
}
