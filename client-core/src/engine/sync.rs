//! The connection: when it comes and goes, which grants are in force, and
//! catching up from the device's cursors.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use rand::RngCore;
use sha2::{Digest, Sha256};
use sotto_proto::wire::{self, FetchFrame, FetchRequest, StoredKind, StoredMessage};
use sotto_proto::{RoomId, limits};

use super::Engine;
use super::portion::Portion;
use super::stream::Arrival;
use super::{beacon, live};
use crate::io::{Event, Grants, Output, Timestamp};
use crate::pace::Pace;
use crate::records::Key;
use crate::room::{Phase, Room};

/// Ticks that a device waits for what it missed before it encrypts all the
/// same: a relay that does not answer must not keep it from sending.
const FIRST_TICKS: u32 = 2;

/// And on a slow link, where meanwhile nothing would go up.
const FIRST_TICKS_MAX: u32 = 8;

/// Ticks between two looks at the directory, for own devices that were linked
/// elsewhere meanwhile.
const LOOK_EVERY_TICKS: u32 = 30;

/// The most ticks between two requests for new grants that change nothing.
const REFRESH_EVERY_TICKS: u32 = 32;

/// Where a request goes: to the subject of a gated room, or to the device's
/// common one.
pub(super) type Target = Option<RoomId>;

/// Where catching up stands.
#[derive(Debug, Default)]
pub(super) struct FetchState {
    /// Where there may be something that was not seen yet.
    due: BTreeSet<Target>,
    /// Where a request is outstanding.
    asking: Option<Target>,
    /// It failed: wait for the next tick.
    failed: bool,
    /// The device has connected and was not caught up since: for so many more
    /// ticks nothing new is encrypted.
    first: u32,
    /// Requests since the device was last caught up.
    requests: u32,
    portion: Portion,
    /// Chunks of ratchet trees that were fetched so far.
    trees: BTreeMap<RoomId, BTreeMap<u32, Bytes>>,
}

impl FetchState {
    /// Whether what was missed before this connection is still being read.
    pub(super) fn is_first(&self) -> bool {
        self.first > 0 && !self.failed
    }

    /// Whether an answer is on its way from there.
    pub(super) fn is_asking(&self, target: Target) -> bool {
        self.asking == Some(target)
    }
}

/// When to ask for new grants again: ever more seldom while they stay the same.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    /// They were asked for and are not in force yet.
    asking: bool,
    /// Ticks until they may be asked for again.
    wait: u32,
    /// The next wait.
    pause: u32,
}

impl Engine {
    pub(super) fn online(&mut self, grants: Grants, pace: Pace) {
        self.forget_outstanding();
        self.link.online = true;
        self.link.pace = pace;
        self.link.fetch.portion.connected(pace);
        let granted = grants.rooms.iter().map(|address| address.room).collect();
        if granted != self.link.granted {
            self.link.refresh = Refresh::default();
        }
        self.link.granted = granted;
        self.link.gated = grants.gated;
        self.link.withheld = grants.withheld;
        self.link.fetch.due = self.targets();
        self.link.fetch.first = pace.ticks(FIRST_TICKS).min(FIRST_TICKS_MAX);
        self.link.me_due = true;
        self.link.held.clear();
        self.link.beacon = beacon::Said::default();
        self.ask_me();
        self.link.lost_due = true;
        self.ask_lost();
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
        self.link.landing.clear();
        self.link.ahead = live::Ahead::default();
        let mut before = std::mem::take(&mut self.link.fetch);
        before.portion.ended(self.now);
        self.link.fetch.due = before.due;
        self.link.fetch.portion = before.portion;
    }

    pub(super) fn tick(&mut self, rng: &mut impl RngCore) {
        self.link.fetch.failed = false;
        self.link.fetch.first = self.link.fetch.first.saturating_sub(1);
        let refresh = &mut self.link.refresh;
        refresh.wait = refresh.wait.saturating_sub(1);
        refresh.asking &= refresh.wait > 0;
        self.link.lost_race.clear();
        self.take_turns();
        self.tick_repairs(rng);
        for room in std::mem::take(&mut self.link.look_again) {
            self.is_behind(room);
        }
        for id in std::mem::take(&mut self.link.landing) {
            if self
                .rooms
                .get(&id)
                .is_some_and(|room| room.commit.is_some())
            {
                self.is_behind(id);
            }
        }
        self.tick_beacon(rng);
        self.link.ticks = (self.link.ticks + 1) % self.link.pace.ticks(LOOK_EVERY_TICKS);
        self.link.me_due |= self.link.ticks == 0;
        self.ask_me();
        self.ask_lost();
        self.touch_all();
    }

