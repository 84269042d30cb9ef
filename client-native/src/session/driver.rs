//! The task that owns the engine and its store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::OsRng;
use sotto_client_core::RecordsError;
use sotto_client_core::engine::{Engine, EngineError};
use sotto_client_core::io::{
    CallFailure, CallId, Event, FactorNeeded, Grants, Input, LiveMessage, Output, PublishFailure,
    PublishId, Recall, Ticket,
};
use sotto_client_core::store::StoreError;
use sotto_proto::{RoomId, wire};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{MissedTickBehavior, interval};

use super::link::{Link, LinkEvent};
use super::writer::Writer;
use super::{CommandError, Notice, Progress, Request};
use crate::access::{Access, KeyRequest};
use crate::clock::Clock;
use crate::gateway::GatewayError;
use crate::home::{HomeError, Lock, Opened};
use crate::nats::{self, Connection, Presence};

/// How often the engine is told that time has passed.
const TICK: Duration = Duration::from_secs(2);

/// Live messages that wait for the engine at most, and that it takes in one go.
const LIVE: usize = 64;

/// The engine or the store cannot go on; both must be opened again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Records(#[from] RecordsError),
}

type Updates = mpsc::UnboundedSender<Result<Progress, CommandError>>;

/// Owns everything of a device while it works.
pub(super) struct Driver {
    engine: Engine,
    writer: Writer,
    lock: Lock,
    clock: Clock,
    access: Access,
    notices: mpsc::UnboundedSender<Notice>,
    next_ticket: u64,
    commands: BTreeMap<Ticket, Updates>,
    /// The task that keeps the link, once there is to be one.
    link: JoinSet<()>,
    link_events: (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>),
    refresh: Arc<Notify>,
    /// New grants were asked for and are not in force yet.
    refreshing: bool,
    /// The rooms that were closed to this device when it last connected.
    withheld: BTreeMap<RoomId, FactorNeeded>,
    live: (mpsc::Sender<LiveMessage>, mpsc::Receiver<LiveMessage>),
    presence: (mpsc::Sender<Presence>, mpsc::Receiver<Presence>),
    connection: watch::Sender<Option<Connection>>,
    settled: watch::Sender<bool>,
    calls: JoinSet<(CallId, Result<Bytes, CallFailure>)>,
    publishes: JoinSet<(PublishId, Result<u64, PublishFailure>)>,
    fetch: Option<mpsc::Receiver<wire::FetchFrame>>,
}

impl Driver {
    pub(super) fn new(
        opened: Opened,
        clock: Clock,
        access: Access,
        notices: mpsc::UnboundedSender<Notice>,
        connection: watch::Sender<Option<Connection>>,
        settled: watch::Sender<bool>,
    ) -> Self {
        Self {
            engine: opened.engine,
            writer: Writer::new(opened.store),
            lock: opened.lock,
            clock,
            access,
            notices,
            next_ticket: 0,
            commands: BTreeMap::new(),
            link: JoinSet::new(),
            link_events: mpsc::channel(4),
            refresh: Arc::new(Notify::new()),
            refreshing: false,
            withheld: BTreeMap::new(),
            live: mpsc::channel(LIVE),
            presence: mpsc::channel(LIVE),
            connection,
            settled,
            calls: JoinSet::new(),
            publishes: JoinSet::new(),
            fetch: None,
        }
    }

