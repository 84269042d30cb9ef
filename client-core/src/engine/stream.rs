//! Taking in a room's stream, strictly in the order of each subject: commits
//! are judged and merged, messages are read into the history, and the cursor
//! moves with them in the same batch.

use bytes::Bytes;
use prost::Message;
use sotto_proto::{limits, padding, wire};

use super::Engine;
use super::commands::check_name;
use super::outbox::Landed;
use crate::group::{Incoming, Rejected};
use crate::history::{Content, Place, Said, StoredRecord};
use crate::holes::Reading;
use crate::io::{Event, Timestamp};
use crate::orders;
use crate::records::{Key, early_of, resends_of};
use crate::room::{EarlyMessage, Phase, Room};
use crate::rules::{Change, Committer, Member, Violation, check};

/// Messages that are kept until their epoch begins, of each room.
const EARLY: usize = 32;

/// A message of a room's stream.
pub(super) struct Arrival {
    /// On `.hs`, not on `.msg`.
    pub(super) handshake: bool,
    pub(super) sequence: u64,
    pub(super) stored_at: Timestamp,
    pub(super) payload: Bytes,
}

impl Arrival {
    pub(super) fn message(sequence: u64, stored_at: Timestamp, payload: Bytes) -> Self {
        Self {
            handshake: false,
            sequence,
            stored_at,
            payload,
        }
    }

    pub(super) fn handshake(sequence: u64, stored_at: Timestamp, payload: Bytes) -> Self {
        Self {
            handshake: true,
            sequence,
            stored_at,
            payload,
        }
    }
}

/// What became of an arrival.
enum Taken {
    /// It is done with; the cursor moves past it.
    Done,
    /// It is of this epoch, which this device has not reached.
    TooEarly(u64),
    /// It is of no use; the cursor moves past it, and a person may want to know.
    Skipped(String),
}

impl Engine {
    /// Takes a live message that follows without a gap on its own subject.
    /// `false` when something on the other subject is missing before it.
    pub(super) fn take_live(&mut self, room: &mut Room, arrival: &Arrival) -> bool {
        self.take(room, arrival, true)
    }

    /// Takes a live message that stands where something was read already. It is
    /// that, unless the server has gone back and given the sequence out again;
    /// then it can be read.
    pub(super) fn take_again(&mut self, room: &mut Room, arrival: &Arrival) {
        if room.record.phase == Phase::Member && !arrival.handshake {
            self.take_message(room, arrival);
        }
    }

    /// Takes a fetched message: everything before it was fetched too, so what
    /// cannot be read now never will be.
    pub(super) fn take_stored(&mut self, room: &mut Room, arrival: Arrival) {
        self.take(room, &arrival, false);
    }

    fn take(&mut self, room: &mut Room, arrival: &Arrival, live: bool) -> bool {
        let record = &room.record;
        let after = if arrival.handshake {
            record.handshakes_after
        } else {
            record.messages_after
        };
        if arrival.sequence <= after {
            return true;
        }
        let epoch = room.epoch();
        let (sequence, stored_at) = (arrival.sequence, arrival.stored_at);
        let handshake = arrival.handshake;
        let taken = match (room.record.phase, handshake) {
            (Phase::Member, true) => self.take_handshake(room, arrival),
            (Phase::Member, false) => self.take_message(room, arrival),
            (Phase::Joining, true) => {
                self.settle_joining(room, sequence, &arrival.payload);
                Taken::Done
            }
            // Said before this device was there, or after it had left.
            (Phase::Joining, false) | (Phase::Creating | Phase::Removed, _) => Taken::Done,
        };
        match taken {
            Taken::TooEarly(_) if live => return false,
            // What leads to that epoch was not stored, or is kept back.
            Taken::TooEarly(epoch) => {
                if !handshake {
                    self.keep_early(room, arrival);
                }
                self.hear_of_epoch(room, epoch);
            }
            Taken::Skipped(reason) => self.skipped(room, sequence, &reason),
            Taken::Done => {}
        }
        let record = &mut room.record;
        let after = if handshake {
            &mut record.handshakes_after
        } else {
            &mut record.messages_after
        };
        *after = sequence.max(*after);
        record.newest_at_ms = stored_at.0;
        if let Some(commit) = room.commit.as_mut().filter(|_| handshake) {
            // What came in between was no commit: this one is still the next.
            commit.after = sequence.max(commit.after);
        }
        if room.epoch() != epoch {
            self.take_early(room);
        }
        true
    }

    /// Keeps a message until its epoch begins. What is not kept is missed, and
    /// asked for, like anything that did not come.
    fn keep_early(&mut self, room: &Room, arrival: &Arrival) {
        let records = self.provider.records();
        let few = records.keys(early_of(room.id)).len() < EARLY;
        if few && arrival.payload.len() <= limits::PAYLOAD {
            let early = EarlyMessage {
                stored_at_ms: arrival.stored_at.0,
                payload: arrival.payload.to_vec(),
            };
            records.put(Key::Early(room.id, arrival.sequence), &early);
        }
    }

