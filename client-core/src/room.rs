//! What a device keeps of one room besides its MLS group.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sotto_proto::wire::JoinRule;
use sotto_proto::{DeviceId, ProjectName, RoomAddress, RoomId, Shard, Subject, UserName};

use crate::group::Group;
use crate::holes::{Heard, Seen};
use crate::mls::Provider;
use crate::orders::WaitingOrder;
use crate::records::{Key, Records, RecordsError, frames_of};

/// Where a device is on its way into and out of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// To be registered at the gateway; there is no group yet.
    Creating,
    /// To be joined by external commit; a group is there once that is made.
    Joining,
    /// The device is a leaf of the group.
    Member,
    /// The device was removed; the history stays.
    Removed,
}

/// A room as it is stored, format 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RoomRecord {
    pub(crate) phase: Phase,
    /// The shard is 0 until the gateway has registered the room.
    pub(crate) shard: u8,
    /// Unknown while joining.
    pub(crate) project: Option<ProjectName>,
    /// `JoinRule`.
    pub(crate) join_rule: i32,
    /// The newest name that a member gave it.
    pub(crate) name: Option<String>,
    /// Sequence of the last message of `.msg` that was taken in.
    pub(crate) messages_after: u64,
    /// Sequence of the last message of `.hs` that was taken in.
    pub(crate) handshakes_after: u64,
    /// Records in the history.
    pub(crate) history_length: u64,
    /// The first position that was not shown yet.
    pub(crate) read_position: u64,
    /// The last counter that was given to an own entry.
    pub(crate) counter: u64,
    /// The last own counter that is durable at the server.
    pub(crate) sent: u64,
    /// The last own counter that another device has named, or that this one
    /// has spoken of since.
    pub(crate) named: u64,
    /// Own counters that are in the history.
    pub(crate) landed: Seen,
    /// The epoch in which this device came in.
    pub(crate) joined_epoch: u64,
    /// The newest epoch that began with newcomers.
    pub(crate) newcomers_epoch: u64,
    /// The first own counter that these are owed.
    pub(crate) owed_from: u64,
    /// The same of earlier ones, newest first.
    #[serde(default)]
    pub(crate) owed_before: Vec<(u64, u64)>,
    /// The latest that a server says it has stored a message that was taken in,
    /// in ms since 1970.
    pub(crate) newest_at_ms: i64,
    /// What was read and heard of each other device.
    pub(crate) heard: BTreeMap<DeviceId, Heard>,
    /// Users to be invited, with their `Role`.
    pub(crate) invites: BTreeMap<UserName, i32>,
    /// Devices to be added.
    pub(crate) wanted: BTreeSet<DeviceId>,
    /// Devices to be removed.
    pub(crate) unwanted: BTreeSet<DeviceId>,
    /// The room's name must be said again, for newcomers.
    pub(crate) name_due: bool,
    /// The gateway must be given the room's public key of this epoch.
    pub(crate) group_info_due: bool,
    /// Removal orders that name somebody who is still there.
    pub(crate) orders: Vec<WaitingOrder>,
}

/// A commit that was made here and is not in the stream yet, format 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingCommit {
    #[serde(with = "serde_bytes")]
    pub(crate) payload: Vec<u8>,
    /// The sequence on `.hs` that it must follow.
    pub(crate) after: u64,
    /// MLS Welcome for the devices that it adds; empty for an external commit.
    #[serde(with = "serde_bytes")]
    pub(crate) welcome: Vec<u8>,
    pub(crate) recipients: Vec<DeviceId>,
    /// It counts only when it is stored by then, in ms since 1970: the removal
    /// orders in it end.
    #[serde(default)]
    pub(crate) not_after_ms: Option<i64>,
}

/// Frames that were encrypted and are not seen in the stream yet, oldest
/// first, format 3.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) frames: Vec<FlyingFrame>,
}

/// See [`Flight`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FlyingFrame {
    /// Given by [`Flight::push`]: unlike those of the others under way.
    pub(crate) number: u64,
    /// A record of its own, which does not change: [`Key::Frame`].
    #[serde(skip)]
    pub(crate) payload: Vec<u8>,
    /// The epoch that it is encrypted in.
    pub(crate) epoch: u64,
    /// The first counter in it.
    pub(crate) from: u64,
    /// The last counter in it; there is none missing between. A frame without
    /// entries ends before it begins.
    pub(crate) through: u64,
    /// The counters of what it says again.
    pub(crate) resent: Vec<u64>,
    /// The server has acknowledged it.
    pub(crate) stored: bool,
    /// How it was looked for since, while this engine lives.
    #[serde(skip)]
    pub(crate) sought: Sought,
}

/// What came of looking for an acknowledged frame in the stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sought {
    /// Ticks since it was acknowledged.
    pub(crate) ticks: u32,
    /// A catch-up that began after it was acknowledged is under way.
    pub(crate) asked: bool,
    /// Such catch-ups that ended without it.
    pub(crate) missed: u32,
}

/// A message of an epoch that this device has not reached, format 2.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EarlyMessage {
    pub(crate) stored_at_ms: i64,
    #[serde(with = "serde_bytes")]
    pub(crate) payload: Vec<u8>,
}

/// A room in memory.
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) record: RoomRecord,
    pub(crate) commit: Option<PendingCommit>,
    pub(crate) flight: Flight,
    group: Option<Group>,
}

