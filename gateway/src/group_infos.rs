//! The public keys of open rooms: MLS GroupInfo and ratchet tree, of which
//! the newest epoch is kept. They may be larger than a NATS message, so they
//! are kept in chunks, and a header that is written last says which chunks
//! belong together.

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use rand::RngCore;
use rand::rngs::OsRng;
use sotto_jwt_accounts::policy::{Permit, Post, Read};
use sotto_proto::{RoomId, limits};

use crate::org::Org;
use crate::records::{GroupInfoRecord, VERSION};
use crate::refusal::Refusal;

/// One chunk, in bytes: well within a NATS message.
const CHUNK: usize = 256 * 1024;

/// What is needed to join a room from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The MLS epoch.
    pub epoch: u64,
    /// The stream sequence of the commit that began the epoch.
    pub commit_sequence: u64,
    /// The encoded GroupInfo.
    pub group_info: Bytes,
    /// The encoded ratchet tree.
    pub ratchet_tree: Bytes,
}

/// Keeps `key` unless there is one of this epoch or a later one.
///
/// # Errors
/// [`Refusal::Malformed`] when it is too large, [`Refusal::Unavailable`].
pub async fn store(org: &Org, permit: &Permit<Post>, key: &PublicKey) -> Result<(), Refusal> {
    let length = key.group_info.len() + key.ratchet_tree.len();
    if key.group_info.is_empty() || length > limits::RATCHET_TREE {
        return Err(Refusal::malformed("length of the room's public key"));
    }
    let bucket = &org.buckets().group_infos;
    let room = permit.object();
    let stored: Option<GroupInfoRecord> = bucket.get(&room.to_string()).await?;
    if stored.is_some_and(|stored| stored.epoch >= key.epoch) {
        return Ok(());
    }

    let header = write_chunks(org, room, key).await?;
    let decide = |stored: Option<GroupInfoRecord>| match stored {
        Some(stored) if stored.epoch >= key.epoch => Ok((None, Some(header.clone()))),
        older => Ok((Some(header.clone()), older)),
    };
    let superseded = bucket.change(&room.to_string(), decide).await?;
    if let Some(superseded) = superseded {
        for index in 0..superseded.chunks {
            let chunk = chunk_key(room, &superseded.generation, index);
            bucket.remove(&chunk).await?;
        }
    }
    Ok(())
}

/// The newest public key of a room; `None` when no member has stored one.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn find(org: &Org, permit: &Permit<Read>) -> Result<Option<PublicKey>, Refusal> {
    /// A newer key may take the place of the one that is being read.
    const ATTEMPTS: usize = 3;
    let bucket = &org.buckets().group_infos;
    let room = permit.object();
    for _ in 0..ATTEMPTS {
        let header: Option<GroupInfoRecord> = bucket.get(&room.to_string()).await?;
        let Some(header) = header else {
            return Ok(None);
        };
        if let Some(key) = read_chunks(org, room, &header).await? {
            return Ok(Some(key));
        }
    }
    Err(Refusal::unavailable("a room's public key is incomplete"))
}

async fn write_chunks(
    org: &Org,
    room: &RoomId,
    key: &PublicKey,
) -> Result<GroupInfoRecord, Refusal> {
    let mut generation = [0; 16];
    OsRng.fill_bytes(&mut generation);
    let generation = HEXLOWER.encode(&generation);
    let whole = [key.group_info.as_ref(), key.ratchet_tree.as_ref()].concat();
    let mut chunks = 0;
    for (index, chunk) in (0..).zip(whole.chunks(CHUNK)) {
        let chunk = Bytes::copy_from_slice(chunk);
        let key = chunk_key(room, &generation, index);
        org.buckets().group_infos.put(&key, &chunk).await?;
        chunks = index + 1;
    }
    Ok(GroupInfoRecord {
        version: VERSION,
        epoch: key.epoch,
        commit_sequence: key.commit_sequence,
        generation,
        chunks,
        group_info_length: key.group_info.len() as u64,
    })
}

/// `None` when a chunk is gone.
async fn read_chunks(
    org: &Org,
    room: &RoomId,
    header: &GroupInfoRecord,
) -> Result<Option<PublicKey>, Refusal> {
    let mut whole = BytesMut::new();
    for index in 0..header.chunks {
        let key = chunk_key(room, &header.generation, index);
        let chunk: Option<Bytes> = org.buckets().group_infos.get(&key).await?;
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        whole.extend_from_slice(&chunk);
    }
    let mut group_info = whole.freeze();
    let length = usize::try_from(header.group_info_length).unwrap_or(usize::MAX);
    if length > group_info.len() {
        return Err(Refusal::unavailable("a room's public key is too short"));
    }
    let ratchet_tree = group_info.split_off(length);
    Ok(Some(PublicKey {
        epoch: header.epoch,
        commit_sequence: header.commit_sequence,
        group_info,
        ratchet_tree,
    }))
}

fn chunk_key(room: &RoomId, generation: &str, index: u32) -> String {
    format!("{room}.{generation}.{index}")
}
