//! One request and its answer: reads what the plan says, in its order, and
//! sends the frames as they fill.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_nats::Client;
use futures::{StreamExt, stream};
use prost::Message as _;
use sotto_proto::wire::{FetchFrame, FetchRefusal, StoredKind, StoredMessage};
use sotto_proto::{DeviceId, INBOX_STREAM, Shard, Subject, blob_stream, mail_stream};

use super::answer::{Answer, PAYLOAD_MAX, Pushed};
use super::direct_get::{ReadError, Reader};
use super::merge::{Lane, Merge, Stored};
use super::plan::{ChunkPlan, Plan, RoomPlan};

/// Rooms, or chunks, whose first reads are under way at once.
const READ_AHEAD: usize = 4;

/// The connection did not take a frame.
#[derive(Debug, thiserror::Error)]
#[error("the frame cannot be published")]
pub struct SendError;

sotto_log::log_safe!(SendError);

/// Publishes one frame and waits until it has left this process, so that a
/// request never holds more than one.
///
/// # Errors
/// [`SendError`].
pub async fn send(client: &Client, reply: &str, frame: &FetchFrame) -> Result<(), SendError> {
    let published = client.publish(reply.to_owned(), frame.encode_to_vec().into());
    published.await.map_err(|_| SendError)?;
    client.flush().await.map_err(|_| SendError)
}

/// A request that is being answered.
pub struct Exchange<'a> {
    client: &'a Client,
    reader: &'a Reader,
    device: DeviceId,
    reply: &'a str,
    answer: Answer,
}

/// Why the answer ends where it is.
enum End {
    /// The limit is reached.
    Full,
    Read(ReadError),
    Send(SendError),
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl<'a> Exchange<'a> {
    /// Of a device that asked to be answered at `reply`.
    pub fn new(
        client: &'a Client,
        reader: &'a Reader,
        device: DeviceId,
        reply: &'a str,
        plan: &Plan,
    ) -> Self {
        Self {
            client,
            reader,
            device,
            reply,
            answer: Answer::new(plan.max_bytes, &plan.refused_rooms),
        }
    }

    /// Answers to the end. What was sent is good even when reading fails: the
    /// last frame says that there is more.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn run(mut self, plan: Plan) -> Result<(), SendError> {
        let more_chunks = plan.more_chunks;
        let (more, refusal) = match self.read(plan).await {
            Ok(()) => (more_chunks, FetchRefusal::None),
            Err(End::Full) => (true, FetchRefusal::None),
            Err(End::Read(error)) => {
                sotto_log::warn!(device = self.device, error, "a catch-up answer ends early");
                (true, FetchRefusal::Unavailable)
            }
            Err(End::Send(error)) => return Err(error),
        };
        send(self.client, self.reply, &self.answer.finish(more, refusal)).await
    }

    async fn read(&mut self, plan: Plan) -> Result<(), End> {
        if let Some(after) = plan.inbox_after {
            self.read_inbox(after).await?;
        }
        self.read_rooms(plan.rooms).await?;
        self.read_chunks(plan.chunks).await?;
        if let Some(asked) = plan.stored {
            self.answer.stored(self.reader.stored(&asked).await?);
        }
        Ok(())
    }