    /// Asks for a connection with the grants that the directory gives now:
    /// they may take a moment to reach every gateway.
    pub(super) fn refresh_grants(&mut self) {
        let refresh = &mut self.link.refresh;
        if !self.link.online || refresh.asking || refresh.wait > 0 {
            return;
        }
        let wait = refresh.pause.max(1);
        let pause = (2 * wait).min(REFRESH_EVERY_TICKS);
        *refresh = Refresh {
            asking: true,
            wait,
            pause,
        };
        self.effect(Output::RefreshGrants);
    }

    /// The directory has just changed what this device may do.
    pub(super) fn expect_grants(&mut self) {
        self.link.refresh = Refresh::default();
    }

    /// Everywhere that requests go.
    fn targets(&self) -> BTreeSet<Target> {
        let gated = self.link.gated.iter().copied().map(Some);
        gated.chain([None]).collect()
    }

    /// There may be something in this room that was not seen yet.
    pub(super) fn is_behind(&mut self, room: RoomId) {
        self.is_behind_at(self.target(room));
    }

    /// The same, of what is asked for there.
    pub(super) fn is_behind_at(&mut self, target: Target) {
        self.link.fetch.due.insert(target);
    }

    pub(super) fn target(&self, room: RoomId) -> Target {
        self.link.gated.contains(&room).then_some(room)
    }

    pub(super) fn fetched(&mut self, frame: FetchFrame) {
        let Some(target) = self.link.fetch.asking else {
            return;
        };
        if frame.refusal != i32::from(wire::FetchRefusal::None) {
            return self.fetch_failed();
        }
        let payloads = frame.messages.iter().map(|message| message.payload.len());
        self.link.fetch.portion.arrived(payloads.sum());
        for message in frame.messages {
            self.take_fetched(message);
        }
        for end in &frame.rewound {
            self.hear_rewound(end);
        }
        for room in frame.refused_rooms {
            // The role is gone; a Remove commit or a new grant will tell.
            self.link
                .granted
                .retain(|granted| granted.as_bytes()[..] != room[..]);
        }
        if frame.last {
            self.link.fetch.asking = None;
            self.link.fetch.portion.ended(self.now);
            self.take_ahead(target, frame.more);
            if frame.more {
                self.link.fetch.due.insert(target);
            } else {
                let covered = self.followed(target);
                self.miss_frames(|room| covered.contains(&room));
            }
            if self.link.fetch.due.is_empty() {
                let requests = std::mem::take(&mut self.link.fetch.requests);
                self.event(Event::CaughtUp { requests });
                self.ask_after_catching_up();
                if std::mem::take(&mut self.link.fetch.first) > 0 {
                    self.touch_all();
                }
                self.race_again();
            }
        }
    }

    pub(super) fn fetch_failed(&mut self) {
        let fetch = &mut self.link.fetch;
        fetch.failed = true;
        fetch.due.extend(fetch.asking.take());
        fetch.portion.ended(self.now);
    }

    pub(super) fn advance_fetch(&mut self) {
        let fetch = &mut self.link.fetch;
        if !self.link.online || fetch.asking.is_some() || fetch.failed {
            return;
        }
        let Some(gated) = fetch.due.pop_first() else {
            return;
        };
        fetch.asking = Some(gated);
        fetch.requests += 1;
        let covered = self.followed(gated);
        self.seek_frames(|room| covered.contains(&room));
        let max_bytes = self.link.fetch.portion.asked(self.now);
        let request = self.fetch_request(gated, &covered, max_bytes);
        self.effect(Output::Fetch { gated, request });
    }

    /// The rooms that a request there asks for.
    fn followed(&self, target: Target) -> BTreeSet<RoomId> {
        let followed = |room: &&Room| {
            matches!(room.record.phase, Phase::Member | Phase::Joining)
                && room.group().is_some()
                && self.link.granted.contains(&room.id)
                && self.target(room.id) == target
        };
        let rooms = self.rooms.values().filter(followed);
        rooms
            .map(|room| room.id)
            .take(limits::FETCH_ROOMS)
            .collect()
    }

