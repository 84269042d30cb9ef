//! Beacons in, presence out, and the janitor's rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message as _;
use sotto_jwt_accounts::directory::{DirectoryLog, State};
use sotto_proto::wire::{Beacon, Presence};
use sotto_proto::{DeviceId, RoomId, Shard, Subject, limits, mail_stream};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::confirmed::{Confirmed, Deletable};
use super::presence::{self, Told};
use crate::clock::now_ms;
use crate::fetch::Reader;
use crate::intake::ConnectionClosed;
use crate::metrics::Metrics;
use crate::quota::{Bucket, Buckets};

const SUBJECTS: &str = "beacon.*";
/// Every relay hears every beacon; one of the group tells rooms about it.
const TELLERS: &str = "relay";
/// How often the janitor looks.
const ROUND: Duration = Duration::from_secs(10);
/// Repairs of one beacon that are counted.
const SAID_AGAIN: u32 = 4_096;
/// Rooms that it cleans in a round at most.
const ROOMS: usize = 256;
/// Beacons of one device that are read at once, and how long it takes until as
/// many more are: a device says one in ten seconds at most, and when it comes
/// and goes.
const BEACONS: u64 = 8;
const BEACONS_FILL_IN: Duration = Duration::from_secs(40);

/// Hears the devices of one org, and keeps its rooms clean.
pub struct BeaconService {
    devices: Client,
    jetstream: jetstream::Context,
    reader: Reader,
    directory: Arc<DirectoryLog>,
    beacons: Subscriber,
    to_tell: Subscriber,
    may_be_heard: Buckets,
    may_be_told: Buckets,
    shards: u8,
    told: Told,
    confirmed: Confirmed,
    /// What each stream said last of itself: when it was made, and its last
    /// sequence.
    streams: BTreeMap<String, (i128, u64)>,
    metrics: Arc<Metrics>,
}

