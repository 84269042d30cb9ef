//! What leaves the device: entries in frames, commits, and posts (Welcomes
//! and public chunks). Everything here is durable before it is published, is
//! published again after any doubt, and is forgotten only once it is known to
//! be in the stream.

use bytes::Bytes;
use prost::Message;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sotto_proto::refusals::Refusal;
use sotto_proto::{RoomId, Subject, padding, wire};

use super::{Engine, Goal};
use crate::group::PAST_EPOCHS;
use crate::holes::Reading;
use crate::io::{Event, Output, Publish, PublishFailure, PublishId, Timestamp};
use crate::records::{Key, outbox_of};
use crate::room::{FlyingFrame, Phase, Room, Sought, message_id};

/// What an entry adds to a frame beside its own length, at most.
pub(super) const ENTRY_OVERHEAD: usize = 8;

/// What an outstanding publish carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Publishing {
    /// A frame; one that travels again is of a later epoch.
    Frame { room: RoomId, from: u64, epoch: u64 },
    /// The room's pending commit.
    Commit(RoomId),
    /// A post, by its number.
    Post(u64),
}

impl Publishing {
    fn frame(room: RoomId, frame: &FlyingFrame) -> Self {
        let (from, epoch) = (frame.from, frame.epoch);
        Self::Frame { room, from, epoch }
    }
}

/// A message for an inbox or a blob subject, format 1.
#[derive(Serialize, Deserialize)]
struct Post {
    /// The room whose publish permission it needs, if any.
    room: Option<RoomId>,
    subject: String,
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
}

/// An own frame that was seen in the stream.
pub(super) struct Landed {
    /// That it was encrypted in.
    pub(super) epoch: u64,
    /// With how each stands to what landed before.
    pub(super) entries: Vec<(wire::Entry, Reading)>,
}

/// What the server takes or does not take by itself: a room that is full of
/// messages takes commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    Frames,
    Commit,
    Posts,
}

/// A server that does not take something of a room is left alone with it for a
/// while.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    since: Timestamp,
    until: Timestamp,
    /// The next one, in ms.
    pause_ms: i64,
    refusal: Refusal,
}

impl Hold {
    /// Whether it is not over by itself: somebody must make room first.
    fn lasts(&self) -> bool {
        !matches!(self.refusal, Refusal::TooFast { .. } | Refusal::Busy)
    }
}

/// The first pause after a refusal, in ms; doubled up to [`HOLD_MAX_MS`].
const HOLD_MS: i64 = 4_000;

/// The longest pause after a refusal that names none, in ms.
const HOLD_MAX_MS: i64 = 300_000;

impl Engine {
    /// Encrypts what waits, unless a frame is still on its way: what waits
    /// meanwhile travels together in the next one. A device that has just
    /// connected reads what it missed first, so that it encrypts for whoever
    /// is in the room by now. Then publishes.
    pub(super) fn advance_outbox(
        &mut self,
        room: &mut Room,
        now: Timestamp,
        rng: &mut impl RngCore,
    ) {
        if room.record.phase != Phase::Member {
            return;
        }
        if room.record.name_due {
            self.queue_name(room, now);
        }
        let Some(address) = room.address().filter(|_| self.may_publish(room.id)) else {
            return;
        };
        // Nothing new is said while somebody could read it who must leave.
        let may_encrypt = !self.link.fetch.is_first() && !room.record.has_removals();
        if may_encrypt && room.flight.frames.iter().all(|frame| frame.stored) {
            self.encrypt_frame(room, rng);
        }
        if self.is_held(room.id, Sort::Frames, now) {
            return;
        }
        for frame in room.flight.frames.iter().filter(|frame| !frame.stored) {
            let publishing = Publishing::frame(room.id, frame);
            self.publish(publishing, address.messages(), None, &frame.payload);
        }
    }

