//! What a server has lost: frames that it acknowledged and that do not come
//! back, and the end of a stream that it does not have any more.

use sotto_proto::{RoomId, wire};

use crate::commits::PastCommits;
use crate::engine::Engine;
use crate::history::Note;
use crate::holes::Heard;
use crate::io::{Output, Recall, Timestamp};
use crate::room::{FlyingFrame, Phase, Room};

/// Catch-ups without an acknowledged frame after which it counts as lost.
const MISSED: u32 = 2;

/// Ticks after which an acknowledged frame that did not come back is looked
/// for; then after twice as many, and so on.
const SEEK_AFTER: u32 = 4;

/// How much later than the newest message one that is stored before it may
/// have been stored, as the clocks of servers differ, in ms.
const SKEW_MS: i64 = 60_000;

impl Engine {
    /// Own frames that were acknowledged must come back in the stream.
    pub(super) fn tick_flight(&mut self, room: &mut Room) {
        let seek_after = self.link.pace.ticks(SEEK_AFTER);
        let mut seek = false;
        for frame in room.flight.frames.iter_mut().filter(|frame| frame.stored) {
            frame.sought.ticks += 1;
            let ticks = frame.sought.ticks;
            seek |= ticks >= seek_after && ticks.is_power_of_two();
        }
        if seek {
            self.is_behind(room.id);
        }
    }

    /// A catch-up that covers these rooms begins.
    pub(in crate::engine) fn seek_frames(&mut self, covers: impl Fn(RoomId) -> bool) {
        let rooms = self.rooms.iter_mut().filter(|(id, _)| covers(**id));
        for frame in rooms.flat_map(|(_, room)| &mut room.flight.frames) {
            frame.sought.asked = frame.stored;
        }
    }

    /// It has ended, with everything that there is.
    pub(in crate::engine) fn miss_frames(&mut self, covers: impl Fn(RoomId) -> bool) {
        for (id, room) in self.rooms.iter_mut().filter(|(id, _)| covers(**id)) {
            let frames = room.flight.frames.len();
            for frame in &mut room.flight.frames {
                if std::mem::take(&mut frame.sought.asked) {
                    frame.sought.missed += 1;
                }
            }
            // Its entries are still in the outbox, and go in a new frame.
            let frames_left = |frame: &FlyingFrame| frame.sought.missed < MISSED;
            room.flight.frames.retain(frames_left);
            if room.flight.frames.len() < frames {
                self.touched.insert(*id);
            } else if room
                .flight
                .frames
                .iter()
                .any(|frame| frame.sought.missed > 0)
            {
                // Perhaps it was read where it had not arrived yet.
                self.link.look_again.insert(*id);
            }
        }
    }

    /// The relay says that a room's stream ends before what was read there.
    /// The second time it is believed: servers that have just come up may not
    /// have read all that they have.
    pub(in crate::engine) fn hear_rewound(&mut self, end: &wire::StreamEnd) {
        let Ok(id) = RoomId::try_from(&end.room) else {
            return;
        };
        let Some(mut room) = self.rooms.remove(&id) else {
            return;
        };
        let record = &room.record;
        let last = end.last_sequence;
        if record.phase == Phase::Member
            && record.messages_after.max(record.handshakes_after) > last
        {
            let repair = self.link.repairs.entry(id).or_default();
            if repair.rewound.replace(last).is_some() {
                repair.rewound = None;
                self.rewind(&mut room, last);
            }
            self.link.look_again.insert(id);
        }
        self.rooms.insert(id, room);
    }

    /// Whether a live message was stored later than the newest that was read,
    /// though before it in the stream: then the stream was rewound.
    pub(in crate::engine) fn is_of_rewound_stream(
        room: &Room,
        sequence: u64,
        stored_at: Timestamp,
    ) -> bool {
        let record = &room.record;
        let newest = record.messages_after.max(record.handshakes_after);
        sequence < newest && stored_at.0 > record.newest_at_ms.saturating_add(SKEW_MS)
    }

    /// The stream goes on from `last`: what this device had read after it is
    /// not there any more.
    pub(in crate::engine) fn rewind(&mut self, room: &mut Room, last: u64) {
        let record = &mut room.record;
        record.messages_after = record.messages_after.min(last);
        record.handshakes_after = record.handshakes_after.min(last);
        // Until something is read there.
        record.newest_at_ms = i64::MAX;
        if let Some(commit) = &mut room.commit {
            commit.after = commit.after.min(last);
        }
        room.flight.frames.retain(|frame| !frame.stored);
        room.record.heard.values_mut().for_each(Heard::name_again);
        let past = PastCommits::load(self.provider.records(), room.id);
        self.publish_again(room, &past.only(|commit| commit.sequence > last));
        let user = self.account.user.clone();
        let note = Note::Rewound {
            last_sequence: last,
        };
        let own = self.account.device;
        self.note(room, &user, own, note);
        let recall = Recall::After { sequence: last };
        self.effect(Output::Recall {
            room: room.id,
            recall,
        });
        self.is_behind(room.id);
        self.touched.insert(room.id);
    }
}
