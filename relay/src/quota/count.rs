//! Asks streams what they keep, in a task of its own: what is taken in waits
//! for no count.

use std::time::Duration;

use async_nats::jetstream::{self, stream::State};
use futures::TryStreamExt;
use sotto_proto::{INBOX_STREAM, RoomAddress, Shard, blob_stream, mail_stream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::usage::{Count, Counted, Tally};

/// How often the whole org is counted.
const INTERVAL: Duration = Duration::from_secs(5);
/// Rooms that wait to be counted at most; who is beyond waits for its turn.
pub const ROOMS: usize = 1_024;

/// Counts one org.
pub struct Counter {
    jetstream: jetstream::Context,
    shards: u8,
    rooms: mpsc::Receiver<RoomAddress>,
    counted: mpsc::Sender<Counted>,
}

impl Counter {
    /// Counts the org every so often, and rooms when they are asked for.
    pub fn new(
        jetstream: jetstream::Context,
        shards: u8,
        rooms: mpsc::Receiver<RoomAddress>,
        counted: mpsc::Sender<Counted>,
    ) -> Self {
        Self {
            jetstream,
            shards,
            rooms,
            counted,
        }
    }

    /// Counts until nobody listens.
    pub async fn run(mut self) {
        let mut due = interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let counted = tokio::select! {
                _ = due.tick() => self.org().await.map(Counted::Org),
                Some(room) = self.rooms.recv() => self.room(&room).await,
            };
            // What no stream says now, it says later.
            let Some(counted) = counted else { continue };
            if self.counted.send(counted).await.is_err() {
                return;
            }
        }
    }

    /// What all streams of rooms and inboxes keep.
    async fn org(&self) -> Option<Count> {
        let shards = (0..self.shards).map(Shard);
        let of_rooms = shards.flat_map(|shard| [mail_stream(shard), blob_stream(shard)]);
        let mut sum = Count::default();
        for name in of_rooms.chain([INBOX_STREAM.to_owned()]) {
            let State {
                messages, bytes, ..
            } = self.state(&name).await?;
            sum.messages = sum.messages.saturating_add(messages);
            sum.bytes = sum.bytes.saturating_add(bytes);
        }
        Some(sum)
    }

    async fn room(&self, address: &RoomAddress) -> Option<Counted> {
        let (mail, blobs) = (mail_stream(address.shard), blob_stream(address.shard));
        Some(Counted::Room {
            room: address.room,
            mail: self.tally(mail, format!("r.{address}.*")).await?,
            blobs: self.tally(blobs, format!("blob.{address}.>")).await?,
        })
    }

    async fn tally(&self, stream: String, subjects: String) -> Option<Tally> {
        let stream = self.jetstream.get_stream(stream).await.ok()?;
        let state = &stream.cached_info().state;
        let mean = state.bytes.checked_div(state.messages).unwrap_or_default();
        let subjects = stream.info_with_subjects(subjects).await.ok()?;
        let sum = async |sum: u64, (_, count): (String, usize)| {
            Ok(sum.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)))
        };
        let messages = subjects.try_fold(0, sum).await.ok()?;
        Some(Tally { messages, mean })
    }

    async fn state(&self, stream: &str) -> Option<State> {
        let stream = self.jetstream.get_stream(stream).await.ok()?;
        Some(stream.cached_info().state.clone())
    }
}
