//! One connection to NATS, made with one JWT: publishes with acknowledgement,
//! catch-up requests and live subscriptions.
//!
//! A connection never comes back by itself. When it breaks, everything
//! outstanding fails and [`Connection::closed`] returns; whoever wants another
//! opens one, with a JWT that is still good. (async-nats would reconnect with
//! the old one, every two milliseconds once it has expired.) Dropping the last
//! handle lets what is outstanding finish, then closes.

mod actor;
mod answers;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectErrorKind, ConnectOptions, Event};
use bytes::Bytes;
use futures::stream::SelectAll;
use sotto_client_core::io::{LiveMessage, PublishFailure};
use sotto_client_core::pace::Pace;
use sotto_proto::wire::{Beacon, FetchFrame, FetchRequest};
use sotto_proto::{DeviceId, RoomAddress, RoomId, Subject, reply_prefix};
use tokio::sync::{mpsc, oneshot};

use actor::{Actor, Request};
pub use answers::Presence;

use crate::poor_link;

/// Messages that wait for one subscription at most; the engine fetches what
/// was dropped beyond.
const SUBSCRIPTION: usize = 512;

/// Parts of a catch-up answer that wait for their reader at most.
const FRAMES: usize = 128;

/// What a connection is made with.
pub struct Settings {
    /// `tls://host:port` of each server.
    pub urls: Vec<String>,
    /// From [`sotto_tls::pinned_client`].
    pub tls: rustls::ClientConfig,
    /// This device.
    pub device: DeviceId,
    /// Says which rooms it may use, and until when.
    pub jwt: String,
    /// The rooms that the JWT grants.
    pub rooms: Vec<RoomAddress>,
    /// Of these, the ones that are fetched on subjects of their own.
    pub gated: BTreeSet<RoomId>,
    /// TCP, TLS and CONNECT together end after this.
    pub patience: Duration,
    /// How slow the link is.
    pub pace: Pace,
}

/// Why no connection was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server does not accept the JWT: a new one may help.
    #[error(
        "the message server refuses this device: its access may have been withdrawn, ask your administrator"
    )]
    Refused,
    /// No connection, or TLS failed.
    #[error(
        "the message server cannot be reached ({0}): check the network, and that the server is running"
    )]
    Unreachable(String),
}

/// A message for JetStream.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where to.
    pub subject: Subject,
    /// For the header `Nats-Msg-Id`.
    pub message_id: String,
    /// For the header `Nats-Expected-Last-Subject-Sequence`.
    pub expected_last_sequence: Option<u64>,
    /// The body.
    pub payload: Bytes,
}

/// A handle on a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Not bounded: the engine and the file transfers bound what is outstanding.
    requests: mpsc::UnboundedSender<Request>,
    gated: Arc<BTreeSet<RoomId>>,
}

