//! Live messages: they are taken while they follow without a gap. One that
//! comes too early says that the device is behind; it is kept until what
//! precedes it has come, so that it does not travel twice.

use std::collections::BTreeMap;

use sotto_proto::{RoomId, Subject};

use super::Engine;
use super::stream::Arrival;
use super::sync::Target;
use crate::io::LiveMessage;
use crate::room::Room;

/// Messages that are kept at most, and their bytes; what there is no room for
/// is fetched.
const MESSAGES: usize = 256;
const BYTES: usize = 1024 * 1024;

/// Messages that came before what precedes them, in the order of their rooms'
/// streams. Forgotten with the connection.
#[derive(Default)]
pub(super) struct Ahead {
    kept: BTreeMap<(RoomId, u64), Live>,
    bytes: usize,
}

/// A live message of a room.
struct Live {
    arrival: Arrival,
    /// The one before on its subject.
    last_sequence: u64,
}

impl Ahead {
    /// Keeps a message; whether there was room for it.
    fn keep(&mut self, room: RoomId, live: Live) -> bool {
        let bytes = self.bytes + live.arrival.payload.len();
        let fits = self.kept.len() < MESSAGES && bytes <= BYTES;
        if fits {
            let before = self.kept.insert((room, live.arrival.sequence), live);
            let before = before.map_or(0, |live| live.arrival.payload.len());
            self.bytes = bytes.saturating_sub(before);
        }
        fits
    }

    /// All that were kept of a room, in order.
    fn take(&mut self, room: RoomId) -> Vec<Live> {
        let of_room = self.kept.range((room, 0)..=(room, u64::MAX));
        let keys: Vec<(RoomId, u64)> = of_room.map(|(key, _)| *key).collect();
        let taken: Vec<Live> = keys
            .iter()
            .filter_map(|key| self.kept.remove(key))
            .collect();
        let bytes: usize = taken.iter().map(|live| live.arrival.payload.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    fn rooms(&self) -> Vec<RoomId> {
        let mut rooms: Vec<RoomId> = self.kept.keys().map(|(room, _)| *room).collect();
        rooms.dedup();
        rooms
    }
}

impl Engine {
    pub(super) fn live(&mut self, message: LiveMessage) {
        let LiveMessage {
            subject,
            sequence,
            last_sequence,
            stored_at,
            payload,
        } = message;
        let (room, arrival) = match subject {
            Subject::Messages(address) => {
                let arrival = Arrival::message(sequence, stored_at, payload);
                (address.room, arrival)
            }
            Subject::Handshakes(address) => {
                let arrival = Arrival::handshake(sequence, stored_at, payload);
                (address.room, arrival)
            }
            Subject::Inbox(device) if device == self.account.device => {
                if last_sequence > self.inbox_after {
                    self.is_behind_at(None);
                } else {
                    self.take_inbox(sequence, payload);
                }
                return;
            }
            _ => return,
        };
        let live = Live {
            arrival,
            last_sequence,
        };
        // Without the room its Welcome is still on the way.
        if let Some(early) = self.take_if_next(room, live) {
            let target = self.target(room);
            if !self.link.ahead.keep(room, early) || !self.link.fetch.is_asking(target) {
                self.is_behind(room);
            }
        }
    }

    /// An answer from there has ended, perhaps with `more` to come: what was
    /// kept and follows is taken in. When that was all, it is asked once more,
    /// for what still does not follow, and because a server that has gone back
    /// has lost what was kept: then it says so.
    pub(super) fn take_ahead(&mut self, target: Target, more: bool) {
        for room in self.link.ahead.rooms() {
            if self.target(room) != target {
                continue;
            }
            let mut kept = self.link.ahead.take(room).into_iter();
            let early = kept.find_map(|live| self.take_if_next(room, live));
            if more {
                for live in early.into_iter().chain(kept) {
                    self.link.ahead.keep(room, live);
                }
            } else {
                self.is_behind(room);
            }
        }
    }

    /// Takes a message in, or gives it back when something before it is missing.
    fn take_if_next(&mut self, id: RoomId, live: Live) -> Option<Live> {
        let mut room = self.rooms.remove(&id)?;
        let early = self.take_next(&mut room, live);
        self.touched.insert(id);
        self.rooms.insert(id, room);
        early
    }

    fn take_next(&mut self, room: &mut Room, live: Live) -> Option<Live> {
        let arrival = &live.arrival;
        let after = match arrival.handshake {
            true => room.record.handshakes_after,
            false => room.record.messages_after,
        };
        if Self::is_of_rewound_stream(room, arrival.sequence, arrival.stored_at) {
            self.rewind(room, arrival.sequence.saturating_sub(1));
            return None;
        }
        if arrival.sequence <= after {
            self.take_again(room, arrival);
            return None;
        }
        let next = live.last_sequence <= after && self.take_live(room, arrival);
        (!next).then_some(live)
    }
}
