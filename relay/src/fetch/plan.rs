//! From a request to what is to be read for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use sotto_jwt_accounts::directory::State;
use sotto_jwt_accounts::policy::{self, Permit, Read};
use sotto_proto::wire::{FetchRefusal, FetchRequest};
use sotto_proto::{DeviceId, FileId, RoomAddress, RoomId, limits, reply_prefix};

/// Longest request that is looked at, in bytes: the most rooms, and as much
/// again for files.
const REQUEST_MAX: usize = 128 * limits::FETCH_ROOMS;
/// Longest reply subject that is answered to, in bytes.
const REPLY_MAX: usize = 256;
/// Chunks that one request is answered with at most. What is asked beyond is
/// as beyond the byte limit: ask again.
const CHUNKS_MAX: usize = 1_024;

/// What to read, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The inbox, from after this sequence.
    pub inbox_after: Option<u64>,
    /// The rooms.
    pub rooms: Vec<RoomPlan>,
    /// The chunks of files.
    pub chunks: Vec<ChunkPlan>,
    /// Whether chunks were asked for that are not in `chunks`.
    pub more_chunks: bool,
    /// Rooms that this device is not served.
    pub refused_rooms: Vec<RoomId>,
    /// Payload bytes to answer with at most.
    pub max_bytes: usize,
}

/// One room to read.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomPlan {
    /// Where it is.
    pub address: RoomAddress,
    /// Of the device's user, to read just this room.
    pub permit: Permit<Read>,
    /// The last sequence of its messages that the device has.
    pub messages_after: u64,
    /// The last sequence of its handshakes that the device has.
    pub handshakes_after: u64,
}

/// One chunk to read.
#[derive(Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// The room of its file.
    pub address: RoomAddress,
    /// Of the device's user, to read that room.
    pub permit: Permit<Read>,
    /// The file.
    pub file: FileId,
    /// Which chunk.
    pub index: u32,
}

/// Whether an answer to `device` may go to `reply`: only below its own prefix,
/// which only it can subscribe to. Elsewhere a device could flood another one,
/// or put words into `live.…`.
pub fn is_own_reply(device: DeviceId, reply: &str) -> bool {
    let rest = reply
        .strip_prefix(&reply_prefix(device))
        .and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| {
        let token = |token: &str| {
            !token.is_empty()
                && token
                    .bytes()
                    .all(|c| c.is_ascii_graphic() && !b"*>".contains(&c))
        };
        rest.len() <= REPLY_MAX && rest.split('.').all(token)
    })
}

/// What a device's request comes down to in this state of the directory.
///
/// # Errors
/// When the request is refused as a whole.
pub fn plan(device: DeviceId, request: &Bytes, state: &State) -> Result<Plan, FetchRefusal> {
    let request = parse(request).ok_or(FetchRefusal::Malformed)?;
    let device = state.device(device).ok_or(FetchRefusal::UnknownDevice)?;
    let user = &device.certificate.user;

    let mut plan = Plan {
        inbox_after: request.inbox_after,
        max_bytes: request.max_bytes as usize,
        ..Plan::default()
    };
    let mut refused = BTreeSet::new();
    let mut permitted = |room: RoomId| {
        let permit = policy::check(state, user, Read, &room);
        match permit.ok().zip(state.room(room)) {
            Some((permit, found)) => Some((permit, found.address.clone())),
            None => {
                refused.insert(room);
                None
            }
        }
    };
    for cursor in &request.rooms {
        if let Some((permit, address)) = permitted(cursor.room) {
            plan.rooms.push(RoomPlan {
                address,
                permit,
                messages_after: cursor.messages_after,
                handshakes_after: cursor.handshakes_after,
            });
        }
    }
    for range in &request.chunks {
        let Some((permit, address)) = permitted(range.room) else {
            continue;
        };
        for index in range.first..range.first.saturating_add(range.count) {
            if plan.chunks.len() == CHUNKS_MAX {
                plan.more_chunks = true;
                break;
            }
            plan.chunks.push(ChunkPlan {
                address: address.clone(),
                permit: permit.clone(),
                file: range.file,
                index,
            });
        }
    }
    plan.refused_rooms = refused.into_iter().collect();
    Ok(plan)
}

/// A request whose every field is what it should be.
struct Request {
    rooms: Vec<Cursor>,
    inbox_after: Option<u64>,
    chunks: Vec<ChunkRange>,
    max_bytes: u32,
}

struct Cursor {
    room: RoomId,
    messages_after: u64,
    handshakes_after: u64,
}

struct ChunkRange {
    room: RoomId,
    file: FileId,
    first: u32,
    count: u32,
}

fn parse(request: &Bytes) -> Option<Request> {
    if request.len() > REQUEST_MAX {
        return None;
    }
    let request = FetchRequest::decode(request.clone()).ok()?;
    if request.rooms.len() > limits::FETCH_ROOMS || request.blobs.len() > limits::FETCH_ROOMS {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut rooms = Vec::with_capacity(request.rooms.len());
    for cursor in &request.rooms {
        let room = RoomId::try_from(&cursor.room).ok()?;
        if !seen.insert(room) {
            return None;
        }
        rooms.push(Cursor {
            room,
            messages_after: cursor.messages_after,
            handshakes_after: cursor.handshakes_after,
        });
    }
    let mut chunks = Vec::with_capacity(request.blobs.len());
    for range in &request.blobs {
        chunks.push(ChunkRange {
            room: RoomId::try_from(&range.room).ok()?,
            file: FileId::try_from(&range.file).ok()?,
            first: range.first,
            count: range.count,
        });
    }
    Some(Request {
        rooms,
        inbox_after: request.inbox_after,
        chunks,
        max_bytes: request.max_bytes.min(limits::FETCH_BYTES),
    })
}
