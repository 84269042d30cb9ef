//! A file that one room has, for another: the relay reads its chunks there and
//! submits them here, so that who may use both rooms uploads it once.
//!
//! Nothing is copied without two permits: to read the room that has it, and to
//! post in the one that is to get it. That a device submits to a room at all
//! shows that it has proven what posting there demands; what reading demands it
//! cannot show here, so that nothing is copied out of a room that demands
//! factors. What is copied counts like what is submitted. docs/adr/0016 says
//! why.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;
use sotto_jwt_accounts::directory::{DirectoryLog, LogError, State};
use sotto_jwt_accounts::policy::{self, Asking, Permit, Post, Proven, Read};
use sotto_proto::refusals::{PublishAnswer, Refusal};
use sotto_proto::wire::CopyRequest;
use sotto_proto::{DeviceId, FileId, RoomAddress, RoomId, blob_stream, limits};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::submission::{Checked, MESSAGE_ID};
use crate::clock::now_ms;
use crate::fetch::Reader;
use crate::metrics::Metrics;

/// Copies at a time, each of another device.
const ACTIVE: usize = 4;
/// Chunks of one copy that are read or wait for their acknowledgement.
const AHEAD: usize = 4;
/// Chunks that wait to be taken in.
pub const CHUNKS: usize = 4;

/// What a device asks for.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub device: DeviceId,
    /// Where the answer goes.
    pub reply: String,
    /// The room that is to get the chunks.
    pub to: RoomAddress,
    /// Of which file.
    pub file: FileId,
    /// [`CopyRequest`], encoded.
    pub request: Bytes,
}

/// A chunk that was read, to be taken in as if its device had sent it.
#[derive(Debug)]
pub struct Copied {
    /// Who asked.
    pub device: DeviceId,
    /// The chunk.
    pub chunk: Checked,
    /// Told what became of it.
    pub answer: oneshot::Sender<PublishAnswer>,
}

/// The copies of one org that are under way.
pub struct Copies {
    copier: Arc<Copier>,
    running: JoinSet<DeviceId>,
    /// Whose.
    devices: BTreeSet<DeviceId>,
}

struct Copier {
    devices: Client,
    reader: Reader,
    directory: Arc<DirectoryLog>,
    chunks: mpsc::Sender<Copied>,
    metrics: Arc<Metrics>,
}

impl Copies {
    /// Reads through `org`, answers through `devices`, and has `chunks` taken
    /// in.
    pub fn new(
        devices: Client,
        org: Client,
        directory: Arc<DirectoryLog>,
        chunks: mpsc::Sender<Copied>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let copier = Copier {
            devices,
            reader: Reader::new(org),
            directory,
            chunks,
            metrics,
        };
        Self {
            copier: Arc::new(copier),
            running: JoinSet::new(),
            devices: BTreeSet::new(),
        }
    }

    /// Begins a copy, which answers by itself.
    ///
    /// # Errors
    /// When too much is under way; then it does not answer.
    pub fn begin(&mut self, asked: Asked) -> Result<(), Refusal> {
        self.forget_ended();
        if self.running.len() >= ACTIVE || !self.devices.insert(asked.device) {
            return Err(Refusal::Busy);
        }
        let copier = Arc::clone(&self.copier);
        self.running.spawn(async move {
            copier.serve(&asked).await;
            asked.device
        });
        Ok(())
    }

    /// Whether none is under way.
    pub fn is_idle(&mut self) -> bool {
        self.forget_ended();
        self.running.is_empty()
    }

    fn forget_ended(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            // A panic names no device: forget them all rather than keep one out.
            match ended {
                Ok(device) => drop(self.devices.remove(&device)),
                Err(_) => self.devices.clear(),
            }
        }
    }
}

impl Copier {
    async fn serve(&self, asked: &Asked) {
        let answer = match self.copy(asked).await {
            Ok(sequence) => PublishAnswer::Stored {
                sequence,
                duplicate: false,
            },
            Err(refusal) => {
                self.metrics.refused(&refusal);
                PublishAnswer::Refused(refusal)
            }
        };
        let json = answer.to_json(&blob_stream(asked.to.shard));
        // When this fails the connection is gone, and the device asks again.
        let _ = self.devices.publish(asked.reply.clone(), json.into()).await;
    }

