//! Holes: what others have said and did not come is noticed, asked for with
//! ever longer pauses, and noted where it stays missing; what others lack of
//! this device's is said again. So is what a server has lost that went back to
//! an older state of a room's stream.
//!
//! Nothing here believes a server, and of members only their word about
//! themselves. Whoever came into a room later gets nothing to read that was
//! said before: see [`crate::resend`].

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use rand::{Rng, RngCore};
use sotto_proto::{DeviceId, RoomId, UserName, limits, wire};

use super::Engine;
use super::outbox::ENTRY_OVERHEAD;
use crate::commits::{PastCommit, PastCommits};
use crate::group::Group;
use crate::history::{Note, StoredRecord};
use crate::holes::{Heard, Newest, Reading, entry_hash};
use crate::io::{Event, Output, Recall, Recalled, Timestamp};
use crate::pace::Pace;
use crate::records::{Key, outbox_of, resends_of};
use crate::resend::{EpochKeys, Resend};
use crate::room::{FlyingFrame, Phase, Room};
use crate::rules::Member;

/// Rooms with more leaves let chance decide who asks first.
const SMALL_ROOM: u32 = 8;

/// The most ticks by which members of a large room ask apart.
const SPREAD_MAX: u32 = 16;

/// The most ticks between two requests for the same.
const PAUSE_MAX: u32 = 512;

/// So many requests without an answer, and the history says what is missing.
const NOTE_AFTER: u32 = 4;

/// So many, and nothing is asked until its sender says something.
const GIVE_UP_AFTER: u32 = 24;

/// Entries that are said again for one request.
const RECALL: u64 = 128;

/// Ticks, here and below on an ordinary link, for which an entry that was said again is not said once more.
const RESENT_TICKS: u32 = 8;

/// Ticks without a word after which a member says what it has read: else
/// nobody would miss the last that was said. Members of a large room wait for
/// up to [`QUIET_SPREAD_MAX`] more, so that one of them does.
const QUIET: u32 = 30;

/// See [`QUIET`].
const QUIET_SPREAD_MAX: u32 = 256;

/// Ticks after which somebody would have named the last that this device has
/// said, besides the spread. Then it says itself that there is something: who
/// has not read it does not miss it.
const UNNAMED: u32 = 2 * QUIET;

/// Catch-ups without an acknowledged frame after which it counts as lost.
const MISSED: u32 = 2;

/// Ticks after which an acknowledged frame that did not come back is looked
/// for; then after twice as many, and so on.
const SEEK_AFTER: u32 = 4;

/// How much later than the newest message one that is stored before it may
/// have been stored, as the clocks of servers differ, in ms.
const SKEW_MS: i64 = 60_000;

/// Conflicts at one place in the stream, with a catch-up between, after which
/// what this device has seen there counts as lost.
const CONFLICTS: u32 = 3;

/// What is under way to repair a room. Forgotten whenever the engine is opened.
#[derive(Debug, Default)]
pub(super) struct Repair {
    asking: BTreeMap<DeviceId, Patience>,
    /// Whose entries the next frame asks for.
    due: BTreeSet<DeviceId>,
    /// What the next frame says cannot be said again.
    gone: Vec<(u64, u64)>,
    /// Own entries that were said again, and for how many more ticks they are
    /// not said once more.
    resent: BTreeMap<u64, u32>,
    /// Ticks until somebody says what was read here, if nobody says anything.
    quiet: Option<u32>,
    /// Ticks until this device speaks of the last that it has said, if nobody
    /// else does.
    unnamed: Option<u32>,
    /// The next frame says both, though there is nothing else to say.
    heads_due: bool,
    /// The epoch that was heard of.
    epoch: Option<(u64, Patience)>,
    /// The next frame asks for the commits to it.
    epoch_due: bool,
    /// Somebody lacks the commits from this epoch on; ticks until it is for
    /// this device to publish them again.
    commits: Option<(u64, u32)>,
    /// Where an own commit met conflicts, and how many.
    conflicts: (u64, u32),
    /// The relay says that the stream ends here, and said so before.
    rewound: Option<u64>,
}

