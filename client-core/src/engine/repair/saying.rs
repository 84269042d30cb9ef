//! What the next frame says besides entries: what was read of others, what is
//! asked for, and own entries that others lack.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rand::RngCore;
use sotto_proto::{DeviceId, RoomId, limits, wire};

use crate::engine::Engine;
use crate::engine::outbox::ENTRY_OVERHEAD;
use crate::holes::{Heard, Newest};
use crate::io::{Recall, Recalled};
use crate::records::{Key, resends_of};
use crate::resend::{EpochKeys, Resend};
use crate::room::{Phase, Room};

/// Ticks, on an ordinary link, for which an entry that was said again is not said
/// once more.
const RESENT_TICKS: u32 = 8;

impl Engine {
    /// Entries that were asked for, from this device's store.
    pub(in crate::engine) fn recalled(
        &mut self,
        id: RoomId,
        recall: Recall,
        entries: Vec<Recalled>,
    ) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        if room.record.phase != Phase::Member {
            return;
        }
        let records = self.provider.records();
        let keys = EpochKeys::load(records, id);
        let resent_ticks = self.link.pace.ticks(RESENT_TICKS);
        let repair = self.link.repairs.entry(id).or_default();
        let mut found = BTreeSet::new();
        for Recalled { epoch, entry } in entries {
            let counter = entry.counter;
            if !keys.holds(epoch) {
                continue;
            }
            found.insert(counter);
            if repair.resent.insert(counter, resent_ticks).is_some() {
                continue;
            }
            let entry = entry.encode_to_vec();
            records.put(Key::Resend(id, counter), &Resend { epoch, entry });
            let said_again = &mut self.link.beacon.said_again;
            *said_again = said_again.saturating_add(1);
        }
        if let Recall::Counters { from, through } = recall {
            for counter in from..=through {
                // What waits in the outbox is said anyway.
                let waits = records.get_bytes(&Key::Outbox(id, counter)).is_some();
                if found.contains(&counter) || waits {
                    continue;
                }
                match repair.gone.last_mut() {
                    Some((_, last)) if last.checked_add(1) == Some(counter) => *last = counter,
                    _ => repair.gone.push((counter, counter)),
                }
            }
        }
        if !found.is_empty() {
            // Who lacks them lacks what their frames said of others, too.
            room.record.heard.values_mut().for_each(Heard::name_again);
        }
        self.touched.insert(id);
    }

    /// Whether the next frame has something to ask, or to say again.
    pub(in crate::engine) fn has_repairs(&self, room: &Room) -> bool {
        let asks = self.link.repairs.get(&room.id).is_some_and(|repair| {
            let asks = !repair.due.is_empty() || repair.epoch_due;
            asks || !repair.gone.is_empty() || repair.heads_due
        });
        asks || !self.waiting_resends(room).is_empty()
    }

    /// What waits to be said again and is not on its way.
    fn waiting_resends(&self, room: &Room) -> Vec<u64> {
        let keys = self.provider.records().keys(resends_of(room.id));
        let frames = &room.flight.frames;
        let waiting = keys.into_iter().filter_map(|key| match key {
            Key::Resend(_, counter) => Some(counter),
            _ => None,
        });
        waiting
            .filter(|counter| !frames.iter().any(|frame| frame.resent.contains(counter)))
            .collect()
    }

    /// Puts into a frame what is not an entry. The counters of what it says
    /// again.
    pub(in crate::engine) fn add_repairs(
        &mut self,
        room: &mut Room,
        frame: &mut wire::Frame,
        rng: &mut impl RngCore,
    ) -> Vec<u64> {
        let own = self.account.device;
        frame.owed_epoch = room.record.newcomers_epoch;
        frame.owed_from = room.record.owed_from;
        let before = room.record.owed_before.iter();
        frame.owed_before = before
            .map(|&(epoch, from)| wire::Owed { epoch, from })
            .collect();
        add_heads(room, frame);
        let repair = self.link.repairs.entry(room.id).or_default();
        for device in std::mem::take(&mut repair.due) {
            let missing = room.record.heard.get(&device).map(Heard::missing);
            let spans = missing.into_iter().flatten();
            let left = limits::FRAME_HEADS.saturating_sub(frame.missing.len());
            frame.missing.extend(spans.take(left).map(span(device)));
        }
        let gone = repair.gone.len().min(limits::FRAME_HEADS);
        frame.gone.extend(repair.gone.drain(..gone).map(span(own)));
        // Its counter speaks of all that was said before.
        room.record.named = room.record.sent;
        repair.unnamed = None;
        repair.heads_due = false;
        repair.quiet = None;
        if std::mem::take(&mut repair.epoch_due) {
            frame.wanted_epoch = repair.epoch.map_or(0, |(epoch, _)| epoch);
        }
        self.add_resends(room, frame, rng)
    }

    /// As much as fits beside the entries.
    fn add_resends(
        &self,
        room: &Room,
        frame: &mut wire::Frame,
        rng: &mut impl RngCore,
    ) -> Vec<u64> {
        let waiting = self.waiting_resends(room);
        if waiting.is_empty() {
            return waiting;
        }
        let records = self.provider.records();
        let mut by_epoch: BTreeMap<u64, wire::ResentEntries> = BTreeMap::new();
        let mut length = frame.encoded_len();
        let mut counters = Vec::new();
        for counter in waiting {
            let key = Key::Resend(room.id, counter);
            let Ok(Some(Resend { epoch, entry })) = records.get::<Resend>(&key) else {
                records.delete(key);
                continue;
            };
            length += entry.len() + ENTRY_OVERHEAD;
            if length > limits::FRAME {
                break;
            }
            if let Ok(entry) = wire::Entry::decode(entry.as_slice()) {
                by_epoch.entry(epoch).or_default().entries.push(entry);
            }
            counters.push(counter);
        }
        let keys = self.epoch_keys(room.id);
        let own = self.account.device;
        let sealed = by_epoch
            .iter()
            .filter_map(|(epoch, entries)| keys.seal(room.id, own, *epoch, entries, rng));
        frame.resent.extend(sealed);
        counters
    }

    pub(super) fn epoch_keys(&self, room: RoomId) -> EpochKeys {
        EpochKeys::load(self.provider.records(), room)
    }
}

/// Names the newest that was read of others since the frame before.
fn add_heads(room: &mut Room, frame: &mut wire::Frame) {
    let unnamed = room.record.heard.iter().filter(|(_, heard)| !heard.named);
    let mut newest: Vec<(DeviceId, Newest)> = unnamed
        .filter_map(|(device, heard)| Some((*device, heard.newest()?)))
        .collect();
    newest.sort_by_key(|(_, newest)| std::cmp::Reverse(newest.sequence));
    newest.truncate(limits::FRAME_HEADS);
    for (device, newest) in newest {
        frame.heads.push(wire::Head {
            device: device.to_bytes(),
            counter: newest.counter,
            epoch: newest.epoch,
            hash: newest.hash.to_vec().into(),
        });
    }
    // Who is not among them is named when there is something newer.
    for heard in room.record.heard.values_mut() {
        heard.named = true;
    }
}

fn span(device: DeviceId) -> impl Fn((u64, u64)) -> wire::Span {
    move |(from, through)| wire::Span {
        device: device.to_bytes(),
        from,
        through,
    }
}
