//! What a shell may look at. Nothing here changes anything.

use std::ops::Range;

use prost::Message;
use rand::{CryptoRng, RngCore};
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{DeviceId, RoomAddress, RoomId, UserName};

use super::Engine;
use super::outbox::Sort;
use crate::account::{Account, safety_number};
use crate::history::{HistoryRecord, Place, Said, StoredRecord};
use crate::io::{Recall, Recalled};
use crate::records::{Key, Reader, RecordsError};
use crate::room::{Phase, Room};
use crate::store::Store;
use crate::vault::VaultError;
use crate::wiped::Wiped;

/// Entries that are recalled at a time.
const RECALL: usize = 1_024;

/// Records of the history that are looked through for them.
const RECALL_RECORDS: usize = 16_384;

/// A room as a person sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomId,
    /// Where it is; unknown until the gateway has answered.
    pub address: Option<RoomAddress>,
    /// The newest name that a member gave it.
    pub name: Option<String>,
    /// Who may join.
    pub join_rule: JoinRule,
    /// Whether this device can write to it now.
    pub member: bool,
    /// Whether this device was a member and is none any more.
    pub removed: bool,
    /// Whether this user is an owner.
    pub owner: bool,
    /// Every device in it.
    pub members: Vec<Member>,
    /// The epoch of its group (RFC 9420), which each change of the members ends.
    pub epoch: u64,
    /// Records in the history.
    pub history_length: u64,
    /// The first position that was not shown yet.
    pub read_position: u64,
    /// Own entries that the server has not stored yet.
    pub queued: u64,
}

/// One device of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Whose.
    pub user: UserName,
    /// Which.
    pub device: DeviceId,
}

/// Why a room was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindRoomError {
    /// No room has this name or id.
    #[error("there is no room `{0}` on this device: `sotto rooms` lists yours")]
    Unknown(String),
    /// Several rooms have this name.
    #[error("several rooms are called `{0}`: name it by its id, which `sotto rooms` shows")]
    Ambiguous(String),
}

impl Engine {
    /// Who this device is.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Every room of this device.
    pub fn rooms(&self) -> Vec<RoomSummary> {
        self.rooms.values().map(|room| self.summary(room)).collect()
    }

    fn summary(&self, room: &Room) -> RoomSummary {
        let own = self.own_member();
        let group = room.group();
        let member = |member: crate::rules::Member| Member {
            user: member.user,
            device: member.device,
        };
        RoomSummary {
            room: room.id,
            address: room.address(),
            name: room.record.name.clone(),
            join_rule: room.record.join_rule(),
            member: room.record.phase == Phase::Member,
            removed: room.record.phase == Phase::Removed,
            owner: group.is_some_and(|group| group.rules().is_owner(&own)),
            members: group
                .map(|group| group.members().map(member).collect())
                .unwrap_or_default(),
            epoch: room.epoch(),
            history_length: room.record.history_length,
            read_position: room.record.read_position,
            queued: room.record.counter.saturating_sub(room.record.sent),
        }
    }

    /// A room by its id or by its name, if just one has it.
    ///
    /// # Errors
    /// [`FindRoomError`].
    pub fn find_room(&self, text: &str) -> Result<RoomId, FindRoomError> {
        if let Ok(id) = text.parse()
            && self.rooms.contains_key(&id)
        {
            return Ok(id);
        }
        let named = |room: &&Room| room.record.name.as_deref() == Some(text);
        let mut found = self.rooms.values().filter(named);
        match (found.next(), found.next()) {
            (Some(room), None) => Ok(room.id),
            (None, _) => Err(FindRoomError::Unknown(text.to_owned())),
            (Some(_), Some(_)) => Err(FindRoomError::Ambiguous(text.to_owned())),
        }
    }

    /// Part of a room's history, by position; shorter where it ends.
    ///
    /// # Errors
    /// When the store or a record does not read.
    pub fn history(
        &self,
        store: &dyn Store,
        room: RoomId,
        range: Range<u64>,
    ) -> Result<Vec<HistoryRecord>, RecordsError> {
        let length = self
            .rooms
            .get(&room)
            .map_or(0, |room| room.record.history_length);
        let mut reader = Reader::<StoredRecord>::new(self.provider.records(), store);
        let mut history = Vec::new();
        for position in range.start..range.end.min(length) {
            let record = reader.at(&Key::History(room, position))?;
            let record = record.and_then(|stored| stored.read(position));
            history.push(record.ok_or_else(RecordsError::damaged)?);
        }
        Ok(history)
    }