    async fn read_inbox(&mut self, mut after: u64) -> Result<(), End> {
        let subject = Subject::Inbox(self.device);
        loop {
            let page = self.reader.page(INBOX_STREAM, &subject, after).await?;
            for stored in page.messages {
                after = stored.sequence;
                let inbox = message(StoredKind::Inbox, stored);
                self.push(inbox).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn read_rooms(&mut self, rooms: Vec<RoomPlan>) -> Result<(), End> {
        // Up to where both subjects of a room are known to hold everything.
        let mut until: BTreeMap<Shard, u64> = BTreeMap::new();
        for room in &rooms {
            let shard = room.address.shard;
            if let Entry::Vacant(unknown) = until.entry(shard) {
                unknown.insert(self.reader.last_sequence(&mail_stream(shard)).await?);
            }
        }
        for room in &rooms {
            let last = until.get(&room.address.shard).copied().unwrap_or_default();
            if room.messages_after.max(room.handshakes_after) > last {
                self.answer.rewound(room.address.room, last);
            }
        }
        let reader = self.reader;
        let begun = rooms.into_iter().map(|room| {
            let until = until.get(&room.address.shard).copied();
            let (messages, handshakes) = (room.messages_after, room.handshakes_after);
            let mut merge = Merge::new(messages, handshakes, until.unwrap_or_default());
            async move {
                read_pages(reader, &room, &mut merge).await?;
                Ok::<_, ReadError>((room, merge))
            }
        });
        let mut begun = stream::iter(begun).buffered(READ_AHEAD);
        while let Some(begun) = begun.next().await {
            let (room, merge) = begun?;
            self.read_room(&room, merge).await?;
        }
        Ok(())
    }

    async fn read_room(&mut self, room: &RoomPlan, mut merge: Merge) -> Result<(), End> {
        loop {
            read_pages(self.reader, room, &mut merge).await?;
            let Some((lane, stored)) = merge.pop() else {
                return Ok(());
            };
            let kind = match lane {
                Lane::Messages => StoredKind::Message,
                Lane::Handshakes => StoredKind::Handshake,
            };
            let message = StoredMessage {
                room: room.permit.object().to_bytes(),
                ..message(kind, stored)
            };
            self.push(message).await?;
        }
    }

    /// Chunks that are not there are left out.
    async fn read_chunks(&mut self, chunks: Vec<ChunkPlan>) -> Result<(), End> {
        let reader = self.reader;
        let found = chunks.into_iter().map(|chunk| async move {
            let stream = blob_stream(chunk.address.shard);
            let subject = chunk.address.blob(chunk.file, chunk.index);
            Ok::<_, ReadError>((chunk, reader.last(&stream, &subject).await?))
        });
        let mut found = stream::iter(found).buffered(READ_AHEAD);
        while let Some(found) = found.next().await {
            let (chunk, Some(stored)) = found? else {
                continue;
            };
            let blob = StoredMessage {
                room: chunk.permit.object().to_bytes(),
                file: chunk.file.to_bytes(),
                index: chunk.index,
                ..message(StoredKind::Blob, stored)
            };
            self.push(blob).await?;
        }
        Ok(())
    }

    async fn push(&mut self, message: StoredMessage) -> Result<(), End> {
        if message.payload.len() > PAYLOAD_MAX {
            // The streams take none; one frame too long would cost the connection.
            sotto_log::warn!(
                sequence = message.sequence,
                "left out a message that is too long"
            );
            return Ok(());
        }
        match self.answer.push(message) {
            Pushed::Kept => Ok(()),
            Pushed::Full => Err(End::Full),
            Pushed::Frame(frame) => {
                let sent = send(self.client, self.reply, &frame).await;
                sent.map_err(End::Send)
            }
        }
    }
}

/// Reads until the merge can go on.
async fn read_pages(reader: &Reader, room: &RoomPlan, merge: &mut Merge) -> Result<(), ReadError> {
    while let Some((lane, after)) = merge.wanted() {
        let subject = match lane {
            Lane::Messages => room.address.messages(),
            Lane::Handshakes => room.address.handshakes(),
        };
        let stream = mail_stream(room.address.shard);
        merge.handle_page(lane, reader.page(&stream, &subject, after).await?);
    }
    Ok(())
}

fn message(kind: StoredKind, stored: Stored) -> StoredMessage {
    StoredMessage {
        kind: kind.into(),
        sequence: stored.sequence,
        stored_at_ms: stored.stored_at_ms,
        payload: stored.payload,
        ..StoredMessage::default()
    }
}
