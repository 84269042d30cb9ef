//! What was said in a room, in the order of its stream, the same on every
//! device that was there.

use prost::Message;
use serde::{Deserialize, Serialize};
use sotto_proto::{DeviceId, UserName, wire};

use crate::io::Timestamp;

/// One entry of a room, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRecord {
    /// Its place in this device's history of the room, from 0.
    pub position: u64,
    /// Its message's sequence in the stream.
    pub sequence: u64,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// When its sender says that it was written.
    pub sent_at: Timestamp,
    /// Who said it.
    pub user: UserName,
    /// On which device.
    pub device: DeviceId,
    /// Its number among what that device said in this room, from 1.
    pub counter: u64,
    /// What was said.
    pub content: Content,
    /// It came after what its sender said later.
    pub late: bool,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A file to fetch.
    File(wire::File),
    /// The room's name was set.
    RoomState(wire::RoomState),
    /// Of a kind that this version does not know: "needs a newer version".
    Unknown {
        /// The kind's number.
        kind: u32,
    },
    /// Nobody said it: what this device has noticed.
    Note(Note),
}

/// What a device notices of a room's stream. It is about the device that the
/// record names as the one that said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// Entries that were said and are not here. They are asked for; what comes
    /// after all stands further down, as late.
    Missing {
        /// The first counter.
        from: u64,
        /// The last.
        through: u64,
    },
    /// Others have read something else under the same number.
    Contradicted {
        /// The counter.
        counter: u64,
    },
    /// The server has lost the end of the room's stream, and what this device
    /// had read there.
    Rewound {
        /// The last sequence that is left.
        last_sequence: u64,
    },
}

/// A record as it is stored, format 2: the entry's bytes as they came, so that
/// a newer version can show what this one cannot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredRecord {
    pub(crate) sequence: u64,
    pub(crate) stored_at_ms: i64,
    pub(crate) user: UserName,
    pub(crate) device: DeviceId,
    /// `Entry`, encoded.
    #[serde(with = "serde_bytes")]
    pub(crate) entry: Vec<u8>,
    pub(crate) late: bool,
    /// Then the entry is empty.
    pub(crate) note: Option<Note>,
}

/// An own entry, to be found when it is to be said again, format 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The epoch of the newest frame that carried it.
    pub(crate) epoch: u64,
    pub(crate) place: Place,
}

/// See [`Said`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In the history, at this position.
    At(u64),
    /// It is not shown: `Entry`, encoded.
    Hidden(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl StoredRecord {
    /// `None` when the stored bytes are no entry.
    pub(crate) fn read(self, position: u64) -> Option<HistoryRecord> {
        let entry = wire::Entry::decode(self.entry.as_slice()).ok()?;
        Some(HistoryRecord {
            position,
            sequence: self.sequence,
            stored_at: Timestamp(self.stored_at_ms),
            sent_at: Timestamp(entry.sent_at_ms),
            user: self.user,
            device: self.device,
            counter: entry.counter,
            content: match self.note {
                Some(note) => Content::Note(note),
                None => Content::of(&entry),
            },
            late: self.late,
        })
    }
}

impl Content {
    pub(crate) fn of(entry: &wire::Entry) -> Self {
        let body = entry.body.clone();
        let known = match wire::EntryKind::try_from(u32_as_i32(entry.kind)) {
            Ok(wire::EntryKind::Text) => wire::Text::decode(body)
                .ok()
                .map(|text| Self::Text(text.text)),
            Ok(wire::EntryKind::File) => wire::File::decode(body).ok().map(Self::File),
            Ok(wire::EntryKind::RoomState) => {
                wire::RoomState::decode(body).ok().map(Self::RoomState)
            }
            Ok(wire::EntryKind::Unspecified) | Err(_) => None,
        };
        known.unwrap_or(Self::Unknown { kind: entry.kind })
    }
}

/// prost's enums are `i32`; what does not fit is no kind we know.
fn u32_as_i32(kind: u32) -> i32 {
    i32::try_from(kind).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_future_is_kept_and_named() {
        let entry = wire::Entry {
            counter: 1,
            sent_at_ms: 2,
            kind: 77,
            body: vec![1, 2, 3].into(),
        };
        let stored = StoredRecord {
            sequence: 5,
            stored_at_ms: 6,
            user: "alice".parse().unwrap(),
            device: DeviceId::try_from(&[1u8; 16][..]).unwrap(),
            entry: entry.encode_to_vec(),
            late: false,
            note: None,
        };
        let stored: StoredRecord =
            crate::records::decode(&crate::records::encode(&stored)).unwrap();
        assert_eq!(wire::Entry::decode(stored.entry.as_slice()).unwrap(), entry);
        assert_eq!(
            stored.read(0).unwrap().content,
            Content::Unknown { kind: 77 }
        );
    }
}