impl Connection {
    /// Connects, and subscribes to the device's inbox and to all rooms of the
    /// JWT; their messages go to `live` from now on, and who is there, unless
    /// the link is slow, to `presence`.
    ///
    /// `sign` signs the server's nonce with the device's nkey.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open<S, F>(
        settings: Settings,
        sign: S,
        live: mpsc::Sender<LiveMessage>,
        presence: mpsc::Sender<Presence>,
    ) -> Result<Self, ConnectError>
    where
        S: Fn(Vec<u8>) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Vec<u8>>> + Send + Sync + 'static,
    {
        let established = Arc::new(AtomicBool::new(false));
        let (event_sender, events) = mpsc::channel(256);
        let prefix = reply_prefix(settings.device);
        let servers = settings.urls.len().max(1);
        let client = authenticated(settings.jwt, sign, Arc::clone(&established))
            .event_callback(move |event: Event| {
                let events = event_sender.clone();
                async move {
                    let _ = events.send(event).await;
                }
            })
            .custom_inbox_prefix(&prefix)
            .require_tls(true)
            .tls_first()
            .tls_client_config(settings.tls)
            .connection_timeout(settings.patience)
            .ping_interval(poor_link::ping(settings.pace))
            .subscription_capacity(SUBSCRIPTION)
            .ignore_discovered_servers()
            .max_reconnects(servers)
            .connect(settings.urls)
            .await
            .map_err(|error| refused_or_unreachable(&error))?;
        established.store(true, Ordering::Relaxed);

        let replies = subscribe(&client, format!("{prefix}.>")).await?;
        let mut subscriptions = SelectAll::new();
        let inbox = Subject::Inbox(settings.device).live();
        subscriptions.push(subscribe(&client, inbox).await?);
        for room in &settings.rooms {
            // Who is there is not worth its bytes on a slow link.
            let subjects = match settings.pace.is_slow() {
                true => vec![room.messages().live(), room.handshakes().live()],
                false => vec![room.live_wildcard()],
            };
            for subject in subjects {
                subscriptions.push(subscribe(&client, subject).await?);
            }
        }
        // Round trip: the server has handled every subscription when it ends.
        client.flush().await.map_err(unreachable)?;

        let (requests, receiver) = mpsc::unbounded_channel();
        let actor = Actor::new(
            client,
            settings.device,
            replies,
            subscriptions,
            live,
            presence,
            settings.pace,
        );
        tokio::spawn(actor.run(receiver, events));
        let gated = Arc::new(settings.gated);
        Ok(Self { requests, gated })
    }

    /// Publishes in the order of the calls, which do not wait; the answer is
    /// the sequence in the stream.
    pub fn publish(
        &self,
        message: Message,
    ) -> impl Future<Output = Result<u64, PublishFailure>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        // When the connection is gone `answer` is dropped, and so is the wait.
        let _ = self.requests.send(Request::Publish { message, answer });
        async move { answered.await.unwrap_or(Err(PublishFailure::Lost)) }
    }

    /// Asks the relay about one room, on the subject that is for it, as
    /// [`Connection::fetch`].
    pub fn fetch_in(&self, room: RoomId, request: FetchRequest) -> mpsc::Receiver<FetchFrame> {
        let gated = self.gated.contains(&room).then_some(room);
        self.fetch(gated, request)
    }

    /// Asks the relay, on the subject of a gated room or on the device's
    /// common one. The parts come in order; the one with `last` ends the
    /// answer, and the channel ends early when it does not come in whole.
    pub fn fetch(
        &self,
        gated: Option<RoomId>,
        request: FetchRequest,
    ) -> mpsc::Receiver<FetchFrame> {
        let (frames, receiver) = mpsc::channel(FRAMES);
        let request = Request::Fetch {
            gated,
            request,
            frames,
        };
        let _ = self.requests.send(request);
        receiver
    }

    /// Says to the relays how far this device has come.
    pub fn beacon(&self, beacon: Beacon) {
        // When the connection is gone, nobody needs to know.
        let _ = self.requests.send(Request::Beacon(beacon));
    }

    /// Returns when the connection is gone.
    pub async fn closed(&self) {
        self.requests.closed().await;
    }
}

/// Options that authenticate for one connection only.
fn authenticated<S, F>(jwt: String, sign: S, established: Arc<AtomicBool>) -> ConnectOptions
where
    S: Fn(Vec<u8>) -> F + Send + Sync + 'static,
    F: Future<Output = Option<Vec<u8>>> + Send + Sync + 'static,
{
    ConnectOptions::with_auth_callback(move |nonce| {
        let jwt = jwt.clone();
        let again = established.load(Ordering::Relaxed);
        let signature = sign(nonce);
        async move {
            if again {
                return Err(AuthError::new("a connection does not come back by itself"));
            }
            let mut auth = Auth::new();
            auth.jwt = Some(jwt);
            auth.signature = signature.await;
            Ok(auth)
        }
    })
}

async fn subscribe(
    client: &async_nats::Client,
    subject: String,
) -> Result<async_nats::Subscriber, ConnectError> {
    client.subscribe(subject).await.map_err(unreachable)
}

fn unreachable(error: impl std::error::Error) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

fn refused_or_unreachable(error: &async_nats::ConnectError) -> ConnectError {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            ConnectError::Refused
        }
        _ => unreachable(error),
    }
}