    /// Own entries that the engine asks for, to be said again; what is not
    /// there is left out.
    ///
    /// # Errors
    /// When the store or a record does not read.
    pub fn recall(
        &self,
        store: &dyn Store,
        room: RoomId,
        recall: Recall,
    ) -> Result<Vec<Recalled>, RecordsError> {
        let counters: Vec<u64> = match recall {
            Recall::Counters { from, through } => (from..=through).take(RECALL).collect(),
            Recall::After { sequence } => self.said_after(store, room, sequence)?,
        };
        let records = self.provider.records();
        let mut said_first = Reader::<Said>::new(records, store);
        let mut history = Reader::<StoredRecord>::new(records, store);
        let mut recalled = Vec::new();
        for counter in counters {
            let said = match records.read_appended(store, &Key::SaidAgain(room, counter))? {
                Some(again) => Some(again),
                None => said_first.at(&Key::Said(room, counter))?,
            };
            let Some(said) = said else {
                continue;
            };
            let entry = match said.place {
                Place::Hidden(entry) => Some(entry),
                Place::At(position) => {
                    let record = history.at(&Key::History(room, position))?;
                    record.map(|record| record.entry)
                }
            };
            let entry = entry.and_then(|entry| wire::Entry::decode(entry.as_slice()).ok());
            recalled.extend(entry.map(|entry| Recalled {
                epoch: said.epoch,
                entry,
            }));
        }
        Ok(recalled)
    }

    /// Own counters in the history that were stored after a sequence, the
    /// newest at most.
    fn said_after(
        &self,
        store: &dyn Store,
        room: RoomId,
        sequence: u64,
    ) -> Result<Vec<u64>, RecordsError> {
        let length = self.rooms.get(&room).map(|room| room.record.history_length);
        let mut history = Reader::<StoredRecord>::new(self.provider.records(), store);
        let mut counters = Vec::new();
        for position in (0..length.unwrap_or(0)).rev().take(RECALL_RECORDS) {
            let Some(record) = history.at(&Key::History(room, position))? else {
                break;
            };
            if record.note.is_some() {
                continue;
            }
            if record.sequence <= sequence || counters.len() == RECALL {
                break;
            }
            let entry = wire::Entry::decode(record.entry.as_slice());
            let own = record.device == self.account.device;
            counters.extend(entry.ok().filter(|_| own).map(|entry| entry.counter));
        }
        counters.reverse();
        Ok(counters)
    }

    /// Whether everything that this device wants of the server is done: all
    /// is sent, every wanted device is added, nothing is being asked. Rooms
    /// that are closed until factors are proven wait for a person, and so does
    /// what [`Engine::held_for_space`] is about.
    pub fn is_settled(&self) -> bool {
        let settled = |room: &Room| {
            let refused = |sort| self.is_refused(room.id, sort);
            let removes = room.record.has_removals();
            let is_in = room.record.phase != Phase::Joining;
            let changed = is_in && !removes && !room.record.group_info_due;
            let told = self.has_added_all(room) || refused(Sort::Posts);
            room.record.phase != Phase::Creating
                && room.record.invites.is_empty()
                && (self.has_sent_all(room) || refused(Sort::Frames) || removes)
                && (changed && told || refused(Sort::Commit))
        };
        let withheld = |room: &Room| self.link.withheld.contains_key(&room.id);
        let mut rooms = self.rooms.values();
        let rooms_settled = rooms.all(|room| withheld(room) || settled(room));
        !self.link.me_due && !self.link.lost_due && self.link.calls.is_empty() && rooms_settled
    }

    /// Seals a file that the shell keeps beside the store, under what it is
    /// called.
    ///
    /// # Errors
    /// [`VaultError`], when it is too long to be sealed.
    pub fn seal_file(
        &self,
        name: &str,
        content: &[u8],
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Vec<u8>, VaultError> {
        let records = self.provider.records();
        let sealed = records.vault().seal(&file_key(name), None, content, rng)?;
        Ok(sealed.value)
    }

    /// Opens what [`Engine::seal_file`] sealed on this device under this name.
    pub fn open_file(&self, name: &str, sealed: &[u8]) -> Option<Wiped> {
        let key = file_key(name);
        let vault = self.provider.records().vault();
        let (_, content) = vault.open(&vault.name(&key), sealed).ok()?;
        Some(content)
    }

    /// The digits by which people compare a user's identity key, if it is known.
    pub fn safety_number(&self, user: &UserName) -> Option<String> {
        Some(safety_number(user, &self.known_identity(user)?))
    }
}

/// No record's key begins so.
fn file_key(name: &str) -> Vec<u8> {
    [b"file ", name.as_bytes()].concat()
}

impl std::fmt::Debug for Engine {
    /// Only what holds no secret: ids, numbers, what is outstanding.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let record = |room: &Room| {
            let record = &room.record;
            let sent = format!("{}/{}", record.sent, record.counter);
            let after = (record.messages_after, record.handshakes_after);
            let pending = (
                room.commit.is_some(),
                record.wanted.len(),
                record.invites.len(),
            );
            (record.phase, sent, after, pending, room.flight.frames.len())
        };
        f.debug_struct("Engine")
            .field("device", &self.account.device)
            .field("online", &self.link.online)
            .field("calls", &self.link.calls)
            .field("publishes", &self.link.publishes)
            .field("fetch", &self.link.fetch)
            .field("me_due", &self.link.me_due)
            .field(
                "rooms",
                &self.rooms.values().map(record).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}
