//! The connection: when it comes and goes, which grants are in force, and
//! catching up. Live messages are taken while they follow without a gap;
//! anything else only says that the device is behind, and what it missed is
//! fetched from its cursors.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use sotto_proto::wire::{self, FetchFrame, FetchRequest, StoredKind, StoredMessage};
use sotto_proto::{RoomAddress, RoomId, Subject, limits};

use super::Engine;
use super::stream::Arrival;
use crate::io::{Event, LiveMessage, Output, Timestamp};
use crate::records::Key;
use crate::room::{Phase, Room};

/// Payload bytes asked for in one catch-up request.
const FETCH_BYTES: u32 = 4 * 1024 * 1024;

/// Ticks that a device waits for what it missed before it encrypts all the
/// same: a relay that does not answer must not keep it from sending.
const FIRST_TICKS: u32 = 2;

/// Ticks between two looks at the directory, for own devices that were linked
/// elsewhere meanwhile.
const LOOK_EVERY_TICKS: u32 = 30;

/// Where catching up stands.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    /// There may be something that was not seen yet.
    pub(super) behind: bool,
    /// A request is outstanding.
    asking: bool,
    /// It failed: wait for the next tick.
    failed: bool,
    /// The device has connected and was not caught up since: for so many more
    /// ticks nothing new is encrypted.
    first: u32,
    /// Requests since the device was last caught up.
    requests: u32,
    /// Chunks of ratchet trees that were fetched so far.
    trees: BTreeMap<RoomId, BTreeMap<u32, Bytes>>,
}

impl FetchState {
    /// Whether what was missed before this connection is still being read.
    pub(super) fn is_first(&self) -> bool {
        self.first > 0 && !self.failed
    }
}

impl Engine {
    pub(super) fn online(&mut self, rooms: &[RoomAddress]) {
        self.forget_outstanding();
        self.link.online = true;
        self.link.granted = rooms.iter().map(|address| address.room).collect();
        self.link.fetch.behind = true;
        self.link.fetch.first = FIRST_TICKS;
        self.link.me_due = true;
        self.ask_me();
        self.touch_all();
    }

    pub(super) fn offline(&mut self) {
        self.forget_outstanding();
        self.link.calls.clear();
        self.link.online = false;
    }

    fn forget_outstanding(&mut self) {
        self.link.publishes.clear();
        self.link.lost_race.clear();
        self.link.fetch = FetchState {
            behind: self.link.fetch.behind,
            ..FetchState::default()
        };
    }

    pub(super) fn tick(&mut self) {
        self.link.fetch.failed = false;
        self.link.fetch.first = self.link.fetch.first.saturating_sub(1);
        self.link.refreshing = false;
        self.link.lost_race.clear();
        self.link.ticks = (self.link.ticks + 1) % LOOK_EVERY_TICKS;
        self.link.me_due |= self.link.ticks == 0;
        self.ask_me();
        self.touch_all();
    }

    /// Asks for a connection with the grants that the directory gives now, at
    /// most once a tick: they may take a moment to reach every gateway.
    pub(super) fn refresh_grants(&mut self) {
        if self.link.online && !self.link.refreshing {
            self.link.refreshing = true;
            self.effect(Output::RefreshGrants);
        }
    }

    pub(super) fn live(&mut self, message: LiveMessage) {
        let LiveMessage {
            subject,
            sequence,
            last_sequence,
            stored_at,
            payload,
        } = message;
        match subject {
            Subject::Messages(address) | Subject::Handshakes(address)
                if !self.rooms.contains_key(&address.room) =>
            {
                // Its Welcome is still on the way.
            }
            Subject::Messages(address) => {
                self.live_in_room(
                    address.room,
                    last_sequence,
                    Arrival::message(sequence, stored_at, payload),
                );
            }
            Subject::Handshakes(address) => {
                self.live_in_room(
                    address.room,
                    last_sequence,
                    Arrival::handshake(sequence, stored_at, payload),
                );
            }
            Subject::Inbox(device) if device == self.account.device => {
                if last_sequence > self.inbox_after {
                    self.link.fetch.behind = true;
                } else {
                    self.take_inbox(sequence, payload);
                }
            }
            _ => {}
        }
    }

