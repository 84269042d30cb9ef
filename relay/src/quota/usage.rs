//! What an org and its rooms have stored: what the streams said last, and what
//! this relay has stored since.
//!
//! Streams say how many messages a room has, and not how many bytes. So a
//! relay counts the bytes of what it stores itself; what others stored, or was
//! there before, counts with the mean size in its stream, and what is gone
//! takes its share along.

use std::collections::BTreeMap;
use std::time::Duration;

use sotto_proto::{RoomAddress, RoomId, Subject};
use tokio::time::Instant;

/// After this long a room is counted again.
const RECOUNT: Duration = Duration::from_secs(60);
/// A room into which nothing was stored for so long is forgotten.
const IDLE: Duration = Duration::from_secs(900);
/// Rooms that are kept at most; those beyond are not limited.
const ROOMS: usize = 100_000;

/// Messages and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub messages: u64,
    /// How long in all.
    pub bytes: u64,
}

/// What streams keep, as they said it.
#[derive(Debug)]
pub enum Counted {
    /// Of the whole org.
    Org(Count),
    /// Of one room.
    Room {
        /// Which.
        room: RoomId,
        /// Messages and handshakes.
        mail: Tally,
        /// Chunks of files.
        blobs: Tally,
    },
}

/// How many messages of a room a stream keeps.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// How many.
    pub messages: u64,
    /// The mean length in the stream.
    pub mean: u64,
}

/// The org and those of its rooms that are in use.
#[derive(Debug, Default)]
pub struct Usage {
    org: Count,
    /// What was taken in and is not stored yet.
    flying: Count,
    rooms: BTreeMap<RoomId, RoomUsage>,
}

#[derive(Debug)]
struct RoomUsage {
    mail: Count,
    blobs: Count,
    /// See [`Usage`].
    flying: Count,
    /// When it was asked for last.
    asked: Option<Instant>,
    used: Instant,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn and(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// This many messages, of which these were known.
    fn reconciled(self, tally: Tally) -> Self {
        let messages = tally.messages;
        let bytes = match messages.checked_sub(self.messages) {
            Some(unseen) => self.bytes.saturating_add(unseen.saturating_mul(tally.mean)),
            None => {
                let share = u128::from(self.bytes) * u128::from(messages);
                let share = share / u128::from(self.messages.max(1));
                u64::try_from(share).unwrap_or(u64::MAX)
            }
        };
        Self { messages, bytes }
    }
}

impl Usage {
    /// What the org has stored or is about to.
    pub fn org(&self) -> Count {
        self.org.and(self.flying)
    }

    /// What a room has stored or is about to, as far as it is known.
    pub fn room(&self, room: RoomId) -> Count {
        let usage = self.rooms.get(&room);
        usage.map_or(Count::default(), |usage| {
            usage.mail.and(usage.blobs).and(usage.flying)
        })
    }

    /// Adds what is about to be stored.
    pub fn departed(&mut self, subject: &Subject, bytes: u64) {
        self.flying.add(bytes);
        if let Some(usage) = self.of_room(subject) {
            usage.flying.add(bytes);
        }
    }

    /// Takes that back: it was stored, or was not.
    pub fn arrived(&mut self, subject: &Subject, bytes: u64) {
        self.flying.take(bytes);
        if let Some(usage) = self.of_room(subject) {
            usage.flying.take(bytes);
        }
    }

    fn of_room(&mut self, subject: &Subject) -> Option<&mut RoomUsage> {
        self.rooms.get_mut(&room_of(subject)?.room)
    }

    /// Notes that a room is used; whether it is to be counted now.
    pub fn touch(&mut self, room: RoomId, now: Instant) -> bool {
        if self.rooms.len() >= ROOMS && !self.rooms.contains_key(&room) {
            return false;
        }
        let usage = self.rooms.entry(room).or_insert_with(|| RoomUsage {
            mail: Count::default(),
            blobs: Count::default(),
            flying: Count::default(),
            asked: None,
            used: now,
        });
        usage.used = now;
        let due = usage.asked.is_none_or(|asked| now >= asked + RECOUNT);
        if due {
            usage.asked = Some(now);
        }
        due
    }

    /// Adds what was stored.
    pub fn stored(&mut self, subject: &Subject, bytes: u64) {
        self.org.add(bytes);
        if let Some(usage) = self.of_room(subject) {
            match subject {
                Subject::Blob { .. } => usage.blobs.add(bytes),
                _ => usage.mail.add(bytes),
            }
        }
    }

    /// Takes in what streams say.
    pub fn counted(&mut self, counted: Counted) {
        match counted {
            Counted::Org(count) => self.org = count,
            Counted::Room { room, mail, blobs } => {
                if let Some(usage) = self.rooms.get_mut(&room) {
                    usage.mail = usage.mail.reconciled(mail);
                    usage.blobs = usage.blobs.reconciled(blobs);
                }
            }
        }
    }

    /// Forgets rooms that are not in use.
    pub fn sweep(&mut self, now: Instant) {
        self.rooms.retain(|_, usage| now < usage.used + IDLE);
    }
}

/// The room that it is stored for.
pub fn room_of(subject: &Subject) -> Option<&RoomAddress> {
    match subject {
        Subject::Messages(address)
        | Subject::Handshakes(address)
        | Subject::Blob { address, .. } => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sotto_proto::Shard;

    use super::*;

    fn room() -> RoomAddress {
        RoomAddress {
            shard: Shard(0),
            project: "field".parse().unwrap(),
            room: RoomId::try_from(&[3; 16][..]).unwrap(),
        }
    }

    #[test]
    fn what_was_not_seen_counts_with_the_mean() {
        let mut usage = Usage::default();
        let now = Instant::now();
        assert!(usage.touch(room().room, now), "it is not counted yet");
        assert!(!usage.touch(room().room, now));
        usage.stored(&room().messages(), 700);
        let counted = |messages| Counted::Room {
            room: room().room,
            mail: Tally {
                messages,
                mean: 100,
            },
            blobs: Tally::default(),
        };
        let of = |messages, bytes| Count { messages, bytes };
        usage.counted(counted(11));
        assert_eq!(usage.room(room().room), of(11, 1_700));
        // The janitor was there.
        usage.counted(counted(1));
        assert_eq!(usage.room(room().room), of(1, 154));
        assert!(usage.touch(room().room, now + RECOUNT));
        usage.sweep(now + RECOUNT + IDLE);
        assert_eq!(usage.room(room().room), Count::default());
    }

    proptest! {
        #[test]
        fn no_count_overflows(bytes: u64, known: u64, messages: u64, mean: u64) {
            let count = Count { messages: known, bytes };
            let tally = Tally { messages, mean };
            prop_assert_eq!(count.reconciled(tally).messages, messages);
        }
    }
}
