//! How far each device of a room has come, and so what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};

use sotto_jwt_accounts::directory::State;
use sotto_proto::{DeviceId, RoomAddress, RoomId};

/// Rooms of all devices in all that are remembered at most, each with 40 bytes
/// or so; those beyond are not cleaned.
const CURSORS: usize = 4_000_000;

/// The cursors of devices: last sequences of messages that they have stored.
#[derive(Debug, Default)]
pub struct Confirmed {
    rooms: BTreeMap<RoomId, RoomCursors>,
    count: usize,
    /// Whether somebody has said something since it was looked at last.
    changed: bool,
}

#[derive(Debug, Default)]
struct RoomCursors {
    of: BTreeMap<DeviceId, u64>,
    /// Up to where messages were deleted.
    deleted: u64,
}

/// What may be deleted in a room, unless its stream says otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct Deletable {
    /// Which room.
    pub address: RoomAddress,
    /// Messages before this sequence: every device has at least this one.
    pub before: u64,
    /// The furthest that any device says to have come.
    pub furthest: u64,
}

impl Confirmed {
    /// Notes what a device said last, also when it is less than before.
    pub fn heard(&mut self, device: DeviceId, room: RoomId, messages: u64) {
        // Even when there is no place for it: there may be some after a look.
        self.changed = true;
        let known = self.rooms.get(&room);
        let known = known.is_some_and(|cursors| cursors.of.contains_key(&device));
        if !known && self.count >= CURSORS {
            return;
        }
        let cursors = self.rooms.entry(room).or_default();
        if cursors.of.insert(device, messages).is_none() {
            self.count += 1;
        }
    }

    /// What every device of a room has and was not deleted yet, of so many
    /// rooms, by the directory's word on which devices these are. What is
    /// remembered of others is forgotten.
    pub fn deletable(&mut self, state: &State, rooms: usize) -> Vec<Deletable> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let members = members(state, &self.rooms);
        self.rooms.retain(|room, cursors| {
            let devices = members.get(room);
            cursors
                .of
                .retain(|device, _| devices.is_some_and(|devices| devices.contains(device)));
            !cursors.of.is_empty()
        });
        self.count = self.rooms.values().map(|cursors| cursors.of.len()).sum();
        let due = self.rooms.iter().filter_map(|(room, cursors)| {
            // Who has said nothing has nothing.
            if cursors.of.len() < members.get(room)?.len() {
                return None;
            }
            let before = cursors.of.values().copied().min()?;
            (before > cursors.deleted).then_some(Deletable {
                address: state.room(*room)?.address.clone(),
                before,
                furthest: cursors.of.values().copied().max()?,
            })
        });
        let due: Vec<Deletable> = due.take(rooms).collect();
        self.changed = due.len() == rooms;
        due
    }

    /// Notes that it was deleted.
    pub fn deleted(&mut self, done: &Deletable) {
        if let Some(cursors) = self.rooms.get_mut(&done.address.room) {
            cursors.deleted = done.before;
        }
    }

    /// Forgets a room, whose stream is not the one that cursors were said of.
    pub fn forget(&mut self, room: RoomId) {
        if let Some(forgotten) = self.rooms.remove(&room) {
            self.count = self.count.saturating_sub(forgotten.of.len());
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The devices of everybody who has a role in these rooms, whatever they would
/// have to prove to read there, suspended people among them.
fn members(
    state: &State,
    rooms: &BTreeMap<RoomId, RoomCursors>,
) -> BTreeMap<RoomId, BTreeSet<DeviceId>> {
    let mut members: BTreeMap<RoomId, BTreeSet<DeviceId>> = BTreeMap::new();
    for (name, user) in state.users() {
        let wanted = |room: &RoomId| rooms.contains_key(room);
        let of_user = state.rooms_of(name).into_iter().map(|r| r.address.room);
        for room in of_user.filter(wanted) {
            let devices = user.devices().map(|device| device.certificate.device);
            members.entry(room).or_default().extend(devices);
        }
    }
    members
}
