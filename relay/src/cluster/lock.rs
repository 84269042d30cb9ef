//! A lock that one relay of a cluster has at a time, kept in a stream of the
//! cluster's own: every change is a compare-and-set.
//!
//! Who has it says so again and again. From one who has not for [`LEASE`] it is
//! taken, as whoever wants it has seen by itself: nobody's clock is compared
//! with another's, and no crash leaves a lock behind for ever.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{CreateStreamError, GetStreamError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RawMessageError, StorageType, Stream,
};
use async_nats::jetstream::{self, Context};
use serde::{Deserialize, Serialize};
use sotto_proto::{LOCK_STREAM, LOCK_STREAM_SUBJECTS, NATS_SERVER_LOCK};
use sotto_service::cluster::NodeName;
use sotto_service::replicas::{self, CopiesError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// After so long without a word its lock is taken from a relay.
const LEASE: Duration = Duration::from_secs(60);
/// How often who has it says so.
const RENEWAL: Duration = Duration::from_secs(10);
/// Pause before it is said again that was not heard.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest entry, in bytes.
const ENTRY_MAX: i32 = 1_024;

/// The lock as one relay sees it.
pub struct Lock {
    context: Context,
    stream: Stream<()>,
    own: Holder,
    silent: Silence,
}

/// Which entry of somebody else is the last, and since when.
#[derive(Debug, Default)]
struct Silence(Option<(u64, Instant)>);

impl Silence {
    /// Whether nothing else came for as long as a lock lasts.
    fn is(&mut self, entry: u64, now: Instant) -> bool {
        let seen = self.0.filter(|(seen, _)| *seen == entry);
        let (_, since) = *self.0.insert(seen.unwrap_or((entry, now)));
        now.duration_since(since) >= LEASE
    }
}

/// Who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    node: NodeName,
    /// One of the node's relays: it may have a successor.
    run: u64,
}

/// What came of taking it.
pub enum Attempt {
    /// It is ours.
    Taken(Held),
    /// This node has it.
    Of(NodeName),
    /// Others were faster.
    Lost,
}

/// The lock while it is ours. When this is dropped, it runs out.
pub struct Held {
    release: CancellationToken,
    keeping: JoinSet<()>,
}

/// Why it is not known who has the lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The stream is not there and cannot be made.
    #[error(transparent)]
    Create(#[from] CreateStreamError),
    /// It cannot be found.
    #[error(transparent)]
    Stream(#[from] GetStreamError),
    /// It is not kept on enough nodes.
    #[error(transparent)]
    Copies(#[from] CopiesError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] RawMessageError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] jetstream::context::PublishError),
}

sotto_log::log_safe!(LockError);

impl Lock {
    /// Opens it, through a relay's connection to the account in which it is
    /// kept; its stream is made so that there are this many copies.
    ///
    /// # Errors
    /// [`LockError`].
    pub async fn open(client: Client, node: NodeName, copies: usize) -> Result<Self, LockError> {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(TIMEOUT);
        match replicas::copies(&client, LOCK_STREAM).await? {
            Some(now) if now.wanted < copies => {
                replicas::keep_on(&client, LOCK_STREAM, copies).await?;
            }
            Some(_) => {}
            None => drop(context.create_stream(config(copies)).await?),
        }
        Ok(Self {
            stream: context.get_stream_no_info(LOCK_STREAM).await?,
            context,
            own: Holder {
                node,
                run: rand::random(),
            },
            silent: Silence::default(),
        })
    }

    /// Takes it, unless another node has it and goes on to say so.
    ///
    /// # Errors
    /// When it is not known whether it is ours.
    pub async fn take(&mut self) -> Result<Attempt, LockError> {
        let (last, holder) = self.last().await?;
        // One of this node's own relays is gone, or hands over to this one.
        if let Some(other) = holder.filter(|holder| holder.node != self.own.node) {
            if !self.silent.is(last, Instant::now()) {
                return Ok(Attempt::Of(other.node));
            }
            sotto_log::warn!(
                node = other.node,
                "the lock of a relay that is silent is taken"
            );
        }
        match self.write(Some(&self.own), last).await {
            Ok(entry) => Ok(Attempt::Taken(self.held(entry))),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Attempt::Lost),
            Err(error) => Err(error.into()),
        }
    }

    fn held(&self, entry: u64) -> Held {
        let lock = Self {
            context: self.context.clone(),
            stream: self.stream.clone(),
            own: self.own.clone(),
            silent: Silence::default(),
        };
        let release = CancellationToken::new();
        let mut keeping = JoinSet::new();
        keeping.spawn(lock.keep(entry, release.clone()));
        Held { release, keeping }
    }

    /// Says that it is ours until `release`, and then that it is nobody's.
    async fn keep(self, mut entry: u64, release: CancellationToken) {
        loop {
            let released = release.run_until_cancelled(sleep(RENEWAL)).await.is_none();
            let holder = (!released).then_some(&self.own);
            loop {
                match self.write(holder, entry).await {
                    Ok(_) if released => return,
                    Ok(written) => {
                        entry = written;
                        break;
                    }
                    Err(error) => sotto_log::debug!(error, "a lock is not kept yet"),
                }
                // What was written may have been stored without an answer.
                match self.last().await {
                    Ok((last, Some(holder))) if holder == self.own => entry = last,
                    Ok((_, None)) if released => return,
                    Ok(_) => {
                        sotto_log::warn!("the lock of this relay was taken from it");
                        return;
                    }
                    Err(error) => sotto_log::debug!(error, "it is not known whose a lock is"),
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// The last entry, and whose the lock is by it. The leader is asked: a copy
    /// may be some moments behind.
    async fn last(&self) -> Result<(u64, Option<Holder>), RawMessageError> {
        let last = self
            .stream
            .get_last_raw_message_by_subject(NATS_SERVER_LOCK);
        match last.await {
            // What does not read is nobody's.
            Ok(last) => Ok((last.sequence, serde_json::from_slice(&last.payload).ok())),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((0, None)),
            Err(error) => Err(error),
        }
    }

    async fn write(
        &self,
        holder: Option<&Holder>,
        last: u64,
    ) -> Result<u64, jetstream::context::PublishError> {
        // A name and a number do serialise.
        let entry = serde_json::to_vec(&holder).unwrap_or_default();
        let entry = PublishMessage::build()
            .payload(entry.into())
            .expected_last_subject_sequence(last);
        let written = self.context.send_publish(NATS_SERVER_LOCK, entry).await?;
        Ok(written.await?.sequence)
    }
}

impl Held {
    /// Lets others have it.
    pub async fn release(mut self) {
        self.release.cancel();
        // Otherwise it runs out.
        let _ = timeout(TIMEOUT, self.keeping.join_next()).await;
    }
}

fn config(copies: usize) -> Config {
    Config {
        name: LOCK_STREAM.to_owned(),
        subjects: vec![LOCK_STREAM_SUBJECTS.to_owned()],
        storage: StorageType::File,
        num_replicas: copies,
        max_messages_per_subject: 1,
        max_message_size: ENTRY_MAX,
        discard: DiscardPolicy::Old,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_only_from_who_was_silent_for_all_of_its_time() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        assert!(!silence.is(7, begin));
        assert!(!silence.is(7, begin + LEASE - PAUSE));
        assert!(!silence.is(8, begin + LEASE), "it said so again");
        assert!(!silence.is(8, begin + LEASE * 2 - PAUSE));
        assert!(silence.is(8, begin + LEASE * 2));
    }
}