    fn live_in_room(&mut self, id: RoomId, last_sequence: u64, arrival: Arrival) {
        let Some(mut room) = self.rooms.remove(&id) else {
            return;
        };
        let after = if arrival.handshake {
            room.record.handshakes_after
        } else {
            room.record.messages_after
        };
        let taken = last_sequence <= after && self.take_live(&mut room, arrival);
        if !taken {
            self.link.fetch.behind = true;
        }
        self.touched.insert(id);
        self.rooms.insert(id, room);
    }

    pub(super) fn fetched(&mut self, frame: FetchFrame) {
        if !self.link.fetch.asking {
            return;
        }
        if frame.refusal != i32::from(wire::FetchRefusal::None) {
            return self.fetch_failed();
        }
        for message in frame.messages {
            self.take_fetched(message);
        }
        for room in frame.refused_rooms {
            // The role is gone; a Remove commit or a new grant will tell.
            self.link
                .granted
                .retain(|granted| granted.as_bytes()[..] != room[..]);
        }
        if frame.last {
            self.link.fetch.asking = false;
            self.link.fetch.behind |= frame.more;
            if !self.link.fetch.behind {
                let requests = std::mem::take(&mut self.link.fetch.requests);
                self.event(Event::CaughtUp { requests });
                if std::mem::take(&mut self.link.fetch.first) > 0 {
                    self.touch_all();
                }
            }
            self.touched
                .extend(std::mem::take(&mut self.link.lost_race));
        }
    }

    pub(super) fn fetch_failed(&mut self) {
        let fetch = &mut self.link.fetch;
        (fetch.asking, fetch.failed, fetch.behind) = (false, true, true);
    }

    pub(super) fn advance_fetch(&mut self) {
        let fetch = &self.link.fetch;
        if !self.link.online || !fetch.behind || fetch.asking || fetch.failed {
            return;
        }
        let request = self.fetch_request();
        let fetch = &mut self.link.fetch;
        (fetch.asking, fetch.behind) = (true, false);
        fetch.requests += 1;
        self.effect(Output::Fetch(request));
    }

    fn fetch_request(&self) -> FetchRequest {
        let followed = |room: &&Room| {
            matches!(room.record.phase, Phase::Member | Phase::Joining)
                && room.group().is_some()
                && self.link.granted.contains(&room.id)
        };
        let cursor = |room: &Room| wire::RoomCursor {
            room: room.id.to_bytes(),
            messages_after: room.record.messages_after,
            handshakes_after: room.record.handshakes_after,
        };
        FetchRequest {
            rooms: self
                .rooms
                .values()
                .filter(followed)
                .map(cursor)
                .take(limits::FETCH_ROOMS)
                .collect(),
            inbox_after: Some(self.inbox_after),
            max_bytes: FETCH_BYTES,
            blobs: self.missing_trees(),
        }
    }

    fn take_fetched(&mut self, message: StoredMessage) {
        let stored_at = Timestamp(message.stored_at_ms);
        let StoredMessage {
            sequence, payload, ..
        } = message;
        let room = RoomId::try_from(&message.room).ok();
        match (StoredKind::try_from(message.kind), room) {
            (Ok(StoredKind::Message), Some(room)) => {
                self.take_in_room(room, Arrival::message(sequence, stored_at, payload));
            }
            (Ok(StoredKind::Handshake), Some(room)) => {
                self.take_in_room(room, Arrival::handshake(sequence, stored_at, payload));
            }
            (Ok(StoredKind::Inbox), _) => self.take_inbox(sequence, payload),
            (Ok(StoredKind::Blob), Some(room)) => {
                self.take_tree_chunk(room, message.index, payload)
            }
            _ => {}
        }
    }

    fn take_in_room(&mut self, id: RoomId, arrival: Arrival) {
        let Some(mut room) = self.rooms.remove(&id) else {
            return;
        };
        self.take_stored(&mut room, arrival);
        self.touched.insert(id);
        self.rooms.insert(id, room);
    }