    /// Copies all that is asked for; the sequence of the last chunk.
    async fn copy(&self, asked: &Asked) -> Result<u64, Refusal> {
        let plan = self.plan(asked).await?;
        let copies = plan.chunks.clone().map(|index| self.chunk(&plan, index));
        let copies = stream::iter(copies).buffered(AHEAD);
        let last = copies.try_fold(
            0,
            |last: u64, sequence| async move { Ok(last.max(sequence)) },
        );
        last.await
    }

    /// Before anything is refused, the directory is read to its end: it may
    /// just have been granted.
    async fn plan(&self, asked: &Asked) -> Result<Plan, Refusal> {
        let known = self.directory.state().map_err(unavailable)?;
        match Plan::of(asked, &known, now_ms()) {
            Some(plan) => Ok(plan),
            None => {
                let known = self.directory.refresh().await.map_err(unavailable)?;
                Plan::of(asked, &known, now_ms()).ok_or(Refusal::NothingToCopy)
            }
        }
    }

    async fn chunk(&self, plan: &Plan, index: u32) -> Result<u64, Refusal> {
        let payload = self.read(&plan.from, plan.file, index).await?;
        let (answer, answered) = oneshot::channel();
        let copied = Copied {
            device: plan.device,
            chunk: Checked {
                subject: plan.to.blob(plan.file, index),
                headers: plan.headers(index),
                payload: payload.clone(),
            },
            answer,
        };
        // The service has ended: what is not answered is asked for again.
        self.chunks.send(copied).await.map_err(|_| Refusal::Busy)?;
        match answered.await.map_err(|_| Refusal::Busy)? {
            PublishAnswer::Stored {
                sequence,
                duplicate: true,
            } => {
                // Somebody who knows the file may have put another one there.
                let there = self.read(&plan.to, plan.file, index).await?;
                let same = there == payload;
                same.then_some(sequence).ok_or(Refusal::NothingToCopy)
            }
            PublishAnswer::Stored { sequence, .. } => Ok(sequence),
            PublishAnswer::Refused(refusal) => Err(refusal),
        }
    }

    async fn read(&self, room: &RoomAddress, file: FileId, index: u32) -> Result<Bytes, Refusal> {
        let (stream, chunk) = (blob_stream(room.shard), room.blob(file, index));
        let read = self.reader.last(&stream, &chunk).await.map_err(|error| {
            sotto_log::warn!(error, "a chunk cannot be copied");
            Refusal::Busy
        })?;
        Ok(read.ok_or(Refusal::NothingToCopy)?.payload)
    }
}

fn unavailable(error: LogError) -> Refusal {
    sotto_log::error!(error, "the directory cannot be used");
    Refusal::Busy
}

/// What is copied, by who may do that.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    device: DeviceId,
    from: RoomAddress,
    to: RoomAddress,
    file: FileId,
    chunks: Range<u32>,
    read: Permit<Read>,
    post: Permit<Post>,
}

impl Plan {
    /// `None` when it is no request, or the device may not do that in this
    /// state of the directory.
    fn of(asked: &Asked, state: &State, now_ms: i64) -> Option<Self> {
        let request = CopyRequest::decode(asked.request.clone()).ok()?;
        let chunks = request.first..request.first.checked_add(request.count)?;
        if request.count > limits::COPY_CHUNKS || chunks.is_empty() {
            return None;
        }
        let from = RoomId::try_from(&request.from).ok()?;
        let user = &state.device(asked.device)?.certificate.user;
        let asking = |proven| Asking {
            user,
            proven,
            now_ms,
        };
        let (nothing, everything) = (Proven::none(), Proven::all(now_ms));
        let read = policy::check(state, asking(&nothing), Read, &from).ok()?;
        let to = asked.to.room;
        let post = policy::check(state, asking(&everything), Post, &to).ok()?;
        // What the subject says of the room is what the directory says.
        if state.room(to)?.address != asked.to {
            return None;
        }
        Some(Self {
            device: asked.device,
            from: state.room(from)?.address.clone(),
            to: asked.to.clone(),
            file: asked.file,
            chunks,
            read,
            post,
        })
    }

    /// Asked for twice, a chunk is stored once. No device can have used this
    /// id before to keep the chunk out: theirs have no blanks.
    fn headers(&self, index: u32) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let id = format!("copy {} {}.{index}", self.to.room, self.file);
        headers.insert(MESSAGE_ID, id);
        headers
    }
}