    fn queue_name(&mut self, room: &mut Room, now: Timestamp) {
        let Some(name) = room.record.name.clone() else {
            return;
        };
        room.record.name_due = false;
        room.record.counter += 1;
        let body = wire::RoomState { name }.encode_to_vec();
        self.queue_entry(
            room.id,
            room.record.counter,
            wire::EntryKind::RoomState,
            body,
            now,
        );
        // It is taken along right here.
        self.touched.remove(&room.id);
    }

    fn encrypt_frame(&mut self, room: &mut Room, rng: &mut impl RngCore) {
        let said = self.next_entries(room);
        if said.is_none() && !self.has_repairs(room) {
            return;
        }
        let (entries, from, through) = said.unwrap_or((Vec::new(), 1, 0));
        let mut frame = wire::Frame {
            entries,
            counter: through.max(room.record.sent),
            ..wire::Frame::default()
        };
        let resent = self.add_repairs(room, &mut frame, rng);
        let mut content = frame.encode_to_vec();
        padding::pad(&mut content);
        let Self {
            provider, account, ..
        } = self;
        let epoch = room.epoch();
        match room.transact(provider, |group| group.encrypt(provider, account, &content)) {
            Some(Ok(payload)) => {
                let frame = FlyingFrame {
                    number: 0,
                    payload,
                    epoch,
                    from,
                    through,
                    resent,
                    stored: false,
                    sought: Sought::default(),
                };
                room.flight.push(provider.records(), room.id, frame);
            }
            Some(Err(error)) => {
                let reason = format!("nothing can be encrypted for this room: {error}");
                self.fail_waiting(room.id, &reason, |goal| matches!(goal, Goal::Sent(_)));
            }
            None => {}
        }
    }

    /// The first that waits and is not on its way, and what follows it without
    /// a gap, as much as fits into one frame; with its first and last counter.
    fn next_entries(&self, room: &Room) -> Option<(Vec<wire::Entry>, u64, u64)> {
        let records = self.provider.records();
        let flying = |counter: u64| {
            let mut frames = room.flight.frames.iter();
            frames.any(|frame| (frame.from..=frame.through).contains(&counter))
        };
        let mut entries = Vec::new();
        let mut length = 0;
        let mut range: Option<(u64, u64)> = None;
        records.find(outbox_of(room.id), |key, bytes| {
            let Key::Outbox(_, counter) = *key else {
                return None;
            };
            if flying(counter) {
                return None;
            }
            length += bytes.len() + ENTRY_OVERHEAD;
            let follows = range.is_none_or(|(_, through)| through + 1 == counter);
            if !follows || (length > self.link.pace.frame_bytes() && range.is_some()) {
                return Some(());
            }
            entries.extend(wire::Entry::decode(bytes));
            range = Some((range.map_or(counter, |(from, _)| from), counter));
            None
        });
        range.map(|(from, through)| (entries, from, through))
    }

    /// Whether all that waits is on its way and stored.
    pub(super) fn has_sent_all(&self, room: &Room) -> bool {
        let all_stored = room.flight.frames.iter().all(|frame| frame.stored);
        all_stored && self.next_entries(room).is_none() && !self.has_repairs(room)
    }

    /// An own frame has come back in the stream. Its entries, to be written to
    /// the history; `None` when it is not one of ours, or one that nobody can
    /// read any more.
    ///
    /// A frame that was encrypted before newcomers came in, and stored after,
    /// travels again for them; who has read it drops the second copy by its
    /// counters.
    pub(super) fn land_frame(&mut self, room: &mut Room, payload: &[u8]) -> Option<Landed> {
        let mut frames = room.flight.frames.iter();
        let index = frames.position(|frame| frame.payload == payload)?;
        let frame = room.flight.frames.remove(index);
        if frame.epoch + PAST_EPOCHS < room.epoch() {
            return None;
        }
        let again = frame.epoch < room.record.newcomers_epoch;
        let records = self.provider.records();
        let mut entries = Vec::new();
        for counter in frame.from..=frame.through {
            let key = Key::Outbox(room.id, counter);
            let bytes = records.get_bytes(&key);
            let entry = bytes.and_then(|bytes| wire::Entry::decode(&bytes[..]).ok());
            let late = counter < room.record.landed.highest();
            let landing = match (room.record.landed.insert(counter), late) {
                (false, _) => Reading::Again,
                (true, true) => Reading::Late,
                (true, false) => Reading::New,
            };
            entries.extend(entry.map(|entry| (entry, landing)));
            if !again {
                records.delete(key);
            }
        }
        for counter in &frame.resent {
            records.delete(Key::Resend(room.id, *counter));
        }
        let epoch = frame.epoch;
        self.sent(room, frame.through);
        Some(Landed { epoch, entries })
    }

