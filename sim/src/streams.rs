//! The relay's streams: what was stored, in which order, and who hears of it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use bytes::Bytes;
use sotto_client_core::io::{LiveMessage, Publish, PublishFailure, Timestamp};
use sotto_proto::wire::{self, FetchFrame, FetchRequest, StoredKind, StoredMessage};
use sotto_proto::{DeviceId, FileId, RoomId, Subject};

/// Messages in one part of an answer: small, so that answers have many parts.
const PER_FRAME: usize = 7;

/// One stream each for mail, inboxes and blobs.
#[derive(Default)]
pub struct Streams {
    mail: Stream,
    inbox: Stream,
    blobs: BTreeMap<(RoomId, FileId, u32), Bytes>,
    message_ids: HashSet<String>,
}

/// One stream, in the order of its sequences.
#[derive(Default)]
struct Stream {
    messages: BTreeMap<u64, LiveMessage>,
    last: u64,
}

impl Stream {
    fn last_on(&self, subject: &Subject) -> u64 {
        let mut newest = self.messages.iter().rev();
        let found = newest.find(|(_, message)| message.subject == *subject);
        found.map_or(0, |(sequence, _)| *sequence)
    }

    fn store(&mut self, subject: Subject, payload: Bytes, now: Timestamp) -> LiveMessage {
        let last_sequence = self.last_on(&subject);
        self.last += 1;
        let message = LiveMessage {
            subject,
            sequence: self.last,
            last_sequence,
            stored_at: now,
            payload,
        };
        self.messages.insert(self.last, message.clone());
        message
    }

    fn after(&self, sequence: u64) -> impl Iterator<Item = &LiveMessage> {
        let after = (Bound::Excluded(sequence), Bound::Unbounded);
        self.messages.range(after).map(|(_, message)| message)
    }
}

/// What a server does that has lost data, or lies.
impl Streams {
    /// Sequences of what is on rooms' subjects.
    pub fn sequences(&self) -> Vec<u64> {
        self.mail.messages.keys().copied().collect()
    }

    /// A message on a room's subject.
    pub fn message(&self, sequence: u64) -> Option<LiveMessage> {
        self.mail.messages.get(&sequence).cloned()
    }

    /// Whether a message is one of MLS' handshakes.
    pub fn is_handshake(&self, sequence: u64) -> bool {
        let message = self.mail.messages.get(&sequence);
        message.is_some_and(|message| matches!(message.subject, Subject::Handshakes(_)))
    }

    /// Loses one message.
    pub fn lose(&mut self, sequence: u64) {
        self.mail.messages.remove(&sequence);
    }

    /// Goes back to where only so many sequences were given out, and gives the
    /// others out again.
    pub fn rewind(&mut self, last: u64) {
        self.mail.messages.retain(|sequence, _| *sequence <= last);
        self.mail.last = self.mail.last.min(last);
        // Message ids are read from the stream again.
        self.message_ids.clear();
    }

    /// Exchanges what two messages of one subject say.
    pub fn swap(&mut self, one: u64, other: u64) {
        let payload = |sequence: u64| {
            let message = self.mail.messages.get(&sequence)?;
            Some((message.subject.clone(), message.payload.clone()))
        };
        let (Some((one_subject, first)), Some((other_subject, second))) =
            (payload(one), payload(other))
        else {
            return;
        };
        if one_subject != other_subject {
            return;
        }
        for (sequence, payload) in [(one, second), (other, first)] {
            if let Some(message) = self.mail.messages.get_mut(&sequence) {
                message.payload = payload;
            }
        }
    }

    pub(crate) fn replay(&mut self, sequence: u64, now: Timestamp) -> Option<LiveMessage> {
        let message = self.mail.messages.get(&sequence)?.clone();
        Some(self.mail.store(message.subject, message.payload, now))
    }
}

impl Streams {
    /// Stores a publish; what is republished comes with its sequence, `None`
    /// for a duplicate.
    ///
    /// # Errors
    /// [`PublishFailure::Conflict`], checked before the duplicate window as
    /// nats-server does.
    pub fn store(
        &mut self,
        publish: &Publish,
        now: Timestamp,
    ) -> Result<(u64, Option<LiveMessage>), PublishFailure> {
        let last = self.mail.last_on(&publish.subject);
        if publish
            .expected_last_sequence
            .is_some_and(|expected| expected != last)
        {
            return Err(PublishFailure::Conflict);
        }
        if !self.message_ids.insert(publish.message_id.clone()) {
            return Ok((last, None));
        }
        if let Subject::Blob {
            address,
            file,
            index,
        } = &publish.subject
        {
            self.blobs
                .insert((address.room, *file, *index), publish.payload.clone());
            return Ok((self.blobs.len() as u64, None));
        }
        let stream = if matches!(publish.subject, Subject::Inbox(_)) {
            &mut self.inbox
        } else {
            &mut self.mail
        };
        let message = stream.store(publish.subject.clone(), publish.payload.clone(), now);
        Ok((message.sequence, Some(message)))
    }