impl Flight {
    /// Adds a frame, whose payload is written here and never again.
    pub(crate) fn push(&mut self, records: &Records, room: RoomId, mut frame: FlyingFrame) {
        let newest = self.frames.iter().map(|frame| frame.number).max();
        frame.number = newest.map_or(0, |newest| newest.saturating_add(1));
        records.put_bytes(Key::Frame(room, frame.number), frame.payload.clone());
        self.frames.push(frame);
    }

    fn load(records: &Records, room: RoomId) -> Result<Self, RecordsError> {
        let mut flight: Self = records.get(&Key::Flight(room))?.unwrap_or_default();
        for frame in &mut flight.frames {
            let payload = records.get_bytes(&Key::Frame(room, frame.number));
            frame.payload = payload.ok_or_else(RecordsError::damaged)?.to_vec();
        }
        Ok(flight)
    }

    fn save(&self, records: &Records, room: RoomId) {
        for key in records.keys(frames_of(room)) {
            let flies = |frame: &FlyingFrame| key == Key::Frame(room, frame.number);
            if !self.frames.iter().any(flies) {
                records.delete(key);
            }
        }
        if self.frames.is_empty() {
            return records.delete(Key::Flight(room));
        }
        records.put(Key::Flight(room), self);
    }
}

impl RoomRecord {
    pub(crate) fn new(phase: Phase, project: Option<ProjectName>, join_rule: JoinRule) -> Self {
        Self {
            phase,
            shard: 0,
            project,
            join_rule: join_rule.into(),
            name: None,
            messages_after: 0,
            handshakes_after: 0,
            history_length: 0,
            read_position: 0,
            counter: 0,
            sent: 0,
            named: 0,
            landed: Seen::default(),
            joined_epoch: 0,
            newcomers_epoch: 0,
            owed_from: 0,
            owed_before: Vec::new(),
            newest_at_ms: 0,
            heard: BTreeMap::new(),
            invites: BTreeMap::new(),
            wanted: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            name_due: false,
            group_info_due: false,
            orders: Vec::new(),
        }
    }

    /// Whether somebody must leave before anything new is said.
    pub(crate) fn has_removals(&self) -> bool {
        !self.unwanted.is_empty() || !self.orders.is_empty()
    }

    pub(crate) fn set_address(&mut self, address: &RoomAddress) {
        self.shard = address.shard.0;
        self.project = Some(address.project.clone());
    }

    pub(crate) fn join_rule(&self) -> JoinRule {
        JoinRule::try_from(self.join_rule).unwrap_or(JoinRule::Invite)
    }
}

impl Room {
    pub(crate) fn new(id: RoomId, record: RoomRecord) -> Self {
        Self {
            id,
            record,
            commit: None,
            flight: Flight::default(),
            group: None,
        }
    }

    /// Reads a room and its group from the records.
    pub(crate) fn load(provider: &Provider, id: RoomId) -> Result<Option<Self>, RecordsError> {
        let records = provider.records();
        let Some(record) = records.get(&Key::Room(id))? else {
            return Ok(None);
        };
        let mut room = Self::new(id, record);
        room.commit = records.get(&Key::Commit(id))?;
        room.flight = Flight::load(records, id)?;
        room.group = Group::load(provider, id).map_err(|_| RecordsError::damaged())?;
        Ok(Some(room))
    }

    /// Writes everything but the group, which writes itself.
    pub(crate) fn save(&self, records: &Records) {
        records.put(Key::Room(self.id), &self.record);
        match &self.commit {
            Some(commit) => records.put(Key::Commit(self.id), commit),
            None => records.delete(Key::Commit(self.id)),
        }
        self.flight.save(records, self.id);
    }

    pub(crate) fn address(&self) -> Option<RoomAddress> {
        let project = self.record.project.clone()?;
        Some(RoomAddress {
            shard: Shard(self.record.shard),
            project,
            room: self.id,
        })
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    pub(crate) fn set_group(&mut self, group: Option<Group>) {
        self.group = group;
    }

    /// The group's epoch; 0 without a group.
    pub(crate) fn epoch(&self) -> u64 {
        self.group.as_ref().map_or(0, Group::epoch)
    }

    pub(crate) fn take_group(&mut self) -> Option<Group> {
        self.group.take()
    }

    /// Does something with the group inside a savepoint: when it fails, the
    /// group and the records are as before.
    pub(crate) fn transact<T, E>(
        &mut self,
        provider: &Provider,
        action: impl FnOnce(&mut Group) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let group = self.group.as_mut()?;
        provider.records().savepoint();
        let result = action(group);
        if result.is_ok() {
            provider.records().keep();
        } else {
            provider.records().roll_back();
            self.group = Group::load(provider, self.id).ok().flatten();
        }
        Some(result)
    }
}

/// What a publish is called in `Nats-Msg-Id`: encryptions never repeat, so the
/// hash names just this one, also after a restart. The subject belongs to it
/// because one payload may go to several inboxes of one stream.
pub(crate) fn message_id(subject: &Subject, payload: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(subject.to_string())
        .chain_update([0])
        .chain_update(payload)
        .finalize();
    data_encoding::HEXLOWER.encode(digest.get(..16).unwrap_or_default())
}