    fn sent(&mut self, room: &mut Room, through: u64) {
        if through > room.record.sent {
            room.record.sent = through;
            self.event(Event::Sent {
                room: room.id,
                through,
            });
        }
    }

    /// Queues a message for an inbox or a blob subject.
    pub(super) fn post(&mut self, room: Option<RoomId>, subject: &Subject, payload: Vec<u8>) {
        let post = Post {
            room,
            subject: subject.to_string(),
            payload,
        };
        self.provider
            .records()
            .put(Key::Post(self.next_post), &post);
        self.next_post += 1;
    }

    /// Whether nothing waits to be posted for this room.
    pub(super) fn has_posted_all(&self, room: RoomId) -> bool {
        let records = self.provider.records();
        let mut posts = records.keys(Key::Post(0)..=Key::Post(u64::MAX)).into_iter();
        !posts.any(|key| {
            records
                .get::<Post>(&key)
                .ok()
                .flatten()
                .is_some_and(|p| p.room == Some(room))
        })
    }

    pub(super) fn advance_posts(&mut self) {
        if !self.link.online {
            return;
        }
        for key in self
            .provider
            .records()
            .keys(Key::Post(0)..=Key::Post(u64::MAX))
        {
            let Key::Post(number) = key else { continue };
            if self.is_publishing(&Publishing::Post(number)) {
                continue;
            }
            let post = self.provider.records().get::<Post>(&key).ok().flatten();
            let ready = post.and_then(|post| Some((post.subject.parse().ok()?, post)));
            let Some((subject, post)): Option<(Subject, Post)> = ready else {
                self.provider.records().delete(key);
                continue;
            };
            let held = |room| self.is_held(room, Sort::Posts, self.now);
            let may = matches!(subject, Subject::Inbox(_))
                || post.room.is_none_or(|room| self.may_publish(room));
            if may && !post.room.is_some_and(held) {
                self.publish(Publishing::Post(number), subject, None, &post.payload);
            }
        }
    }

    /// Publishes unless just that is outstanding.
    pub(super) fn publish(
        &mut self,
        publishing: Publishing,
        subject: Subject,
        expected_last_sequence: Option<u64>,
        payload: &[u8],
    ) {
        if self.is_publishing(&publishing) {
            return;
        }
        let message_id = message_id(&subject, payload);
        let id = PublishId(self.link.next_id());
        self.link.publishes.insert(id, publishing);
        self.effect(Output::Publish(Publish {
            id,
            subject,
            message_id,
            expected_last_sequence,
            payload: Bytes::copy_from_slice(payload),
        }));
    }

    fn is_publishing(&self, publishing: &Publishing) -> bool {
        self.link
            .publishes
            .values()
            .any(|outstanding| outstanding == publishing)
    }

    pub(super) fn may_publish(&self, room: RoomId) -> bool {
        self.link.online
            && self.link.granted.contains(&room)
            && !self.link.withheld.contains_key(&room)
    }