    /// Forgets the message ids, as the duplicate window does after two minutes.
    pub fn forget_message_ids(&mut self) {
        self.message_ids.clear();
    }

    /// How many messages are on a room's subjects.
    pub fn messages(&self) -> usize {
        self.mail.messages.len()
    }

    /// Everything on rooms' and inboxes' subjects.
    pub fn stored(&self) -> impl Iterator<Item = (Subject, Bytes)> + '_ {
        let all = self.mail.messages.values();
        let all = all.chain(self.inbox.messages.values());
        all.map(|message| (message.subject.clone(), message.payload.clone()))
    }

    /// How many chunks are kept.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// The answer to a catch-up request.
    pub fn fetch(
        &self,
        device: DeviceId,
        request: &FetchRequest,
        may_read: impl Fn(RoomId) -> bool,
    ) -> Vec<FetchFrame> {
        let mut messages = Vec::new();
        let mut rewound = Vec::new();
        let inbox_after = request.inbox_after.unwrap_or(u64::MAX);
        let inbox = self.inbox.after(inbox_after);
        let own = inbox.filter(|message| message.subject == Subject::Inbox(device));
        messages.extend(own.map(|message| stored(StoredKind::Inbox, None, message)));
        for cursor in &request.rooms {
            let Ok(room) = RoomId::try_from(&cursor.room) else {
                continue;
            };
            if !may_read(room) {
                continue;
            }
            if cursor.messages_after.max(cursor.handshakes_after) > self.mail.last {
                rewound.push(wire::StreamEnd {
                    room: room.to_bytes(),
                    last_sequence: self.mail.last,
                });
            }
            messages.extend(
                self.mail
                    .after(0)
                    .filter_map(|message| match &message.subject {
                        Subject::Messages(a)
                            if a.room == room && message.sequence > cursor.messages_after =>
                        {
                            Some(stored(StoredKind::Message, Some(room), message))
                        }
                        Subject::Handshakes(a)
                            if a.room == room && message.sequence > cursor.handshakes_after =>
                        {
                            Some(stored(StoredKind::Handshake, Some(room), message))
                        }
                        _ => None,
                    }),
            );
        }
        for range in &request.blobs {
            let ids = (RoomId::try_from(&range.room), FileId::try_from(&range.file));
            let (Ok(room), Ok(file)) = ids else { continue };
            for index in (range.first..range.first + range.count).filter(|_| may_read(room)) {
                let Some(payload) = self.blobs.get(&(room, file, index)) else {
                    continue;
                };
                messages.push(StoredMessage {
                    kind: StoredKind::Blob.into(),
                    room: room.to_bytes(),
                    payload: payload.clone(),
                    file: file.to_bytes(),
                    index,
                    ..StoredMessage::default()
                });
            }
        }
        let all = messages.len();
        let mut left = request.max_bytes as usize;
        let first = messages.first().map(|message| message.payload.len());
        left = left.max(first.unwrap_or_default());
        let fits = messages.iter().take_while(|message| {
            let fits = left >= message.payload.len();
            left = left.saturating_sub(message.payload.len());
            fits
        });
        messages.truncate(fits.count());
        let more = messages.len() < all;
        frames(messages, rewound, more)
    }
}

fn stored(kind: StoredKind, room: Option<RoomId>, message: &LiveMessage) -> StoredMessage {
    StoredMessage {
        kind: kind.into(),
        room: room.map(RoomId::to_bytes).unwrap_or_default(),
        sequence: message.sequence,
        stored_at_ms: message.stored_at.0,
        payload: message.payload.clone(),
        ..StoredMessage::default()
    }
}

fn frames(
    messages: Vec<StoredMessage>,
    rewound: Vec<wire::StreamEnd>,
    more: bool,
) -> Vec<FetchFrame> {
    let mut frames: Vec<FetchFrame> = messages
        .chunks(PER_FRAME)
        .map(|part| wire::FetchFrame {
            messages: part.to_vec(),
            ..FetchFrame::default()
        })
        .collect();
    if frames.is_empty() {
        frames.push(FetchFrame::default());
    }
    for (part, frame) in (0..).zip(&mut frames) {
        frame.part = part;
    }
    if let Some(last) = frames.last_mut() {
        last.last = true;
        last.more = more;
        last.rewound = rewound;
    }
    frames
}
