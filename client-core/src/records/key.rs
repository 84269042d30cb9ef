//! The logical names of records: which there are, what each is of, and how a
//! name is written down before the vault hides it.

use std::ops::RangeInclusive;

use sotto_proto::{FileId, RoomId, UserName};

/// First byte of the stored name of state, which is read when opening.
pub(super) const STATE: u8 = b'S';
/// First byte of the stored name of history, which is read when asked for.
pub(super) const HISTORY: u8 = b'H';

/// Numbered records of which the disk shows that they belong together: they are
/// mostly written together, and a tree of pages pays for each page.
const NEIGHBOURS: u64 = 16;

/// The logical name of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// `u32`: [`super::FORMAT`].
    Format,
    /// [`crate::account::Account`].
    Account,
    /// `u64`: sequence of the last inbox message that was taken in.
    InboxCursor,
    /// `u64`: the first entry of the directory's log of which it was not said
    /// that whoever runs the server stepped in.
    InterventionsSeen,
    /// The identity key first seen for a user, 32 bytes.
    Contact(UserName),
    /// [`crate::room::RoomRecord`].
    Room(RoomId),
    /// [`crate::room::PendingCommit`].
    Commit(RoomId),
    /// [`crate::room::Flight`].
    Flight(RoomId),
    /// The payload of a frame of it, by the frame's number.
    Frame(RoomId, u64),
    /// An entry (protobuf) that waits to be sent, by counter; runs of them are
    /// on the disk (see [`super::runs`]).
    Outbox(RoomId, u64),
    /// A message for an inbox or a blob subject that waits to be sent.
    Post(u64),
    /// An invitation (protobuf) whose ratchet tree is still to be fetched.
    Invitation(RoomId),
    /// [`crate::engine::UploadProgress`].
    Upload(FileId),
    /// A file that this device has sent lately, by its SHA-256.
    SentFile([u8; 32]),
    /// A value of openmls; of a room when that can be told from its key.
    Mls(Option<RoomId>, Vec<u8>),
    /// Some [`crate::history::StoredRecord`], one after the other (see
    /// [`super::runs`]), by the position of the first.
    History(RoomId, u64),
    /// Some [`crate::history::Said`], one after the other (see [`super::runs`]),
    /// by the own counter of the first.
    Said(RoomId, u64),
    /// [`crate::history::Said`] of an entry that travelled again, by own counter:
    /// it counts in place of the first.
    SaidAgain(RoomId, u64),
    /// [`crate::commits::PastCommits`].
    PastCommits(RoomId),
    /// [`crate::resend::EpochKeys`].
    EpochKeys(RoomId),
    /// [`crate::resend::Resend`], by own counter.
    Resend(RoomId, u64),
    /// [`crate::room::EarlyMessage`], by its sequence.
    Early(RoomId, u64),
}

impl Key {
    pub(super) fn room(&self) -> Option<&RoomId> {
        match self {
            Self::Room(room)
            | Self::Commit(room)
            | Self::Flight(room)
            | Self::Frame(room, _)
            | Self::Outbox(room, _)
            | Self::Invitation(room)
            | Self::Mls(Some(room), _)
            | Self::History(room, _)
            | Self::Said(room, _)
            | Self::SaidAgain(room, _)
            | Self::PastCommits(room)
            | Self::EpochKeys(room)
            | Self::Resend(room, _)
            | Self::Early(room, _) => Some(room),
            _ => None,
        }
    }

    pub(super) fn table(&self) -> u8 {
        if matches!(
            self,
            Self::History(..) | Self::Said(..) | Self::SaidAgain(..)
        ) {
            HISTORY
        } else {
            STATE
        }
    }

    /// The number of a record that is on the disk in runs, and what makes the
    /// key of another number of the same series.
    pub(super) fn in_series(&self) -> Option<(u64, impl Fn(u64) -> Self + use<>)> {
        let (series, room, number): (fn(RoomId, u64) -> Self, _, _) = match self {
            Self::History(room, position) => (Self::History, *room, *position),
            Self::Said(room, counter) => (Self::Said, *room, *counter),
            Self::Outbox(room, counter) => (Self::Outbox, *room, *counter),
            _ => return None,
        };
        Some((number, move |number| series(room, number)))
    }

    /// The key of the next number, if it is a neighbour of this one.
    pub(super) fn next_neighbour(&self) -> Option<Self> {
        let (number, of_number) = self.in_series()?;
        let next = number.checked_add(1)?;
        (next % NEIGHBOURS != 0).then(|| of_number(next))
    }

    /// All that may be in one run with this one.
    pub(super) fn neighbours(&self) -> RangeInclusive<Self> {
        match self.in_series() {
            Some((number, of_number)) => {
                let first = number - number % NEIGHBOURS;
                of_number(first)..=of_number(first.saturating_add(NEIGHBOURS - 1))
            }
            None => self.clone()..=self.clone(),
        }
    }

