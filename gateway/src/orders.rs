//! Telling rooms whom they are to remove.
//!
//! Whenever the directory takes somebody out of a room, a signed order goes to
//! the room's handshakes, and its members carry it out (docs/adr/0007). How far
//! that was done is remembered only once the rooms' streams have acknowledged
//! it, so that a gateway that is killed in between leaves the rest to the next
//! one. Every gateway tells every room: the message id makes one message of it,
//! and no room has to wait for a gateway that died.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, header};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use futures::{StreamExt, stream};
use prost::Message;
use sha2::{Digest, Sha256};
use sotto_jwt_accounts::directory::{Departure, Known, Scope, State};
use sotto_proto::limits;
use sotto_proto::signed::RemovalOrder;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::org::Org;
use crate::records::{OrdersRecord, VERSION};
use crate::refusal::Refusal;

/// In the bucket `tasks`.
const KEY: &str = "orders";
/// Rooms that are told at a time.
const AT_ONCE: usize = 256;
/// How long after a failure it is tried again: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Tells the rooms of an org, those left over first and then as the directory
/// changes, until the directory cannot be believed any more.
pub async fn follow(org: Arc<Org>, gateway: SigningKey, clock: Arc<dyn Clock>) {
    let mut known = org.directory().log().subscribe();
    let mut orders = Orders {
        jetstream: jetstream::new(org.client().clone()),
        org,
        gateway,
        clock,
        done: None,
        stored: BTreeSet::new(),
    };
    let mut wait = AGAIN.0;
    while let Some(state) = newest(&mut known) {
        match orders.catch_up(&state).await {
            Ok(()) => {
                wait = AGAIN.0;
                drop(state);
                if known.changed().await.is_err() {
                    return;
                }
            }
            // What failed is in the log already.
            Err(_) => {
                sleep(wait).await;
                wait = (wait * 2).min(AGAIN.1);
            }
        }
    }
}

fn newest(known: &mut watch::Receiver<Known>) -> Option<Arc<State>> {
    known.borrow_and_update().as_ref().ok().cloned()
}

/// How far one gateway is.
struct Orders {
    org: Arc<Org>,
    jetstream: Context,
    gateway: SigningKey,
    clock: Arc<dyn Clock>,
    /// Entries of the directory that are dealt with; `None`: not asked yet.
    done: Option<u64>,
    /// Ids of what is stored of the entries after those.
    stored: BTreeSet<String>,
}

/// One order, ready to be published.
struct Due {
    /// Known to nobody before the order is signed, so that no member can have
    /// the stream take the order for a duplicate; the same at every gateway.
    id: String,
    subject: String,
    notice: Bytes,
}

impl Orders {
    /// Has everything stored that follows from the directory until now.
    async fn catch_up(&mut self, state: &State) -> Result<(), Refusal> {
        let done = match self.done {
            Some(done) => done,
            None => self.read_done().await?,
        };
        let due = self.due(state, done);
        let length = state.head().length.max(done);
        if !due.is_empty() {
            self.tell_all(due).await?;
            self.write_done(length).await?;
        }
        self.stored.clear();
        self.done = Some(length);
        Ok(())
    }

    /// What no room was told yet. Who may be in the room again needs no order.
    fn due(&self, state: &State, done: u64) -> Vec<Due> {
        let kept_ms = i64::try_from(limits::REMOVAL_ORDER.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = self.clock.now_ms().saturating_sub(kept_ms);
        let departures = state.departures_since(done);
        let due = departures
            .filter(|departure| departure.at_ms >= oldest_ms && !is_back(state, departure))
            .map(|departure| self.order(departure));
        due.filter(|due| !self.stored.contains(&due.id)).collect()
    }

    fn order(&self, departure: &Departure) -> Due {
        let order = RemovalOrder {
            org: self.org.name().clone(),
            room: departure.room,
            user: departure.user.clone(),
            identity_key: departure.identity_key,
            device: departure.device,
            at_ms: departure.at_ms,
        };
        let notice = order.notice(&self.gateway).encode_to_vec();
        Due {
            id: HEXLOWER.encode(&Sha256::digest(&notice)),
            subject: departure.address.handshakes().to_string(),
            notice: notice.into(),
        }
    }

    /// Remembers which are stored, also when some are not.
    async fn tell_all(&mut self, due: Vec<Due>) -> Result<(), Refusal> {
        let telling = due.into_iter().map(|due| self.tell(due));
        let told: Vec<_> = stream::iter(telling)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut outcome = Ok(());
        for told in told {
            match told {
                Ok(id) => drop(self.stored.insert(id)),
                Err(refusal) => outcome = Err(refusal),
            }
        }
        outcome
    }

    /// Returns its id when it is durable.
    async fn tell(&self, due: Due) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, due.id.as_str());
        let published = self
            .jetstream
            .publish_with_headers(due.subject, headers, due.notice);
        let acknowledged = published.await.map_err(Refusal::unavailable)?;
        acknowledged.await.map_err(Refusal::unavailable)?;
        Ok(due.id)
    }

    async fn read_done(&self) -> Result<u64, Refusal> {
        let record: Option<OrdersRecord> = self.org.buckets().tasks.get(KEY).await?;
        Ok(record.unwrap_or_default().done)
    }

    /// Another gateway may be further.
    async fn write_done(&self, done: u64) -> Result<(), Refusal> {
        let decide = |known: Option<OrdersRecord>| {
            let behind = known.is_none_or(|known| known.done < done);
            let version = VERSION;
            Ok((behind.then_some(OrdersRecord { version, done }), ()))
        };
        self.org.buckets().tasks.change(KEY, decide).await
    }
}

/// Whether the user whom an order would name was let in again meanwhile.
fn is_back(state: &State, departure: &Departure) -> bool {
    let same = state
        .user(&departure.user)
        .is_some_and(|user| user.identity_key == Some(departure.identity_key));
    let role = state.granted_role(&departure.user, &Scope::Room(departure.room));
    departure.device.is_none() && same && role.is_some()
}