    /// An epoch has begun: takes in what was kept for it.
    fn take_early(&mut self, room: &mut Room) {
        for key in self.provider.records().keys(early_of(room.id)) {
            let Key::Early(_, sequence) = key else {
                continue;
            };
            let early = self.provider.records().get::<EarlyMessage>(&key);
            if let (Ok(Some(early)), Phase::Member) = (early, room.record.phase) {
                let stored_at = Timestamp(early.stored_at_ms);
                let arrival = Arrival::message(sequence, stored_at, early.payload.into());
                match self.take_message(room, &arrival) {
                    Taken::TooEarly(_) => continue,
                    Taken::Skipped(reason) => self.skipped(room, sequence, &reason),
                    Taken::Done => {}
                }
            }
            self.provider.records().delete(key);
        }
    }

    fn skipped(&mut self, room: &Room, sequence: u64, reason: &str) {
        self.event(Event::Skipped {
            room: room.id,
            sequence,
            reason: reason.to_owned(),
        });
    }

    fn take_handshake(&mut self, room: &mut Room, arrival: &Arrival) -> Taken {
        if let Some(signed) = orders::of_notice(&arrival.payload) {
            return match self.take_order(room, &signed, arrival.stored_at) {
                Ok(()) => Taken::Done,
                Err(why) => Taken::Skipped(format!("a removal order does not count: {why}")),
            };
        }
        if room
            .commit
            .as_ref()
            .is_some_and(|commit| commit.payload == arrival.payload)
        {
            return match self.land_commit(room, arrival.sequence, arrival.stored_at) {
                Ok(()) => Taken::Done,
                Err(error) => Taken::Skipped(error.to_string()),
            };
        }
        match self.process(room, arrival) {
            Ok(Incoming::Commit { staged, change }) => {
                let joins = change.committer == Committer::Joining;
                let judged = self.judge(room, &change);
                let added = match judged {
                    Ok(added) => added,
                    Err(violation) => return Taken::Skipped(violation.to_string()),
                };
                let merged =
                    room.transact(&self.provider, |group| group.merge(&self.provider, *staged));
                match merged {
                    Some(Ok(still_member)) => {
                        for certificate in &added {
                            super::remember(
                                &self.provider,
                                &certificate.user,
                                &certificate.identity_key,
                            );
                            room.record.wanted.remove(&certificate.device);
                        }
                        room.commit = None;
                        let newcomers = !added.is_empty();
                        self.merged(room, arrival.sequence, &arrival.payload, newcomers);
                        room.record.name_due |= joins && self.is_first_owner(room);
                        if !still_member {
                            self.removed(room);
                        }
                        Taken::Done
                    }
                    Some(Err(error)) => Taken::Skipped(error.to_string()),
                    None => Taken::Done,
                }
            }
            Ok(_) => Taken::Skipped("it is no commit".to_owned()),
            // It was published again for those who lacked it.
            Err(Rejected::Unreadable { epoch })
                if epoch < room.record.joined_epoch
                    || self.is_past_commit(room.id, &arrival.payload) =>
            {
                Taken::Done
            }
            Err(rejected) => taken(rejected),
        }
    }

    fn judge(
        &mut self,
        room: &Room,
        change: &Change,
    ) -> Result<Vec<sotto_proto::signed::DeviceCertificate>, Violation> {
        let Some(group) = room.group() else {
            return Ok(Vec::new());
        };
        let judged = check(group.rules(), change, |user| self.known_identity(user));
        if let Err(Violation::IdentityChanged(user)) = &judged {
            self.event(Event::IdentityChanged { user: user.clone() });
        }
        judged
    }

    pub(super) fn removed(&mut self, room: &mut Room) {
        room.record.phase = Phase::Removed;
        room.record.orders.clear();
        room.record.unwanted.clear();
        room.record.wanted.clear();
        room.commit = None;
        room.flight.frames.clear();
        let records = self.provider.records();
        let of_room = [resends_of(room.id), early_of(room.id)];
        for key in of_room.into_iter().flat_map(|range| records.keys(range)) {
            records.delete(key);
        }
        self.link.repairs.remove(&room.id);
        self.look_for_invitation(room);
        if let Some(group) = room.take_group() {
            // What cannot be deleted is overwritten when this device comes back.
            let _ = group.delete(&self.provider);
        }
        self.event(Event::Removed { room: room.id });
        self.fail_waiting(
            room.id,
            "you were removed from this room: ask an owner to invite you",
            |_| true,
        );
    }

