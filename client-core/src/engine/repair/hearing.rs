//! What a frame of another device says: entries, what its sender has read of
//! others, and what it lacks.

use std::collections::BTreeMap;

use sotto_proto::{DeviceId, RoomId, UserName, limits, wire};

use super::{GIVE_UP_AFTER, NOTE_AFTER, Patience};
use crate::engine::Engine;
use crate::group::Group;
use crate::history::Note;
use crate::holes::{Heard, Newest, Reading, entry_hash};
use crate::io::{Output, Recall};
use crate::room::Room;
use crate::rules::Member;

/// Entries that are said again for one request.
const RECALL: u64 = 128;

impl Engine {
    /// Takes in a frame of another device. What of it is to be shown, and
    /// whether that came late.
    pub(in crate::engine) fn read_frame(
        &mut self,
        room: &mut Room,
        sender: &Member,
        epoch: u64,
        sequence: u64,
        frame: wire::Frame,
    ) -> Vec<(wire::Entry, bool)> {
        let owed = owed_from(&frame, room.record.joined_epoch);
        let heard = room
            .record
            .heard
            .entry(sender.device)
            .or_insert_with(|| Heard::new(sender.user.clone()));
        let first_read = frame.entries.iter().map(|entry| entry.counter).min();
        let resent = self.open_resent(room.id, sender.device, &frame.resent);
        let now = frame.entries.into_iter().map(|entry| (entry, epoch));
        let mut entries = Vec::new();
        for (entry, epoch) in now.chain(resent) {
            let newest = Newest {
                counter: entry.counter,
                epoch,
                sequence,
                hash: entry_hash(room.id, sender.device, &entry),
            };
            match heard.read(newest) {
                Reading::New => entries.push((entry, false)),
                Reading::Late => entries.push((entry, true)),
                Reading::Again => {}
            }
        }
        heard.says(frame.counter, first_read, owed);
        for span in frame.gone.iter().take(limits::FRAME_HEADS) {
            heard.lost(span.from, span.through);
        }
        if heard.asked >= GIVE_UP_AFTER {
            heard.asked = NOTE_AFTER;
            let repair = self.link.repairs.entry(room.id).or_default();
            repair.asking.remove(&sender.device);
        }
        self.hear_heads(room, sender.device, &frame.heads);
        self.hear_missing(room, &frame.missing);
        self.hear_wanted_epoch(room, epoch, frame.wanted_epoch);
        entries
    }

    fn open_resent(
        &self,
        room: RoomId,
        sender: DeviceId,
        resent: &[wire::Resent],
    ) -> Vec<(wire::Entry, u64)> {
        if resent.is_empty() {
            return Vec::new();
        }
        let keys = self.epoch_keys(room);
        let open = |resent: &wire::Resent| {
            let entries = keys.open(room, sender, resent)?.entries;
            let epoch = resent.epoch;
            Some(entries.into_iter().map(move |entry| (entry, epoch)))
        };
        resent.iter().filter_map(open).flatten().collect()
    }

    /// What another member has read shows what did not come.
    fn hear_heads(&mut self, room: &mut Room, from: DeviceId, heads: &[wire::Head]) {
        for head in heads.iter().take(limits::FRAME_HEADS) {
            let Ok(device) = DeviceId::try_from(&head.device) else {
                continue;
            };
            if device == self.account.device {
                let record = &mut room.record;
                record.named = record.named.max(head.counter.min(record.sent));
                continue;
            }
            if device == from || head.counter == 0 || head.epoch < room.record.joined_epoch {
                continue;
            }
            if !room.record.heard.contains_key(&device) {
                let Some(user) = room.group().and_then(|group| user_of(group, device)) else {
                    continue;
                };
                room.record.heard.insert(device, Heard::new(user));
            }
            let Some(heard) = room.record.heard.get_mut(&device) else {
                continue;
            };
            let newest = heard.newest();
            heard.named |= newest.is_some_and(|newest| newest.counter <= head.counter);
            if heard.hear(head.counter, &head.hash) {
                let counter = head.counter;
                let user = heard.user.clone();
                self.note(room, &user, device, Note::Contradicted { counter });
            }
        }
    }

