//! Holes: what others have said and did not come is noticed, asked for with
//! ever longer pauses, and noted where it stays missing; what others lack of
//! this device's is said again. So is what a server has lost that went back to
//! an older state of a room's stream.
//!
//! This file has what is under way, and when it is time for what; the files
//! beside it say what is heard, what is said, and what to do about a server
//! that has lost something.
//!
//! Nothing here believes a server, and of members only their word about
//! themselves. Whoever came into a room later gets nothing to read that was
//! said before: see [`crate::resend`].

mod hearing;
mod lost_by_server;
mod lost_commits;
mod saying;

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngCore};
use sotto_proto::{DeviceId, RoomId, UserName};

use super::Engine;
use crate::group::Group;
use crate::history::{Note, StoredRecord};
use crate::holes::Heard;
use crate::io::Event;
use crate::pace::Pace;
use crate::room::{Phase, Room};

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

fn devices(room: &Room) -> BTreeSet<DeviceId> {
    let members = room.group().into_iter().flat_map(Group::members);
    members.map(|member| member.device).collect()
}