    /// The device that tells newcomers by external commit what the room is
    /// called: the owner's that comes first in the tree.
    fn is_first_owner(&self, room: &Room) -> bool {
        let Some(group) = room.group() else {
            return false;
        };
        let first = group
            .members()
            .find(|member| group.rules().is_owner(member));
        first.is_some_and(|member| member.device == self.account.device)
    }

    fn take_message(&mut self, room: &mut Room, arrival: &Arrival) -> Taken {
        if let Some(landed) = self.land_frame(room, &arrival.payload) {
            self.append_own(room, arrival, landed);
            return Taken::Done;
        }
        let (sender, epoch, content) = match self.process(room, arrival) {
            Ok(Incoming::Message {
                sender,
                epoch,
                content,
            }) => (sender, epoch, content),
            // A second copy of an own frame, or one that travels again.
            Ok(Incoming::Own) => return Taken::Done,
            Ok(_) => return Taken::Skipped("it is no message".to_owned()),
            // For those who were here before; for this device it travels again.
            Err(Rejected::Unreadable { epoch }) if epoch < room.record.joined_epoch => {
                return Taken::Done;
            }
            Err(rejected) => return taken(rejected),
        };
        let frame = padding::unpad(&content).and_then(|content| wire::Frame::decode(content).ok());
        let Some(frame) = frame else {
            return Taken::Skipped(format!("what {} sent does not read", sender.user));
        };
        let length = room.record.history_length;
        for (entry, late) in self.read_frame(room, &sender, epoch, arrival.sequence, frame) {
            self.append(room, arrival, &sender, &entry, late);
        }
        self.report_received(room, length);
        Taken::Done
    }

    fn process(&mut self, room: &mut Room, arrival: &Arrival) -> Result<Incoming, Rejected> {
        if arrival.payload.len() > limits::PAYLOAD {
            return Err(Rejected::Invalid("it is too large"));
        }
        let processed = room.transact(&self.provider, |group| {
            group.process(&self.provider, &arrival.payload, arrival.stored_at)
        });
        processed.unwrap_or(Err(Rejected::Invalid("there is no key for it")))
    }

    /// Writes an own frame into the history, and where its entries are to be
    /// found when they are to be said again.
    fn append_own(&mut self, room: &mut Room, arrival: &Arrival, landed: Landed) {
        let own = self.own_member();
        let length = room.record.history_length;
        for (entry, landing) in landed.entries {
            let late = landing == Reading::Late;
            let (key, place) = match landing {
                Reading::Again => (Key::SaidAgain(room.id, entry.counter), None),
                _ => (
                    Key::Said(room.id, entry.counter),
                    self.append(room, arrival, &own, &entry, late),
                ),
            };
            let said = Said {
                epoch: landed.epoch,
                place: match place {
                    Some(position) => Place::At(position),
                    None => Place::Hidden(entry.encode_to_vec()),
                },
            };
            self.provider.records().append(key, &said);
        }
        self.report_received(room, length);
    }

    /// Writes an entry into the history, if it is to be shown; where.
    fn append(
        &mut self,
        room: &mut Room,
        arrival: &Arrival,
        sender: &Member,
        entry: &wire::Entry,
        late: bool,
    ) -> Option<u64> {
        if let Content::RoomState(state) = Content::of(entry) {
            let said_before = room.record.name.as_ref() == Some(&state.name);
            if said_before || check_name(&state.name, "room").is_err() {
                return None;
            }
            // A name that comes late is not the newest.
            if !late {
                room.record.name = Some(state.name);
            }
        }
        let record = StoredRecord {
            sequence: arrival.sequence,
            stored_at_ms: arrival.stored_at.0,
            user: sender.user.clone(),
            device: sender.device,
            entry: entry.encode_to_vec(),
            late,
            note: None,
        };
        Some(self.append_record(room, &record))
    }

    pub(super) fn append_record(&mut self, room: &mut Room, record: &StoredRecord) -> u64 {
        let position = room.record.history_length;
        self.provider
            .records()
            .append(Key::History(room.id, position), record);
        room.record.history_length += 1;
        position
    }

    fn report_received(&mut self, room: &Room, before: u64) {
        if room.record.history_length > before {
            self.event(Event::Received {
                room: room.id,
                length: room.record.history_length,
            });
        }
    }

    pub(super) fn own_member(&self) -> Member {
        Member {
            user: self.account.user.clone(),
            device: self.account.device,
            identity_key: self.account.identity.verifying_key(),
        }
    }
}

fn taken(rejected: Rejected) -> Taken {
    match rejected {
        Rejected::Future { epoch } => Taken::TooEarly(epoch),
        Rejected::Unreadable { .. } => {
            Taken::Skipped("it was seen before, is too old to be read, or is damaged".to_owned())
        }
        Rejected::Invalid(why) => Taken::Skipped(why.to_owned()),
    }
}