    pub(super) fn published(&mut self, id: PublishId) {
        match self.link.publishes.remove(&id) {
            Some(published @ Publishing::Frame { room, .. }) => {
                self.touched.insert(room);
                self.link.held.remove(&(room, Sort::Frames));
                let Some(mut room) = self.rooms.remove(&room) else {
                    return;
                };
                let mut frames = room.flight.frames.iter_mut();
                let stored = frames
                    .find(|frame| !frame.stored && Publishing::frame(room.id, frame) == published);
                let through = stored.map(|frame| {
                    frame.stored = true;
                    frame.through
                });
                self.sent(&mut room, through.unwrap_or(0));
                self.rooms.insert(room.id, room);
            }
            // It takes effect when it is seen in the stream, in order.
            Some(Publishing::Commit(room)) => {
                self.link.held.remove(&(room, Sort::Commit));
                self.link.landing.insert(room);
            }
            Some(Publishing::Post(number)) => {
                if let Some(room) = self.room_of_post(number) {
                    self.link.held.remove(&(room, Sort::Posts));
                    self.touched.insert(room);
                }
                self.provider.records().delete(Key::Post(number));
            }
            None => {}
        }
    }

    pub(super) fn publish_failed(&mut self, id: PublishId, failure: PublishFailure) {
        let Some(publishing) = self.link.publishes.remove(&id) else {
            return;
        };
        match failure {
            // Somebody else's commit was first, or ours was and its answer got
            // lost: the stream tells.
            PublishFailure::Conflict => {
                if let Publishing::Commit(room) = publishing {
                    self.link.lost_race.insert(room);
                    self.commit_conflicts(room);
                    self.is_behind(room);
                }
            }
            PublishFailure::Denied => self.refresh_grants(),
            PublishFailure::Refused(refusal) => {
                let (room, sort) = match publishing {
                    Publishing::Frame { room, .. } => (Some(room), Sort::Frames),
                    Publishing::Commit(room) => (Some(room), Sort::Commit),
                    Publishing::Post(number) => (self.room_of_post(number), Sort::Posts),
                };
                if let Some(room) = room {
                    self.hold(room, sort, refusal);
                }
            }
            // The next tick publishes it again under the same message id.
            PublishFailure::Lost => {}
        }
    }

    fn room_of_post(&self, number: u64) -> Option<RoomId> {
        let post = self.provider.records().get::<Post>(&Key::Post(number));
        post.ok().flatten()?.room
    }

    /// Leaves it alone for as long as the server says, or ever longer.
    fn hold(&mut self, room: RoomId, sort: Sort, refusal: Refusal) {
        let before = self.link.held.get(&(room, sort));
        let pause_ms = before.map_or(HOLD_MS, |hold| hold.pause_ms);
        let wait_ms = match &refusal {
            Refusal::TooFast { retry_after } => {
                i64::try_from(retry_after.as_millis()).unwrap_or(HOLD_MAX_MS)
            }
            _ => pause_ms,
        };
        let hold = Hold {
            since: self.now,
            until: Timestamp(self.now.0.saturating_add(wait_ms)),
            pause_ms: (2 * pause_ms).min(HOLD_MAX_MS),
            refusal: refusal.clone(),
        };
        if hold.lasts() {
            let reason = refusal.to_string();
            let waits_for_it = |goal: &Goal| match sort {
                Sort::Frames => matches!(goal, Goal::Sent(_)),
                Sort::Commit => matches!(goal, Goal::Invited(_) | Goal::Member),
                Sort::Posts => matches!(goal, Goal::Invited(_)),
            };
            self.end_waiting(room, &reason, None, Some(&refusal), waits_for_it);
        }
        self.link.held.insert((room, sort), hold);
        self.event(Event::Held { room, refusal });
    }

    /// A clock that was set back ends a pause: it must not become as long as
    /// the clock was wrong.
    pub(super) fn is_held(&self, room: RoomId, sort: Sort, now: Timestamp) -> bool {
        let hold = self.link.held.get(&(room, sort));
        hold.is_some_and(|hold| (hold.since..hold.until).contains(&now))
    }

    /// Whether the server refuses it until somebody makes room.
    pub(super) fn is_refused(&self, room: RoomId, sort: Sort) -> bool {
        let hold = self.link.held.get(&(room, sort));
        hold.is_some_and(Hold::lasts)
    }

    /// Why the server does not take something, if somebody must make room
    /// before it does.
    pub fn held_for_space(&self) -> Option<&Refusal> {
        let mut holds = self.link.held.values().filter(|hold| hold.lasts());
        holds.next().map(|hold| &hold.refusal)
    }
}
