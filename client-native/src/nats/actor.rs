//! The task that owns a connection and everything that is outstanding on it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Event, HeaderMap, ServerError, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SelectAll;
use prost::Message as _;
use sotto_client_core::io::{LiveMessage, PublishFailure};
use sotto_client_core::pace::Pace;
use sotto_proto::wire::{Beacon, FetchFrame, FetchRequest};
use sotto_proto::{DeviceId, RoomId, Subject, Submission, reply_prefix};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Message;
use super::answers::{Live, Presence, acknowledgement, denied_publish, live};
use crate::poor_link;

/// How long a connection without a handle waits for what is outstanding, on an
/// ordinary link.
const RETIRE: Duration = Duration::from_secs(10);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Request {
    /// Store this, and say under which sequence.
    Publish {
        message: Message,
        answer: oneshot::Sender<Result<u64, PublishFailure>>,
    },
    /// Say this to the relays; nothing answers.
    Beacon(Beacon),
    /// Ask the relay.
    Fetch {
        gated: Option<RoomId>,
        request: FetchRequest,
        frames: mpsc::Sender<FetchFrame>,
    },
}

/// A publish that is not answered yet.
struct Publishing {
    subject: String,
    /// Of the payload.
    length: usize,
    answer: oneshot::Sender<Result<u64, PublishFailure>>,
}

/// A catch-up request whose answer is not complete.
struct Fetching {
    subject: String,
    frames: mpsc::Sender<FetchFrame>,
    next_part: u32,
}

/// Owns the connection; ends with it.
pub(super) struct Actor {
    client: async_nats::Client,
    device: DeviceId,
    replies: Subscriber,
    subscriptions: SelectAll<Subscriber>,
    live: mpsc::Sender<LiveMessage>,
    presence: mpsc::Sender<Presence>,
    pace: Pace,
    /// Number of the next request; part of its reply subject.
    next: u64,
    publishing: BTreeMap<u64, Publishing>,
    fetching: BTreeMap<u64, Fetching>,
    /// Bytes that have come so far.
    heard: u64,
    /// When something was sent while nothing was outstanding, or when bytes
    /// have come.
    last_sign: Instant,
}

impl Actor {
    pub(super) fn new(
        client: async_nats::Client,
        device: DeviceId,
        replies: Subscriber,
        subscriptions: SelectAll<Subscriber>,
        live: mpsc::Sender<LiveMessage>,
        presence: mpsc::Sender<Presence>,
        pace: Pace,
    ) -> Self {
        Self {
            client,
            device,
            replies,
            subscriptions,
            live,
            presence,
            pace,
            next: 0,
            publishing: BTreeMap::new(),
            fetching: BTreeMap::new(),
            heard: 0,
            last_sign: Instant::now(),
        }
    }