    fn take_inbox(&mut self, sequence: u64, payload: Bytes) {
        if sequence <= self.inbox_after {
            return;
        }
        self.inbox_after = sequence;
        self.provider.records().put(Key::InboxCursor, &sequence);
        let message = wire::InboxMessage::decode(payload).ok();
        if let Some(wire::inbox_message::Kind::Invitation(invitation)) =
            message.and_then(|m| m.kind)
        {
            self.invited(invitation);
        }
    }

    /// Takes up an invitation, now or when its ratchet tree is there.
    fn invited(&mut self, invitation: wire::Invitation) {
        let place = invitation
            .ratchet_tree
            .as_ref()
            .and_then(|tree| tree.place.as_ref());
        match place {
            Some(wire::ratchet_tree::Place::Inline(tree)) => {
                let tree = tree.clone();
                self.accept_invitation(&invitation, &tree);
            }
            Some(wire::ratchet_tree::Place::Blob(blob)) => {
                let sensible = usize::try_from(blob.size).is_ok_and(|size| {
                    size <= limits::RATCHET_TREE
                        && blob.chunks as usize == size.div_ceil(limits::CHUNK)
                });
                if !sensible {
                    return;
                }
                let address = invitation.address.as_ref();
                let Some(room) = address.and_then(|address| RoomId::try_from(&address.room).ok())
                else {
                    return;
                };
                self.provider
                    .records()
                    .put_bytes(Key::Invitation(room), invitation.encode_to_vec());
                self.link.fetch.behind = true;
            }
            None => {}
        }
    }

    /// Invitations that wait for their ratchet trees.
    fn waiting_invitations(&self) -> Vec<(RoomId, wire::Invitation, wire::PublicBlob)> {
        let records = self.provider.records();
        let read = |key: Key| {
            let Key::Invitation(room) = key else {
                return None;
            };
            let invitation = wire::Invitation::decode(records.get_bytes(&key)?.as_slice()).ok()?;
            match invitation.ratchet_tree.as_ref()?.place.clone()? {
                wire::ratchet_tree::Place::Blob(blob) => Some((room, invitation, blob)),
                wire::ratchet_tree::Place::Inline(_) => None,
            }
        };
        let all = Key::Invitation(RoomId::FIRST)..=Key::Invitation(RoomId::LAST);
        records.keys(all).into_iter().filter_map(read).collect()
    }

    fn missing_trees(&self) -> Vec<wire::BlobRange> {
        let missing = |(room, _, blob): (RoomId, wire::Invitation, wire::PublicBlob)| {
            let chunks = self.link.fetch.trees.get(&room);
            let first =
                (0..blob.chunks).find(|n| chunks.is_none_or(|chunks| !chunks.contains_key(n)))?;
            Some(wire::BlobRange {
                room: room.to_bytes(),
                file: blob.file,
                first,
                count: blob.chunks - first,
            })
        };
        self.waiting_invitations()
            .into_iter()
            .filter_map(missing)
            .collect()
    }

    fn take_tree_chunk(&mut self, room: RoomId, index: u32, chunk: Bytes) {
        let waiting = self
            .waiting_invitations()
            .into_iter()
            .find(|(waiting, ..)| *waiting == room);
        let Some((_, invitation, blob)) = waiting else {
            return;
        };
        if index >= blob.chunks || chunk.len() > limits::CHUNK {
            return;
        }
        let chunks = self.link.fetch.trees.entry(room).or_default();
        chunks.insert(index, chunk);
        if chunks.len() < blob.chunks as usize {
            return;
        }
        let tree = chunks
            .values()
            .flat_map(|chunk| chunk.iter().copied())
            .collect::<Vec<u8>>();
        self.link.fetch.trees.remove(&room);
        if Sha256::digest(&tree).as_slice() == blob.sha256 {
            self.provider.records().delete(Key::Invitation(room));
            self.accept_invitation(&invitation, &tree);
        }
    }
}