    /// Says again what is this device's, and does not ask for what somebody
    /// else has just asked for.
    fn hear_missing(&mut self, room: &mut Room, missing: &[wire::Span]) {
        let mut budget = RECALL;
        let mut asked: BTreeMap<DeviceId, Vec<(u64, u64)>> = BTreeMap::new();
        for span in missing.iter().take(limits::FRAME_HEADS) {
            let Ok(device) = DeviceId::try_from(&span.device) else {
                continue;
            };
            if device != self.account.device {
                let spans = asked.entry(device).or_default();
                spans.push((span.from, span.through));
                continue;
            }
            let from = span.from.max(1);
            let through = span.through.min(room.record.counter);
            let through = through.min(from.saturating_add(budget.saturating_sub(1)));
            if budget == 0 || from > through {
                continue;
            }
            budget = budget.saturating_sub(through - from + 1);
            let recall = Recall::Counters { from, through };
            let room = room.id;
            self.effect(Output::Recall { room, recall });
        }
        let repair = self.link.repairs.entry(room.id).or_default();
        for (device, spans) in asked {
            let heard = room.record.heard.get_mut(&device);
            let Some((heard, patience)) = heard.zip(repair.asking.get_mut(&device)) else {
                continue;
            };
            let is_asked = |(from, through): &(u64, u64)| {
                let covers = |span: &(u64, u64)| span.0 <= *from && span.1 >= *through;
                spans.iter().any(covers)
            };
            if heard.missing().iter().all(is_asked) && patience.wait < patience.pause {
                heard.asked += 1;
                patience.longer();
                repair.due.remove(&device);
            }
        }
    }

    fn hear_wanted_epoch(&mut self, room: &Room, epoch: u64, wanted: u64) {
        if wanted > epoch && epoch < room.epoch() {
            let wait = self.turn(room);
            let repair = self.link.repairs.entry(room.id).or_default();
            let from = repair.commits.map_or(epoch, |(from, _)| from.min(epoch));
            repair.commits = Some((from, wait));
        }
    }

    /// Not every member does at once what one has to do.
    fn turn(&self, room: &Room) -> u32 {
        let leaves = room.group().map_or(1, |group| group.members().count());
        let several = u32::try_from(leaves.clamp(1, 64)).unwrap_or(1);
        let drawn = self.account.device.as_bytes().last().copied();
        1 + u32::from(drawn.unwrap_or_default()) % several
    }

    /// A message of an epoch that this device has not reached was stored, and
    /// no commit leads there.
    pub(in crate::engine) fn hear_of_epoch(&mut self, room: &Room, epoch: u64) {
        let repair = self.link.repairs.entry(room.id).or_default();
        match &mut repair.epoch {
            Some((known, _)) => *known = epoch.max(*known),
            None => repair.epoch = Some((epoch, Patience::new(1, 0, self.link.pace))),
        }
    }
}

/// The first counter of a frame's sender that is owed to who came in with this
/// epoch, or 0.
fn owed_from(frame: &wire::Frame, joined_epoch: u64) -> u64 {
    let newest = (frame.owed_epoch, frame.owed_from);
    let before = frame.owed_before.iter().take(limits::FRAME_OWED);
    let before = before.map(|owed| (owed.epoch, owed.from));
    let mut owed: Vec<(u64, u64)> = std::iter::once(newest).chain(before).collect();
    owed.sort_unstable();
    let newer = owed.partition_point(|(epoch, _)| *epoch <= joined_epoch);
    owed.get(newer.saturating_sub(1))
        .map_or(0, |(_, from)| *from)
}

fn user_of(group: &Group, device: DeviceId) -> Option<UserName> {
    let mut members = group.members();
    let member = members.find(|member| member.device == device)?;
    Some(member.user)
}
