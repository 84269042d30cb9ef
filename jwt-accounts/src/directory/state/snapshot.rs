//! A state as bytes, so that a program that starts need not replay the log.
//!
//! `SOTTODIR`, the version (u32), then records, each with its length before it
//! (u32), then the length 0, then SHA-256 of everything before; numbers are big
//! endian. A record is one protobuf message: `record`. Written and read in one
//! pass, with few records in memory at a time. What is read goes through two
//! threads, as half of the time goes into the keys of users and half into the
//! maps; both end before [`read`] does, which answers as one thread would.
//!
//! A snapshot is as good as the disk it lies on: what was verified when it was
//! taken from the log is not verified again. So it is only ever read from where
//! the same program wrote it, and the log remains the truth: whoever reads one
//! checks that the log has [`State::head`](super::State::head).

mod record;
mod restore;
mod users;

use std::io::{self, Read, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use ed25519_dalek::VerifyingKey;
use prost::Message;
use sha2::{Digest, Sha256};
use sotto_proto::OrgName;

use super::super::wire::Malformed;
use super::State;
use record::Record;
use restore::{Part, Restored};

const MAGIC: &[u8; 8] = b"SOTTODIR";
const VERSION: u32 = 1;
/// Records that are handed from the thread that reads them to the one that puts
/// them together at a time, and how many such batches may wait.
const BATCH: usize = 256;
const BATCHES: usize = 8;
/// Largest record, in bytes: the names of all who lost something at once.
const RECORD_MAX: u32 = 16 * 1024 * 1024;

/// Why a snapshot is not used. Reading the log from its beginning always helps.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// It cannot be read or written.
    #[error("the snapshot cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no snapshot of a directory")]
    Magic,
    /// Another version of Sotto wrote it.
    #[error("the snapshot has version {0}, this program reads {VERSION}")]
    Version(u32),
    /// It ends too early, or goes on too long.
    #[error("the snapshot is truncated, or has something after its end")]
    Truncated,
    /// A bit is wrong.
    #[error("the snapshot's checksum does not fit: it was damaged")]
    Checksum,
    /// A record does not read.
    #[error("the snapshot does not read: {0}")]
    Malformed(#[from] Malformed),
    /// It is of another org, or of one with another gateway key.
    #[error("the snapshot is of another organisation")]
    OtherOrg,
}

sotto_log::log_safe!(BadSnapshot);

/// Writes a state that has an org.
///
/// # Errors
/// [`BadSnapshot::Io`], or [`BadSnapshot::OtherOrg`] without an org.
pub fn write(state: &State, to: impl Write) -> Result<(), BadSnapshot> {
    let mut to = Hashed::new(to);
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_be_bytes())?;
    let mut buffer = Vec::new();
    for record in record::records(state).ok_or(BadSnapshot::OtherOrg)? {
        buffer.clear();
        record.encode_raw(&mut buffer);
        let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&buffer)?;
    }
    to.write_all(&0_u32.to_be_bytes())?;
    let hash = to.hash.finalize();
    to.inner.write_all(&hash)?;
    to.inner.flush()?;
    Ok(())
}

/// Reads the state of an org whose log is signed by this key.
///
/// # Errors
/// [`BadSnapshot`].
pub fn read(from: impl Read, org: &OrgName, gateway: &VerifyingKey) -> Result<State, BadSnapshot> {
    let mut from = Hashed::new(from);
    let mut magic = [0; MAGIC.len()];
    from.fill(&mut magic)?;
    if magic != *MAGIC {
        return Err(BadSnapshot::Magic);
    }
    let version = from.number()?;
    if version != VERSION {
        return Err(BadSnapshot::Version(version));
    }
    let state = thread::scope(|scope| {
        let (to_place, parts) = mpsc::sync_channel(BATCHES);
        let placing = thread::Builder::new().spawn_scoped(scope, || place(parts))?;
        let read = read_parts(&mut from, &to_place);
        drop(to_place);
        let placed = placing.join().unwrap_or_else(|panic| resume_unwind(panic));
        read.and(placed.map_err(BadSnapshot::from))
    })?;
    let hash: [u8; 32] = from.hash.finalize_reset().into();
    let mut written = [0; 32];
    from.fill(&mut written)?;
    if written != hash {
        return Err(BadSnapshot::Checksum);
    }
    if from.read(&mut [0])? != 0 {
        return Err(BadSnapshot::Truncated);
    }
    if (state.org(), state.gateway_key()) != (Some(org), Some(gateway)) {
        return Err(BadSnapshot::OtherOrg);
    }
    Ok(state)
}

/// Reads the records up to their end, and hands them over in batches. Ends
/// early, too, when nobody takes them any more: whoever took them says why.
fn read_parts(
    from: &mut Hashed<impl Read>,
    to_place: &SyncSender<Vec<Part>>,
) -> Result<(), BadSnapshot> {
    let mut buffer = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let length = from.number()?;
        if length == 0 || batch.len() == BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if to_place.send(full).is_err() {
                return Ok(());
            }
        }
        if length == 0 {
            return Ok(());
        }
        if length > RECORD_MAX {
            return Err(Malformed::Part("length of a record").into());
        }
        buffer.clear();
        let mut record = from.by_ref().take(length.into());
        // Grows as bytes come, whatever the length says.
        if record.read_to_end(&mut buffer)? < length as usize {
            return Err(BadSnapshot::Truncated);
        }
        let record = Record::decode(buffer.as_slice());
        let record = record.map_err(|_| Malformed::Part("record"))?;
        batch.push(Part::try_from(record)?);
    }
}

/// Puts the parts together as they come.
fn place(parts: Receiver<Vec<Part>>) -> Result<State, Malformed> {
    let mut restored = Restored::default();
    for part in parts.into_iter().flatten() {
        restored.take(part)?;
    }
    Ok(restored.state)
}

/// What passes through, and its hash.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }
}

impl<T: Read> Hashed<T> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BadSnapshot> {
        self.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BadSnapshot::Truncated,
            _ => BadSnapshot::Io(error),
        })
    }

    fn number(&mut self) -> Result<u32, BadSnapshot> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(buffer.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