impl BeaconService {
    /// Beacons that arrive from now on will be heard by [`Self::run`].
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn start(
        devices: Client,
        org: Client,
        directory: Arc<DirectoryLog>,
        shards: u8,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectionClosed> {
        let closed = |_| ConnectionClosed;
        let beacons = devices.subscribe(SUBJECTS).await.map_err(closed)?;
        let to_tell = devices.queue_subscribe(SUBJECTS, TELLERS.to_owned());
        let to_tell = to_tell.await.map_err(closed)?;
        devices.flush().await.map_err(|_| ConnectionClosed)?;
        Ok(Self {
            devices,
            jetstream: jetstream::new(org.clone()),
            reader: Reader::new(org),
            directory,
            beacons,
            to_tell,
            may_be_heard: Buckets::new(Bucket::new(BEACONS, BEACONS_FILL_IN)),
            may_be_told: Buckets::new(Bucket::new(BEACONS, BEACONS_FILL_IN)),
            shards,
            told: Told::default(),
            confirmed: Confirmed::default(),
            streams: BTreeMap::new(),
            metrics,
        })
    }

    /// Hears until `retire`. What a device has said by then and nobody was told
    /// it says again.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn run(mut self, retire: CancellationToken) -> Result<(), ConnectionClosed> {
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = retire.cancelled() => return Ok(()),
                beacon = self.beacons.next() => match beacon {
                    Some(beacon) => self.heard(&beacon),
                    None => return Err(ConnectionClosed),
                },
                beacon = self.to_tell.next() => match beacon {
                    Some(beacon) => self.tell(&beacon).await,
                    None => return Err(ConnectionClosed),
                },
                _ = round.tick() => self.clean().await,
            }
        }
    }

    /// Notes how far a device has come in the rooms that are its user's.
    fn heard(&mut self, message: &Message) {
        let Some((device, beacon)) = read(message, &mut self.may_be_heard, Instant::now()) else {
            return;
        };
        self.metrics.beacon();
        let Ok(state) = self.directory.state() else {
            return;
        };
        let rooms = rooms_of(&state, device);
        for cursor in &beacon.cursors {
            if let Ok(room) = RoomId::try_from(&cursor.room)
                && rooms.contains(&room)
            {
                self.confirmed.heard(device, room, cursor.messages_after);
            }
        }
    }

    /// Tells the rooms of a device's user that it is there, or leaves.
    async fn tell(&mut self, message: &Message) {
        let Some((device, beacon)) = read(message, &mut self.may_be_told, Instant::now()) else {
            return;
        };
        let said_again = beacon.said_again.min(SAID_AGAIN);
        self.metrics.said_again(said_again);
        if !self.told.now(device, beacon.leaving, Instant::now()) {
            return;
        }
        let Ok(state) = self.directory.state() else {
            return;
        };
        let presence = Presence {
            device: device.to_bytes(),
            here: !beacon.leaving,
            at_ms: now_ms(),
        };
        let presence: Bytes = presence.encode_to_vec().into();
        for room in presence::rooms(&state, device) {
            // What cannot be told is told with the next beacon.
            let _ = self.devices.publish(room.live(), presence.clone()).await;
        }
    }

    /// Deletes what every device of a room has.
    async fn clean(&mut self) {
        let now = Instant::now();
        self.told.sweep(now);
        self.may_be_heard.sweep(now);
        self.may_be_told.sweep(now);
        if !self.streams_are_the_same().await {
            sotto_log::warn!("a stream is not the one it was: devices are asked for anew");
            self.metrics.rewound();
            self.confirmed.clear();
        }
        let Ok(state) = self.directory.state() else {
            return;
        };
        for deletable in self.confirmed.deletable(&state, ROOMS) {
            match self.delete(&deletable).await {
                Some(Done::Deleted) => self.confirmed.deleted(&deletable),
                Some(Done::Rewound) => self.confirmed.forget(deletable.address.room),
                // Another time.
                None => {}
            }
        }
    }

    async fn delete(&self, deletable: &Deletable) -> Option<Done> {
        let name = mail_stream(deletable.address.shard);
        let subject = Subject::Messages(deletable.address.clone());
        let last = self.reader.last(&name, &subject).await.ok()?;
        let Some(last) = last else {
            // All of it has run out, and nothing is left to delete.
            return Some(Done::Deleted);
        };
        if last.sequence < deletable.furthest {
            // Somebody has what the stream has not: it lost something, or
            // somebody says too much. Then nobody's word is good enough.
            self.metrics.rewound();
            return Some(Done::Rewound);
        }
        let stream = self.jetstream.get_stream(&name).await.ok()?;
        let purge = stream.purge().filter(subject.to_string());
        let purged = purge.sequence(deletable.before).await.ok()?;
        self.metrics.deleted(purged.purged);
        Some(Done::Deleted)
    }

    /// Whether no stream was made anew or is shorter than it was: a node may
    /// have lost its disk.
    async fn streams_are_the_same(&mut self) -> bool {
        let mut same = true;
        for name in (0..self.shards).map(|shard| mail_stream(Shard(shard))) {
            let Ok(stream) = self.jetstream.get_stream(&name).await else {
                continue;
            };
            let info = stream.cached_info();
            let created = info.created.unix_timestamp_nanos();
            let now = (created, info.state.last_sequence);
            if let Some((created_before, last_before)) = self.streams.insert(name, now) {
                same &= created == created_before && now.1 >= last_before;
            }
        }
        same
    }
}

/// What came of a deletion.
enum Done {
    Deleted,
    Rewound,
}

/// What a device says, unless it is no beacon, or it says too many.
fn read(message: &Message, may: &mut Buckets, now: Instant) -> Option<(DeviceId, Beacon)> {
    let Ok(Subject::Beacon(device)) = message.subject.parse() else {
        return None;
    };
    if message.payload.len() > limits::BEACON || may.wait(device, 1, now).is_some() {
        return None;
    }
    may.draw(device, 1, now);
    let beacon = Beacon::decode(message.payload.clone()).ok()?;
    (beacon.cursors.len() <= limits::FETCH_ROOMS).then_some((device, beacon))
}

fn rooms_of(state: &State, device: DeviceId) -> BTreeSet<RoomId> {
    let user = state.device_user(device);
    let rooms = user.map(|user| state.rooms_of(user)).unwrap_or_default();
    rooms.into_iter().map(|room| room.address.room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_says_too_much_is_not_read() {
        let device = DeviceId::try_from(&[1; 16][..]).unwrap();
        let message = Message {
            subject: Subject::Beacon(device).to_string().into(),
            reply: None,
            payload: Beacon::default().encode_to_vec().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let mut may = Buckets::new(Bucket::new(BEACONS, BEACONS_FILL_IN));
        let now = Instant::now();
        for _ in 0..BEACONS {
            assert!(read(&message, &mut may, now).is_some());
        }
        assert!(read(&message, &mut may, now).is_none());
        assert!(read(&message, &mut may, now + BEACONS_FILL_IN).is_some());
    }
}