    /// Runs until no handle is left, or the store does not open any more.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut keys: mpsc::Receiver<KeyRequest>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut live = Vec::with_capacity(LIVE);
        loop {
            let handled = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.request(request).await,
                    None => return self.leave().await,
                },
                due = self.writer.written() => match due {
                    Ok(due) => self.act_on(due).await,
                    Err(error) => Err(error.into()),
                },
                Some(request) = keys.recv() => self.key_request(request),
                Some(event) = self.link_events.1.recv() => self.linked(event),
                _ = self.live.1.recv_many(&mut live, LIVE) => {
                    live.drain(..).try_for_each(|message| self.handle(Input::Live(message)))
                }
                Some(Presence { room, device, here }) = self.presence.1.recv() => {
                    self.handle(Input::Presence { room, device, here })
                }
                Some(Ok((id, answer))) = self.calls.join_next() => {
                    self.handle(Input::Answered { id, answer })
                }
                Some(Ok((id, result))) = self.publishes.join_next() => {
                    self.handle(match result {
                        Ok(sequence) => Input::Published { id, sequence },
                        Err(failure) => Input::PublishFailed { id, failure },
                    })
                }
                frame = next_frame(&mut self.fetch) => self.fetched(frame),
                _ = tick.tick() => match self.link.is_empty() {
                    true => Ok(()),
                    false => self.handle(Input::Tick),
                },
            };
            let settled = match handled {
                Ok(()) => self.settle().await,
                Err(broken) => Err(broken),
            };
            if let Err(broken) = settled
                && !self.recover(&broken).await
            {
                return;
            }
        }
    }

    /// Ends what is under way, and says that this device is going.
    async fn leave(mut self) {
        match self.writer.all_written().await {
            Ok(due) => due.into_iter().for_each(|output| self.act(output)),
            Err(error) => tracing::warn!("not everything was stored: {error}"),
        }
        if let Some(connection) = &*self.connection.borrow() {
            connection.beacon(wire::Beacon {
                leaving: true,
                ..wire::Beacon::default()
            });
        }
    }

    async fn request(&mut self, request: Request) -> Result<(), Broken> {
        match request {
            Request::Command { command, updates } => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.commands.insert(ticket, updates);
                self.handle(Input::Command(ticket, command))?;
            }
            Request::Look(look) => {
                // Only what is durable is shown.
                let due = self.writer.all_written().await?;
                self.act_on(due).await?;
                look(&self.engine, self.writer.store()?);
            }
            Request::GoOnline => self.go_online(),
            Request::RefreshGrants => self.refresh_grants(),
        }
        Ok(())
    }

    fn go_online(&mut self) {
        if !self.link.is_empty() {
            return;
        }
        let account = self.engine.account();
        let tls = match sotto_tls::pinned_client(account.gateway.authority, Arc::new(self.clock)) {
            Ok(tls) => tls,
            Err(error) => {
                let reason = format!("TLS cannot be set up on this machine: {error}");
                return self.notice(Notice::Offline { reason });
            }
        };
        let link = Link {
            access: self.access.clone(),
            tls,
            device: account.device,
            live: self.live.0.clone(),
            presence: self.presence.0.clone(),
            events: self.link_events.0.clone(),
            refresh: Arc::clone(&self.refresh),
        };
        self.link.spawn(link.keep());
    }

    fn refresh_grants(&mut self) {
        // Without a link the next one has them anyway.
        if !self.link.is_empty() {
            self.refreshing = true;
            self.refresh.notify_one();
        }
    }

    fn key_request(&mut self, request: KeyRequest) -> Result<(), Broken> {
        // Nobody waits for an answer any more: nothing is lost.
        match request {
            KeyRequest::OpenSession { now, answer } => {
                let _ = answer.send(self.engine.account().session_request(now));
            }
            KeyRequest::SignNonce { nonce, answer } => {
                let _ = answer.send(self.engine.account().sign_nats_nonce(&nonce).ok());
            }
            KeyRequest::KeepSession(session) => self.engine.set_session(session, &mut OsRng)?,
        }
        Ok(())
    }

    fn linked(&mut self, event: LinkEvent) -> Result<(), Broken> {
        self.forget_outstanding();
        match event {
            LinkEvent::Up {
                connection,
                grants,
                pace,
            } => {
                self.refreshing = false;
                self.connection.send_replace(Some(connection));
                self.notice(Notice::Online);
                self.say_withheld(&grants);
                self.handle(Input::Online { grants, pace })
            }
            LinkEvent::Down { reason } => {
                self.connection.send_replace(None);
                self.notice(Notice::Offline { reason });
                self.handle(Input::Offline)
            }
        }
    }

    /// Says which rooms are closed, when that is news.
    fn say_withheld(&mut self, grants: &Grants) {
        let news = grants
            .withheld
            .iter()
            .filter(|(room, needed)| self.withheld.get(room) != Some(needed));
        for (&room, needed) in news {
            let needed = needed.clone();
            self.notice(Notice::Withheld { room, needed });
        }
        self.withheld.clone_from(&grants.withheld);
    }

    /// The engine forgets it, too: what came in late would answer the wrong
    /// question.
    fn forget_outstanding(&mut self) {
        self.publishes = JoinSet::new();
        self.fetch = None;
    }

    fn fetched(&mut self, frame: Option<wire::FetchFrame>) -> Result<(), Broken> {
        if frame.as_ref().is_none_or(|frame| frame.last) {
            self.fetch = None;
        }
        self.handle(match frame {
            Some(frame) => Input::Fetched(frame),
            None => Input::FetchFailed,
        })
    }

    fn handle(&mut self, input: Input) -> Result<(), Broken> {
        Ok(self.engine.handle(input, self.clock.now(), &mut OsRng)?)
    }

    /// Has made durable what the engine has changed, and does what depends on
    /// nothing that is still to be written.
    async fn settle(&mut self) -> Result<(), Broken> {
        let mut due = self.hand_over();
        if self.writer.is_full() {
            due.extend(self.writer.written().await?);
        }
        self.act_on(due).await?;
        self.settled.send_replace(self.is_settled());
        Ok(())
    }

    /// Gives the writer what the engine has put out; what is to be done now.
    fn hand_over(&mut self) -> Vec<Output> {
        while let Some(output) = self.engine.poll_output() {
            self.writer.add(output);
        }
        self.writer.go_on()
    }

    /// Does what may be done now.
    async fn act_on(&mut self, due: Vec<Output>) -> Result<(), Broken> {
        let mut due = VecDeque::from(due);
        while let Some(output) = due.pop_front() {
            match output {
                // It reads what was written before, and is an input of its own,
                // with outputs of its own.
                Output::Recall { room, recall } => {
                    due.extend(self.writer.all_written().await?);
                    self.recall(room, recall)?;
                    due.extend(self.hand_over());
                }
                output => self.act(output),
            }
        }
        Ok(())
    }

    fn recall(&mut self, room: RoomId, recall: Recall) -> Result<(), Broken> {
        let store = self.writer.store()?;
        let entries = block_in_place(|| self.engine.recall(store, room, recall))?;
        self.handle(Input::Recalled {
            room,
            recall,
            entries,
        })
    }

    /// Whether this device has heard all and said all that there is.
    fn is_settled(&self) -> bool {
        let nothing_outstanding = self.writer.is_idle()
            && self.publishes.is_empty()
            && self.fetch.is_none()
            && !self.refreshing;
        nothing_outstanding && self.connection.borrow().is_some() && self.engine.is_settled()
    }

    fn act(&mut self, output: Output) {
        match output {
            // Dealt with before.
            Output::Persist(_) | Output::Recall { .. } => {}
            Output::Beacon(beacon) => {
                if let Some(connection) = &*self.connection.borrow() {
                    connection.beacon(beacon);
                }
            }
            Output::Publish(publish) => {
                let id = publish.id;
                let message = nats::Message {
                    subject: publish.subject,
                    message_id: publish.message_id,
                    expected_last_sequence: publish.expected_last_sequence,
                    payload: publish.payload,
                };
                let connection = self.connection.borrow();
                let answer = connection.as_ref().map(|c| c.publish(message));
                self.publishes.spawn(async move {
                    match answer {
                        Some(answer) => (id, answer.await),
                        None => (id, Err(PublishFailure::Lost)),
                    }
                });
            }
            Output::Fetch { gated, request } => {
                let connection = self.connection.borrow();
                // A channel that is closed at once says that it failed.
                self.fetch = Some(match &*connection {
                    Some(connection) => connection.fetch(gated, request),
                    None => mpsc::channel(1).1,
                });
            }
            Output::Call { id, path, body } => {
                let access = self.access.clone();
                self.calls.spawn(async move {
                    let answer = access.post(path, body).await;
                    (id, answer.map_err(call_failure))
                });
            }
            Output::RefreshGrants => self.refresh_grants(),
            Output::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Done { ticket, room } => {
                self.update(ticket, Ok(Progress::Done { room }));
                self.commands.remove(&ticket);
            }
            Event::Failed {
                ticket,
                reason,
                factor_needed,
                refusal,
            } => {
                let error = match (factor_needed, refusal) {
                    (Some(needed), _) => CommandError::FactorNeeded(needed),
                    (None, Some(refusal)) => CommandError::Held(refusal),
                    (None, None) => CommandError::Failed(reason),
                };
                self.update(ticket, Err(error));
                self.commands.remove(&ticket);
            }
            Event::Queued {
                ticket,
                first,
                last,
            } => self.update(ticket, Ok(Progress::Queued { first, last })),
            Event::UploadBegun { ticket, file } => {
                self.update(ticket, Ok(Progress::UploadBegun(file)));
            }
            event => self.notice(Notice::Event(event)),
        }
    }

    fn update(&self, ticket: Ticket, update: Result<Progress, CommandError>) {
        if let Some(updates) = self.commands.get(&ticket) {
            // Nobody waits for this command any more: nothing is lost.
            let _ = updates.send(update);
        }
    }

    fn notice(&self, notice: Notice) {
        // Nobody listens any more: nothing is lost.
        let _ = self.notices.send(notice);
    }

    /// Goes offline and opens store and engine again; whether that worked.
    async fn recover(&mut self, broken: &Broken) -> bool {
        self.link = JoinSet::new();
        self.connection.send_replace(None);
        self.calls = JoinSet::new();
        self.forget_outstanding();
        for updates in std::mem::take(&mut self.commands).into_values() {
            let _ = updates.send(Err(CommandError::Failed(broken.to_string())));
        }
        let reopened = self.reopen().await;
        let reason = match &reopened {
            Ok(_) => broken.to_string(),
            Err(error) => error.to_string(),
        };
        self.notice(Notice::StoreFailed { reason });
        match reopened {
            Ok(engine) => self.engine = engine,
            Err(_) => return false,
        }
        true
    }

    async fn reopen(&mut self) -> Result<Engine, HomeError> {
        let store = self.writer.give_up().await?;
        block_in_place(|| {
            store.reopen()?;
            Ok(Engine::open(store, self.lock.unlock()?)?)
        })
    }
}

async fn next_frame(
    fetch: &mut Option<mpsc::Receiver<wire::FetchFrame>>,
) -> Option<wire::FetchFrame> {
    match fetch {
        Some(frames) => frames.recv().await,
        None => std::future::pending().await,
    }
}

fn call_failure(error: GatewayError) -> CallFailure {
    match error {
        GatewayError::Refused(error) => CallFailure::Refused(error),
        GatewayError::FactorNeeded(needed) => CallFailure::Refused(wire::ApiError {
            code: wire::ApiErrorCode::FactorNeeded.into(),
            message: needed.sentence,
            missing: needed.missing,
        }),
        error => {
            tracing::info!("a call failed: {error}");
            CallFailure::Unreachable
        }
    }
}
