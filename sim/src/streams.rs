//! The relay's streams: what was stored, in which order, and who hears of it.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use sotto_client_core::io::{LiveMessage, Publish, PublishFailure, Timestamp};
use sotto_proto::wire::{self, FetchFrame, FetchRequest, StoredKind, StoredMessage};
use sotto_proto::{DeviceId, FileId, RoomId, Subject};

/// Messages in one part of an answer: small, so that answers have many parts.
const PER_FRAME: usize = 7;

/// One stream each for mail, inboxes and blobs.
#[derive(Default)]
pub struct Streams {
    mail: Vec<LiveMessage>,
    inbox: Vec<LiveMessage>,
    blobs: BTreeMap<(RoomId, FileId, u32), Bytes>,
    last_on_subject: BTreeMap<String, u64>,
    message_ids: HashSet<String>,
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
        let name = publish.subject.to_string();
        let last = self.last_on_subject.get(&name).copied().unwrap_or(0);
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
        let sequence = stream.len() as u64 + 1;
        let message = LiveMessage {
            subject: publish.subject.clone(),
            sequence,
            last_sequence: last,
            stored_at: now,
            payload: publish.payload.clone(),
        };
        stream.push(message.clone());
        self.last_on_subject.insert(name, sequence);
        Ok((sequence, Some(message)))
    }

    /// Forgets the message ids, as the duplicate window does after two minutes.
    pub fn forget_message_ids(&mut self) {
        self.message_ids.clear();
    }

    /// How many messages are on a room's subjects.
    pub fn messages(&self) -> usize {
        self.mail.len()
    }

    /// Everything on rooms' and inboxes' subjects.
    pub fn stored(&self) -> impl Iterator<Item = (Subject, Bytes)> + '_ {
        let all = self.mail.iter().chain(&self.inbox);
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
        let inbox_after = request.inbox_after.unwrap_or(u64::MAX);
        let inbox = self
            .inbox
            .iter()
            .filter(|message| message.sequence > inbox_after);
        let own = inbox.filter(|message| message.subject == Subject::Inbox(device));
        messages.extend(own.map(|message| stored(StoredKind::Inbox, None, message)));
        for cursor in &request.rooms {
            let Ok(room) = RoomId::try_from(&cursor.room) else {
                continue;
            };
            if !may_read(room) {
                continue;
            }
            messages.extend(
                self.mail
                    .iter()
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
        frames(messages)
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

fn frames(messages: Vec<StoredMessage>) -> Vec<FetchFrame> {
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
    }
    frames
}