    fn fetch_request(
        &self,
        target: Target,
        followed: &BTreeSet<RoomId>,
        max_bytes: u32,
    ) -> FetchRequest {
        let cursor = |room: &Room| wire::RoomCursor {
            room: room.id.to_bytes(),
            messages_after: room.record.messages_after,
            handshakes_after: room.record.handshakes_after,
        };
        FetchRequest {
            rooms: self
                .rooms
                .values()
                .filter(|room| followed.contains(&room.id))
                .map(cursor)
                .collect(),
            inbox_after: target.is_none().then_some(self.inbox_after),
            max_bytes,
            blobs: self.missing_trees(target),
            stored: None,
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

    pub(super) fn take_inbox(&mut self, sequence: u64, payload: Bytes) {
        if sequence <= self.inbox_after {
            return;
        }
        self.inbox_after = sequence;
        self.provider.records().put(Key::InboxCursor, &sequence);
        let message = wire::InboxMessage::decode(payload).ok();
        if let Some(wire::inbox_message::Kind::Invitation(invitation)) =
            message.and_then(|m| m.kind)
        {
            self.invited(&invitation);
        }
    }

    /// Takes up an invitation, unless the device is in its room. One that was
    /// made later than what the device has read of the room may be for when it
    /// is out of it, and is kept until then.
    fn invited(&mut self, invitation: &wire::Invitation) {
        let address = invitation.address.as_ref();
        let room = address.and_then(|address| RoomId::try_from(&address.room).ok());
        let Some(id) = room else { return };
        match self.rooms.get(&id) {
            Some(room) if room.record.phase != Phase::Member => self.take_up(id, invitation),
            None => self.take_up(id, invitation),
            Some(room) if is_newer(invitation, room) => self.keep_invitation(id, invitation),
            Some(_) => {}
        }
    }

    /// The device is out of a room. An invitation that was made later than
    /// what it has read of it leads back.
    pub(super) fn look_for_invitation(&mut self, room: &Room) {
        let key = Key::Invitation(room.id);
        let kept = self.provider.records().get_bytes(&key);
        let invitation = kept.and_then(|kept| wire::Invitation::decode(&kept[..]).ok());
        self.provider.records().delete(key);
        let newer = invitation.filter(|invitation| is_newer(invitation, room));
        self.link
            .back
            .extend(newer.map(|invitation| (room.id, invitation)));
    }

    /// Takes up the invitations into rooms that the device has just left.
    pub(super) fn come_back(&mut self) {
        while let Some((room, invitation)) = self.link.back.pop_first() {
            self.take_up(room, &invitation);
        }
    }

    /// Joins by an invitation, now or when its ratchet tree is there.
    fn take_up(&mut self, room: RoomId, invitation: &wire::Invitation) {
        let place = invitation
            .ratchet_tree
            .as_ref()
            .and_then(|tree| tree.place.as_ref());
        match place {
            Some(wire::ratchet_tree::Place::Inline(tree)) => {
                self.accept_invitation(invitation, tree);
            }
            Some(wire::ratchet_tree::Place::Blob(blob)) => {
                let sensible = usize::try_from(blob.size).is_ok_and(|size| {
                    size <= limits::RATCHET_TREE
                        && blob.chunks as usize == size.div_ceil(limits::CHUNK)
                });
                if sensible {
                    self.keep_invitation(room, invitation);
                    self.is_behind(room);
                }
            }
            None => {}
        }
    }

    fn keep_invitation(&self, room: RoomId, invitation: &wire::Invitation) {
        let key = Key::Invitation(room);
        let records = self.provider.records();
        records.put_bytes(key, invitation.encode_to_vec());
    }

    /// Invitations that wait for their ratchet trees.
    fn waiting_invitations(&self) -> Vec<(RoomId, wire::Invitation, wire::PublicBlob)> {
        let records = self.provider.records();
        let read = |key: Key| {
            let Key::Invitation(room) = key else {
                return None;
            };
            if self.is_member(room) {
                return None;
            }
            let invitation = wire::Invitation::decode(&records.get_bytes(&key)?[..]).ok()?;
            match invitation.ratchet_tree.as_ref()?.place.clone()? {
                wire::ratchet_tree::Place::Blob(blob) => Some((room, invitation, blob)),
                wire::ratchet_tree::Place::Inline(_) => None,
            }
        };
        let all = Key::Invitation(RoomId::FIRST)..=Key::Invitation(RoomId::LAST);
        records.keys(all).into_iter().filter_map(read).collect()
    }

    fn missing_trees(&self, target: Target) -> Vec<wire::BlobRange> {
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
            .filter(|(room, ..)| self.target(*room) == target)
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

/// Whether an invitation was made later than what was read of its room.
fn is_newer(invitation: &wire::Invitation, room: &Room) -> bool {
    invitation.commit_sequence > room.record.handshakes_after
}
