//! An epoch begins: what is kept of it, and what those are owed who came in
//! with it.

use sotto_proto::limits;

use super::Engine;
use crate::commits::{PastCommit, PastCommits};
use crate::records::{Key, outbox_of};
use crate::resend::EpochKeys;
use crate::room::Room;

impl Engine {
    /// A commit was merged, at this place in the stream; an epoch begins.
    pub(super) fn merged(
        &mut self,
        room: &mut Room,
        sequence: u64,
        payload: &[u8],
        newcomers: bool,
    ) {
        let records = self.provider.records();
        let mut past = PastCommits::load(records, room.id);
        past.keep(PastCommit {
            epoch: room.epoch().saturating_sub(1),
            sequence,
            payload: payload.to_vec(),
        });
        past.save(records, room.id);
        self.epoch_begins(room);
        if newcomers {
            let before = (room.record.newcomers_epoch, room.record.owed_from);
            room.record.newcomers_epoch = room.epoch();
            room.record.owed_from = self.next_owed(room);
            if room.record.owed_from > before.1 {
                room.record.owed_before.insert(0, before);
                room.record.owed_before.truncate(limits::FRAME_OWED);
            }
        }
    }

    /// Keeps what it takes to say again what is said in this epoch.
    pub(super) fn epoch_begins(&mut self, room: &Room) {
        let Some(group) = room.group() else { return };
        if let Ok(key) = group.resend_key(&self.provider) {
            let records = self.provider.records();
            let mut keys = EpochKeys::load(records, room.id);
            keys.keep(group.epoch(), *key);
            records.put(Key::EpochKeys(room.id), &keys);
        }
    }

    /// This device has come into a room, perhaps once more.
    pub(super) fn came_in(&mut self, room: &mut Room) {
        room.record.newcomers_epoch = room.epoch();
        room.record.owed_from = self.next_owed(room);
        room.record.owed_before.clear();
        for heard in room.record.heard.values_mut() {
            heard.forget_owed();
        }
        self.epoch_begins(room);
    }

    /// The first own counter that is encrypted from now on.
    fn next_owed(&self, room: &Room) -> u64 {
        let records = self.provider.records();
        let first = records.find(outbox_of(room.id), |key, _| match key {
            Key::Outbox(_, counter) => Some(*counter),
            _ => None,
        });
        first.unwrap_or(room.record.counter + 1)
    }
}