/// Ever longer pauses.
#[derive(Debug, Clone, Copy)]
struct Patience {
    wait: u32,
    pause: u32,
}

impl Patience {
    fn new(wait: u32, asked: u32, pace: Pace) -> Self {
        let pause = pace
            .ticks(2u32.saturating_pow(asked.min(16)))
            .min(PAUSE_MAX);
        let wait = pace.ticks(wait);
        Self { wait, pause }
    }

    /// A tick goes by; whether it is time.
    fn tick(&mut self) -> bool {
        self.wait = self.wait.saturating_sub(1);
        let due = self.wait == 0;
        if due {
            self.longer();
        }
        due
    }

    /// It was just asked for, by this device or another one.
    fn longer(&mut self) {
        self.pause = (2 * self.pause).min(PAUSE_MAX);
        self.wait = self.pause;
    }
}

impl Engine {
    /// Takes in a frame of another device. What of it is to be shown, and
    /// whether that came late.
    pub(super) fn read_frame(
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
    pub(super) fn hear_of_epoch(&mut self, room: &Room, epoch: u64) {
        let repair = self.link.repairs.entry(room.id).or_default();
        match &mut repair.epoch {
            Some((known, _)) => *known = epoch.max(*known),
            None => repair.epoch = Some((epoch, Patience::new(1, 0, self.link.pace))),
        }
    }

    /// Entries that were asked for, from this device's store.
    pub(super) fn recalled(&mut self, id: RoomId, recall: Recall, entries: Vec<Recalled>) {
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

    /// Time has passed: looks after every room's holes.
    pub(super) fn tick_repairs(&mut self, rng: &mut impl RngCore) {
        let ids: Vec<RoomId> = self.rooms.keys().copied().collect();
        for id in ids {
            let Some(mut room) = self.rooms.remove(&id) else {
                continue;
            };
            if room.record.phase == Phase::Member && self.may_publish(id) {
                self.tick_holes(&mut room, rng);
                self.tick_flight(&mut room);
                self.tick_commits(&mut room);
            }
            self.rooms.insert(id, room);
        }
    }

    fn tick_holes(&mut self, room: &mut Room, rng: &mut impl RngCore) {
        let pace = self.link.pace;
        let repair = self.link.repairs.entry(room.id).or_default();
        repair.resent.retain(|_, ticks| {
            *ticks = ticks.saturating_sub(1);
            *ticks > 0
        });
        if let Some((epoch, patience)) = &mut repair.epoch {
            if *epoch <= room.epoch() {
                repair.epoch = None;
            } else {
                repair.epoch_due |= patience.tick();
            }
        }
        let leaves = room.group().map_or(0, |group| group.members().count());
        let spread = u32::try_from(leaves).unwrap_or(u32::MAX);
        let spread_max = spread.min(QUIET_SPREAD_MAX);
        let reads = room.record.heard.values().any(|heard| !heard.named);
        let drawn = || pace.ticks(QUIET + rng.gen_range(0..=spread_max));
        repair.heads_due |= count_down(&mut repair.quiet, reads, drawn);
        let speaks = room.record.named < room.record.sent && leaves > 1;
        let wait = || pace.ticks(UNNAMED + spread_max);
        repair.heads_due |= count_down(&mut repair.unnamed, speaks, wait);
        if room.record.heard.values().all(Heard::is_whole) {
            repair.asking.clear();
            repair.due.clear();
            return;
        }
        let members = devices(room);
        let spread = spread / SMALL_ROOM;
        let mut notes = Vec::new();
        for (&device, heard) in &mut room.record.heard {
            notes.extend(heard.take_lost().into_iter().map(|run| (device, run)));
            if heard.missing().is_empty() {
                heard.asked = 0;
                repair.asking.remove(&device);
                repair.due.remove(&device);
                continue;
            }
            let patience = repair.asking.entry(device).or_insert_with(|| {
                let wait = 1 + rng.gen_range(0..=spread.min(SPREAD_MAX));
                Patience::new(wait, heard.asked, pace)
            });
            if heard.asked >= GIVE_UP_AFTER || !patience.tick() {
                continue;
            }
            let is_there = members.contains(&device);
            if !is_there || heard.asked >= NOTE_AFTER {
                let unnoted = heard.take_unnoted().into_iter();
                notes.extend(unnoted.map(|run| (device, run)));
            }
            heard.asked += 1;
            if is_there {
                repair.due.insert(device);
            }
        }
        for (device, (from, through)) in notes {
            if let Some(heard) = room.record.heard.get(&device) {
                let user = heard.user.clone();
                self.note(room, &user, device, Note::Missing { from, through });
            }
        }
    }

    /// All that the server has was read: what is missing now is asked for at
    /// once where few would ask.
    pub(super) fn ask_after_catching_up(&mut self) {
        for (id, room) in &mut self.rooms {
            if room.record.phase != Phase::Member || room.record.heard.values().all(Heard::is_whole)
            {
                continue;
            }
            let members = devices(room);
            if members.len() > SMALL_ROOM as usize {
                continue;
            }
            let repair = self.link.repairs.entry(*id).or_default();
            for (&device, heard) in &mut room.record.heard {
                let new = !repair.asking.contains_key(&device) && heard.asked < GIVE_UP_AFTER;
                let can_answer = members.contains(&device);
                if new && can_answer && !heard.missing().is_empty() {
                    heard.asked += 1;
                    let mut patience = Patience::new(1, heard.asked, self.link.pace);
                    patience.longer();
                    repair.asking.insert(device, patience);
                    repair.due.insert(device);
                    self.touched.insert(*id);
                }
            }
        }
    }

    /// Own frames that were acknowledged must come back in the stream.
    fn tick_flight(&mut self, room: &mut Room) {
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
    pub(super) fn seek_frames(&mut self, covers: impl Fn(RoomId) -> bool) {
        let rooms = self.rooms.iter_mut().filter(|(id, _)| covers(**id));
        for frame in rooms.flat_map(|(_, room)| &mut room.flight.frames) {
            frame.sought.asked = frame.stored;
        }
    }

    /// It has ended, with everything that there is.
    pub(super) fn miss_frames(&mut self, covers: impl Fn(RoomId) -> bool) {
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

    /// Publishes commits again for who lacks them.
    fn tick_commits(&mut self, room: &mut Room) {
        let Some(repair) = self.link.repairs.get_mut(&room.id) else {
            return;
        };
        if let Some((from, wait)) = &mut repair.commits {
            *wait = wait.saturating_sub(1);
            let from = *from;
            if *wait == 0 {
                repair.commits = None;
                let past = PastCommits::load(self.provider.records(), room.id);
                self.publish_again(room, &past.only(|commit| commit.epoch >= from));
            }
        }
    }

    fn publish_again(&mut self, room: &Room, commits: &[PastCommit]) {
        let Some(address) = room.address() else {
            return;
        };
        for commit in commits {
            self.post(Some(room.id), &address.handshakes(), commit.payload.clone());
        }
    }

    /// An own commit was refused because the stream is not where this device
    /// believes it to be.
    pub(super) fn commit_conflicts(&mut self, id: RoomId) {
        let Some(room) = self.rooms.remove(&id) else {
            return;
        };
        let after = room.record.handshakes_after;
        let repair = self.link.repairs.entry(id).or_default();
        let (place, times) = repair.conflicts;
        let times = if place == after { times + 1 } else { 1 };
        repair.conflicts = (after, times);
        if times >= CONFLICTS {
            repair.conflicts = (after, 0);
            // With it the stream has an end that everybody has seen.
            let past = PastCommits::load(self.provider.records(), id);
            let newest = past.newest_epoch();
            self.publish_again(&room, &past.only(|commit| Some(commit.epoch) == newest));
        }
        self.rooms.insert(id, room);
    }

    /// All that the server has was read: where an own commit was refused, the
    /// next one may follow. Where one after the other was, only after a tick:
    /// what this device has seen there has to be stored again first, which the
    /// server may take for a duplicate for some minutes.
    pub(super) fn race_again(&mut self) {
        let repairs = &self.link.repairs;
        let hopeless = |room: &RoomId| {
            let repair = repairs.get(room);
            repair.is_some_and(|repair| repair.conflicts.1 == 0)
        };
        let lost = std::mem::take(&mut self.link.lost_race);
        let (wait, again): (BTreeSet<_>, BTreeSet<_>) = lost.into_iter().partition(hopeless);
        self.link.lost_race = wait;
        self.touched.extend(again);
    }

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

    pub(super) fn is_past_commit(&self, room: RoomId, payload: &[u8]) -> bool {
        PastCommits::load(self.provider.records(), room).holds(payload)
    }

    /// The relay says that a room's stream ends before what was read there.
    /// The second time it is believed: servers that have just come up may not
    /// have read all that they have.
    pub(super) fn hear_rewound(&mut self, end: &wire::StreamEnd) {
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
    pub(super) fn is_of_rewound_stream(room: &Room, sequence: u64, stored_at: Timestamp) -> bool {
        let record = &room.record;
        let newest = record.messages_after.max(record.handshakes_after);
        sequence < newest && stored_at.0 > record.newest_at_ms.saturating_add(SKEW_MS)
    }

    /// The stream goes on from `last`: what this device had read after it is
    /// not there any more.
    pub(super) fn rewind(&mut self, room: &mut Room, last: u64) {
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

    /// Writes into the history what was noticed, and says so.
    fn note(&mut self, room: &mut Room, user: &UserName, device: DeviceId, note: Note) {
        let id = room.id;
        let record = StoredRecord {
            sequence: room.record.messages_after,
            stored_at_ms: self.now.0,
            user: user.clone(),
            device,
            entry: Vec::new(),
            late: false,
            note: Some(note),
        };
        self.append_record(room, &record);
        let user = user.clone();
        self.event(match note {
            Note::Missing { from, through } => Event::Missing {
                room: id,
                user,
                device,
                from,
                through,
            },
            Note::Contradicted { counter } => Event::Contradicted {
                room: id,
                user,
                device,
                counter,
            },
            Note::Rewound { last_sequence } => Event::Rewound {
                room: id,
                last_sequence,
            },
        });
        let length = room.record.history_length;
        self.event(Event::Received { room: id, length });
        self.touched.insert(id);
    }

    /// Whether the next frame has something to ask, or to say again.
    pub(super) fn has_repairs(&self, room: &Room) -> bool {
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
    pub(super) fn add_repairs(
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

    fn epoch_keys(&self, room: RoomId) -> EpochKeys {
        EpochKeys::load(self.provider.records(), room)
    }
}

/// A tick goes by, of so many while there is something to say; whether that was
/// the last.
fn count_down(ticks: &mut Option<u32>, is_due: bool, from: impl FnOnce() -> u32) -> bool {
    if !is_due {
        *ticks = None;
        return false;
    }
    let left = ticks.get_or_insert_with(from);
    *left = left.saturating_sub(1);
    *left == 0
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

fn span(device: DeviceId) -> impl Fn((u64, u64)) -> wire::Span {
    move |(from, through)| wire::Span {
        device: device.to_bytes(),
        from,
        through,
    }
}

fn devices(room: &Room) -> BTreeSet<DeviceId> {
    let members = room.group().into_iter().flat_map(Group::members);
    members.map(|member| member.device).collect()
}

fn user_of(group: &Group, device: DeviceId) -> Option<UserName> {
    let mut members = group.members();
    let member = members.find(|member| member.device == device)?;
    Some(member.user)
}