    /// Runs until the connection breaks, or no handle is left and nothing is
    /// outstanding. Dropping what is outstanding tells whoever waits for it.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut events: mpsc::Receiver<Event>,
    ) {
        let mut check = interval(Duration::from_secs(1));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let retire = self.pace.wait(RETIRE);
        let mut retiring_since = None;
        loop {
            tokio::select! {
                request = requests.recv(), if retiring_since.is_none() => match request {
                    Some(request) => self.send(request).await,
                    None => retiring_since = Some(Instant::now()),
                },
                Some(reply) = self.replies.next() => self.answered(reply),
                Some(message) = self.subscriptions.next() => self.received(message).await,
                event = events.recv() => match event {
                    Some(event) if !self.breaks(&event) => {}
                    _ => return,
                },
                _ = check.tick() => if self.is_dead() {
                    return;
                },
            }
            let retired = retiring_since.is_some_and(|since| since.elapsed() > retire);
            if retired || (retiring_since.is_some() && self.is_idle()) {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.publishing.is_empty() && self.fetching.is_empty()
    }

    async fn send(&mut self, request: Request) {
        if self.is_idle() {
            self.last_sign = Instant::now();
        }
        let number = self.next;
        self.next += 1;
        let reply = format!("{}.{number}", reply_prefix(self.device));
        // An error means that the connection is closed: the event follows.
        match request {
            Request::Publish { message, answer } => {
                let submission = Submission {
                    device: self.device,
                    subject: message.subject.clone(),
                };
                let subject = submission.to_string();
                let publishing = Publishing {
                    subject: subject.clone(),
                    length: message.payload.len(),
                    answer,
                };
                tracing::trace!(bytes = publishing.length, "submits");
                self.publishing.insert(number, publishing);
                let headers = headers(&message);
                let client = &self.client;
                let _ = client
                    .publish_with_reply_and_headers(subject, reply, headers, message.payload)
                    .await;
            }
            Request::Beacon(beacon) => {
                let subject = Subject::Beacon(self.device).to_string();
                let payload: Bytes = beacon.encode_to_vec().into();
                tracing::trace!(bytes = payload.len(), "beacon");
                let _ = self.client.publish(subject, payload).await;
            }
            Request::Fetch {
                gated,
                request,
                frames,
            } => {
                let subject = match gated {
                    Some(room) => Subject::FetchRoom(self.device, room),
                    None => Subject::Fetch(self.device),
                };
                let subject = subject.to_string();
                let fetching = Fetching {
                    subject: subject.clone(),
                    frames,
                    next_part: 0,
                };
                self.fetching.insert(number, fetching);
                let payload: Bytes = request.encode_to_vec().into();
                tracing::trace!(bytes = payload.len(), "asks");
                let _ = self
                    .client
                    .publish_with_reply(subject, reply, payload)
                    .await;
            }
        }
    }

    fn answered(&mut self, reply: async_nats::Message) {
        tracing::trace!(bytes = reply.payload.len(), "is answered");
        let number = reply.subject.rsplit('.').next().map(str::parse::<u64>);
        let Some(Ok(number)) = number else {
            return;
        };
        if let Some(publishing) = self.publishing.remove(&number) {
            let _ = publishing.answer.send(acknowledgement(&reply));
        } else if let Some(mut fetching) = self.fetching.remove(&number)
            && fetching.accept(&reply)
        {
            self.fetching.insert(number, fetching);
        }
    }

    async fn received(&mut self, message: async_nats::Message) {
        let bytes = message.payload.len();
        let live = live(message);
        tracing::trace!(bytes, what = live.as_ref().map_or("?", Live::kind), "hears");
        match live {
            // An error means that nobody listens any more.
            Some(Live::Stored(message)) => drop(self.live.send(message).await),
            // What there is no room for is said again before long.
            Some(Live::Presence(presence)) => drop(self.presence.try_send(presence)),
            None => tracing::warn!("a message that no stream republished was passed over"),
        }
    }

    /// Handles an event; whether it ends the connection.
    fn breaks(&mut self, event: &Event) -> bool {
        match event {
            Event::Disconnected | Event::Closed => true,
            // Messages were dropped, perhaps the last ones, so that no gap
            // would show: the next connection catches up.
            Event::SlowConsumer(_) => true,
            // The server is about to stop: others may be there.
            Event::LameDuckMode => true,
            Event::ServerError(ServerError::Other(error)) => {
                match denied_publish(error) {
                    Some(subject) => self.denied(subject),
                    None => tracing::warn!("the message server says: {error}"),
                }
                false
            }
            _ => false,
        }
    }

    /// Fails the oldest publish to `subject`: the server takes them in order
    /// and complains about each.
    fn denied(&mut self, subject: &str) {
        let mut publishing = self.publishing.iter();
        let oldest = publishing.find(|(_, publishing)| publishing.subject == subject);
        if let Some(number) = oldest.map(|(&number, _)| number) {
            if let Some(publishing) = self.publishing.remove(&number) {
                let _ = publishing.answer.send(Err(PublishFailure::Denied));
            }
        } else {
            self.fetching
                .retain(|_, fetching| fetching.subject != subject);
        }
    }

    /// Whether nothing has come for too long.
    fn is_dead(&mut self) -> bool {
        let heard = self.client.statistics().in_bytes.load(Ordering::Relaxed);
        if heard != self.heard {
            self.heard = heard;
            self.last_sign = Instant::now();
        }
        let outstanding = self.publishing.values().map(|publishing| publishing.length);
        let outstanding = (!self.is_idle()).then(|| outstanding.sum());
        self.last_sign.elapsed() > poor_link::silence(self.pace, outstanding)
    }
}

impl Fetching {
    /// Passes a part on; whether more are to come.
    fn accept(&mut self, reply: &async_nats::Message) -> bool {
        // No relay listens: the payload is empty, which is a part 0 that does
        // not end.
        let frame = match FetchFrame::decode(reply.payload.clone()) {
            Ok(frame) if frame.part == self.next_part && reply.status.is_none() => frame,
            _ => return false,
        };
        self.next_part += 1;
        let last = frame.last;
        self.frames.try_send(frame).is_ok() && !last
    }
}

fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", message.message_id.as_str());
    if let Some(sequence) = message.expected_last_sequence {
        let name = "Nats-Expected-Last-Subject-Sequence";
        headers.insert(name, sequence.to_string());
    }
    headers
}