    /// One tag byte, the parts, of which the last takes the rest, and the place
    /// among [`NEIGHBOURS`] (see [`crate::vault::Vault::name`]).
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, parts, number): (u8, [&[u8]; 2], Option<u64>) = match self {
            Self::Format => (0, [b"", b""], None),
            Self::Account => (1, [b"", b""], None),
            Self::InboxCursor => (2, [b"", b""], None),
            Self::InterventionsSeen => (32, [b"", b""], None),
            Self::Contact(user) => (3, [b"", user.as_str().as_bytes()], None),
            Self::Room(room) => (4, [room.as_bytes(), b""], None),
            Self::Commit(room) => (5, [room.as_bytes(), b""], None),
            Self::Flight(room) => (6, [room.as_bytes(), b""], None),
            Self::Frame(room, number) => (20, [room.as_bytes(), b""], Some(*number)),
            Self::Outbox(room, counter) => (7, [room.as_bytes(), b""], Some(*counter)),
            Self::Post(id) => (8, [b"", b""], Some(*id)),
            Self::Invitation(room) => (9, [room.as_bytes(), b""], None),
            Self::Upload(file) => (10, [file.as_bytes(), b""], None),
            Self::SentFile(sha256) => (19, [b"", sha256], None),
            Self::Mls(Some(room), key) => (11, [room.as_bytes(), key], None),
            Self::Mls(None, key) => (12, [b"", key], None),
            Self::History(room, position) => (13, [room.as_bytes(), b""], Some(*position)),
            Self::Said(room, counter) => (14, [room.as_bytes(), b""], Some(*counter)),
            Self::SaidAgain(room, counter) => (21, [room.as_bytes(), b""], Some(*counter)),
            Self::PastCommits(room) => (15, [room.as_bytes(), b""], None),
            Self::EpochKeys(room) => (16, [room.as_bytes(), b""], None),
            Self::Resend(room, counter) => (17, [room.as_bytes(), b""], Some(*counter)),
            Self::Early(room, sequence) => (18, [room.as_bytes(), b""], Some(*sequence)),
        };
        let mut key = [&[tag][..], parts[0], parts[1]].concat();
        if let Some(number) = number {
            key.extend((number / NEIGHBOURS).to_be_bytes());
        }
        let place = number.map_or(0, |number| number % NEIGHBOURS);
        // It is below `NEIGHBOURS`, and fits.
        key.extend(u8::try_from(place));
        key
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (&place, rest) = rest.split_last()?;
        let room_and_rest = || {
            let (room, rest) = rest.split_at_checked(16)?;
            Some((RoomId::try_from(room).ok()?, rest))
        };
        let number = |bytes: &[u8]| {
            let group = u64::from_be_bytes(bytes.try_into().ok()?);
            let place = Some(u64::from(place)).filter(|place| *place < NEIGHBOURS)?;
            group.checked_mul(NEIGHBOURS)?.checked_add(place)
        };
        Some(match tag {
            0 => Self::Format,
            1 => Self::Account,
            2 => Self::InboxCursor,
            32 => Self::InterventionsSeen,
            3 => Self::Contact(std::str::from_utf8(rest).ok()?.parse().ok()?),
            4 => Self::Room(room_and_rest()?.0),
            5 => Self::Commit(room_and_rest()?.0),
            6 => Self::Flight(room_and_rest()?.0),
            7 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Outbox(room, number(rest)?)))?
            }
            8 => Self::Post(number(rest)?),
            9 => Self::Invitation(room_and_rest()?.0),
            10 => Self::Upload(FileId::try_from(rest).ok()?),
            11 => room_and_rest().map(|(room, rest)| Self::Mls(Some(room), rest.to_vec()))?,
            12 => Self::Mls(None, rest.to_vec()),
            13 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::History(room, number(rest)?)))?
            }
            14 => room_and_rest().and_then(|(room, rest)| Some(Self::Said(room, number(rest)?)))?,
            15 => Self::PastCommits(room_and_rest()?.0),
            16 => Self::EpochKeys(room_and_rest()?.0),
            17 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Resend(room, number(rest)?)))?
            }
            18 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Early(room, number(rest)?)))?
            }
            19 => Self::SentFile(rest.try_into().ok()?),
            20 => {
                room_and_rest().and_then(|(room, rest)| Some(Self::Frame(room, number(rest)?)))?
            }
            21 => room_and_rest()
                .and_then(|(room, rest)| Some(Self::SaidAgain(room, number(rest)?)))?,
            _ => return None,
        })
    }
}

/// The range of a room's outbox.
pub(crate) fn outbox_of(room: RoomId) -> RangeInclusive<Key> {
    Key::Outbox(room, 0)..=Key::Outbox(room, u64::MAX)
}

/// The range of the frames of a room that are under way.
pub(crate) fn frames_of(room: RoomId) -> RangeInclusive<Key> {
    Key::Frame(room, 0)..=Key::Frame(room, u64::MAX)
}

/// The range of what a room's device says again.
pub(crate) fn resends_of(room: RoomId) -> RangeInclusive<Key> {
    Key::Resend(room, 0)..=Key::Resend(room, u64::MAX)
}

/// The range of what a room's device keeps until it reaches its epoch.
pub(crate) fn early_of(room: RoomId) -> RangeInclusive<Key> {
    Key::Early(room, 0)..=Key::Early(room, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn keys_survive_encoding() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let room = RoomId::random(&mut rng);
        for key in [
            Key::Format,
            Key::Account,
            Key::InboxCursor,
            Key::InterventionsSeen,
            Key::Contact("alice".parse().unwrap()),
            Key::Room(room),
            Key::Commit(room),
            Key::Flight(room),
            Key::Frame(room, 17),
            Key::Outbox(room, 7),
            Key::Post(1),
            Key::Invitation(room),
            Key::Upload(FileId::random(&mut rng)),
            Key::SentFile([7; 32]),
            Key::Mls(Some(room), vec![1, 2]),
            Key::Mls(None, vec![]),
            Key::History(room, u64::MAX),
            Key::Said(room, 3),
            Key::SaidAgain(room, 3),
            Key::PastCommits(room),
            Key::EpochKeys(room),
            Key::Resend(room, 4),
            Key::Early(room, 5),
        ] {
            assert_eq!(Key::decode(&key.encode()), Some(key));
        }
    }
}
