//! The engine: takes what happened, decides what follows.
//!
//! Rules for a shell:
//! - Give it every [`Input`] through [`Engine::handle`], then drain
//!   [`Engine::poll_output`] until it is empty, acting on each in order. What
//!   comes after an [`Output::Persist`] waits until that batch is durable.
//! - When a batch cannot be persisted, or `handle` fails, drop the engine and
//!   make a new one with [`Engine::open`]: the store is the truth.
//! - Nothing is lost by dropping it at any moment: whatever it was about to
//!   publish it publishes again, under the same message id.
//!
//! | a method that | is |
//! |---|---|
//! | takes something from outside | [`Engine::handle`] |
//! | gives something to do | [`Engine::poll_output`] |
//! | only looks | `account`, `rooms`, `history`, `uploads`, … |
//!
//! Inside, each input changes the state of some rooms; then every such room is
//! *advanced*: whatever it needs next, and is not already waiting for, is
//! asked for. So a restart, a lost answer and a lost race all end the same
//! way: the room is looked at again.

mod beacon;
mod calls;
mod commands;
mod epochs;
mod joining;
mod live;
mod membership;
mod outbox;
mod portion;
mod queries;
mod removals;
mod repair;
mod stream;
mod sync;
mod uploads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ed25519_dalek::VerifyingKey;
use rand::{CryptoRng, RngCore};
use sotto_proto::refusals::Refusal;
use sotto_proto::{DeviceId, FileId, RoomId, UserName, wire};

use crate::account::{Account, AccountError};
use crate::io::{CallId, Event, FactorNeeded, Input, Output, PublishId, Ticket, Timestamp};
use crate::mls::Provider;
use crate::pace::Pace;
use crate::records::{Key, Records, RecordsError};
use crate::room::{Phase, Room};
use crate::store::Store;
use crate::vault::{Vault, VaultError};

pub use queries::{FindRoomError, Member, RoomSummary};
pub use uploads::{CopyOf, UploadProgress};

/// Why an engine could not be made from a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store or its records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The stored account.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The system gives no randomness.
    #[error("the operating system gives no random numbers: restart the machine")]
    NoRandomness,
}

/// The engine cannot go on: drop it and open a new one from the store.
#[derive(Debug, thiserror::Error)]
#[error("the engine stopped: {0}")]
pub struct EngineError(#[from] VaultError);

/// See the module.
pub struct Engine {
    provider: Provider,
    account: Account,
    rooms: BTreeMap<RoomId, Room>,
    uploads: BTreeMap<FileId, UploadProgress>,
    next_post: u64,
    inbox_after: u64,
    link: Link,
    /// Of the input that is being handled.
    now: Timestamp,
    waiting: Vec<Waiting>,
    /// Rooms to look at before the current input is done with.
    touched: BTreeSet<RoomId>,
    effects: Vec<Output>,
    outputs: VecDeque<Output>,
}

/// What is known of the connection, and what is outstanding on it. Forgotten
/// whenever the engine is opened.
#[derive(Default)]
struct Link {
    online: bool,
    pace: Pace,
    /// Rooms that the JWT in force grants.
    granted: BTreeSet<RoomId>,
    /// Of these, the rooms that are fetched on subjects of their own.
    gated: BTreeSet<RoomId>,
    /// Rooms that are not granted until factors are proven.
    withheld: BTreeMap<RoomId, FactorNeeded>,
    refresh: sync::Refresh,
    publishes: BTreeMap<PublishId, outbox::Publishing>,
    calls: BTreeMap<CallId, calls::Calling>,
    fetch: sync::FetchState,
    /// Live messages that came before what precedes them.
    ahead: live::Ahead,
    /// Large rooms where somebody is to be removed by an order, and whether it
    /// is for this device to try by now.
    turns: BTreeMap<RoomId, removals::Turn>,
    /// What is under way to repair rooms.
    repairs: BTreeMap<RoomId, repair::Repair>,
    /// Invitations into rooms that this device has just been taken out of.
    back: BTreeMap<RoomId, wire::Invitation>,
    /// Rooms to be read again at the next tick.
    look_again: BTreeSet<RoomId>,
    /// What beacons have said.
    beacon: beacon::Said,
    /// What of rooms the server did not take, and until when it waits.
    held: BTreeMap<(RoomId, outbox::Sort), outbox::Hold>,
    /// Rooms whose commit lost a race: the stream must be read before another try.
    lost_race: BTreeSet<RoomId>,
    /// Rooms whose commit is stored and on its way back as a live message: at
    /// the next tick it is looked for.
    landing: BTreeSet<RoomId>,
    /// The directory is to be looked at.
    me_due: bool,
    /// The gateway is to say whether rooms that are not granted are lost.
    lost_due: bool,
    ticks: u32,
    next_id: u64,
}

impl Link {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// A command that is not done yet.
struct Waiting {
    ticket: Ticket,
    /// The one that it is about, if it is about one.
    room: Option<RoomId>,
    goal: Goal,
}

/// When a command is done.
enum Goal {
    /// The device is a member.
    Member,
    /// The user's devices are added and their Welcomes stored.
    Invited(UserName),
    /// Own entries up to this counter are stored.
    Sent(u64),
    /// The own device is in every room.
    Admitted(DeviceId),
    /// The device is in no room where it could be removed.
    Dismissed(DeviceId),
}

impl Engine {
    /// The engine of a device that was just made. Its first output persists
    /// the account.
    ///
    /// # Errors
    /// [`OpenError::NoRandomness`].
    pub fn create(
        account: Account,
        vault: Vault,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Self, OpenError> {
        let provider = provider(Records::new(vault))?;
        provider.records().put_bytes(Key::Account, account.encode());
        remember(&provider, &account.user, &account.identity.verifying_key());
        let mut engine = Self::with(provider, account, BTreeMap::new(), BTreeMap::new(), 0);
        engine
            .flush(rng)
            .map_err(|EngineError(error)| RecordsError::from(error))?;
        Ok(engine)
    }

    /// The engine of a device that is in the store.
    ///
    /// # Errors
    /// When the store, a record or the account does not read.
    pub fn open(store: &dyn Store, vault: Vault) -> Result<Self, OpenError> {
        let provider = provider(Records::load(store, vault)?)?;
        let records = provider.records();
        let account = records
            .get_bytes(&Key::Account)
            .ok_or_else(RecordsError::damaged)?;
        let account = Account::decode(&account)?;
        let mut rooms = BTreeMap::new();
        let mut uploads = BTreeMap::new();
        let mut next_post = 0;
        for key in records.all_keys() {
            match key {
                Key::Room(id) => {
                    rooms.extend(Room::load(&provider, id)?.map(|room| (id, room)));
                }
                Key::Upload(file) => {
                    uploads.extend(records.get(&key)?.map(|upload| (file, upload)));
                }
                Key::Post(id) => next_post = next_post.max(id + 1),
                _ => {}
            }
        }
        let mut engine = Self::with(provider, account, rooms, uploads, next_post);
        engine.inbox_after = engine
            .provider
            .records()
            .get(&Key::InboxCursor)?
            .unwrap_or(0);
        Ok(engine)
    }

    fn with(
        provider: Provider,
        account: Account,
        rooms: BTreeMap<RoomId, Room>,
        uploads: BTreeMap<FileId, UploadProgress>,
        next_post: u64,
    ) -> Self {
        Self {
            provider,
            account,
            rooms,
            uploads,
            next_post,
            inbox_after: 0,
            link: Link::default(),
            now: Timestamp(0),
            waiting: Vec::new(),
            touched: BTreeSet::new(),
            effects: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened. `rng` draws ids, keys of files and nonces of
    /// stored records; MLS draws its own.
    ///
    /// # Errors
    /// [`EngineError`]: drop the engine. What a person or the network did wrong
    /// is an [`Event`], not an error.
    pub fn handle(
        &mut self,
        input: Input,
        now: Timestamp,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(), EngineError> {
        self.now = now;
        match input {
            Input::Online { grants, pace } => self.online(grants, pace),
            Input::Offline => self.offline(),
            Input::Live(message) => self.live(message),
            Input::Fetched(frame) => self.fetched(frame),
            Input::FetchFailed => self.fetch_failed(),
            Input::Published { id, .. } => self.published(id),
            Input::PublishFailed { id, failure } => self.publish_failed(id, failure),
            Input::Answered { id, answer } => self.answered(id, answer, now),
            Input::Command(ticket, command) => self.command(ticket, command, now, rng),
            Input::Recalled {
                room,
                recall,
                entries,
            } => self.recalled(room, recall, entries),
            Input::Presence { room, device, here } => self.present(room, device, here),
            Input::Tick => self.tick(rng),
        }
        self.come_back();
        while let Some(id) = self.touched.pop_first() {
            self.advance(id, now, rng);
        }
        self.advance_posts();
        self.advance_fetch();
        self.report_done();
        self.flush(rng)
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Remembers a session that the gateway opened for this device.
    ///
    /// # Errors
    /// [`EngineError`]: drop the engine.
    pub fn set_session(
        &mut self,
        session: wire::Session,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(), EngineError> {
        self.account.set_session(session);
        let account = self.account.encode();
        self.provider.records().put_bytes(Key::Account, account);
        self.flush(rng)
    }

    /// Whatever the room needs next and is not waiting for already.
    fn advance(&mut self, id: RoomId, now: Timestamp, rng: &mut impl RngCore) {
        let Some(mut room) = self.rooms.remove(&id) else {
            return;
        };
        if let Some(needed) = self.link.withheld.get(&id).cloned() {
            let reason = needed.sentence.clone();
            // A room that this device makes is there, closed or not; the
            // grants may even know of it before the call is answered.
            let made = matches!(room.record.phase, Phase::Creating | Phase::Member);
            let is_closed = |goal: &Goal| !(made && matches!(goal, Goal::Member));
            self.end_waiting(id, &reason, Some(needed), None, is_closed);
        }
        self.advance_membership(&mut room, rng);
        self.advance_outbox(&mut room, now, rng);
        room.save(self.provider.records());
        self.rooms.insert(id, room);
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.rooms.keys().copied());
    }

    fn effect(&mut self, output: Output) {
        self.effects.push(output);
    }

    fn event(&mut self, event: Event) {
        self.effects.push(Output::Event(event));
    }

    /// One batch with all that changed, then what depends on it.
    fn flush(&mut self, rng: &mut (impl RngCore + CryptoRng)) -> Result<(), EngineError> {
        let batch = self.provider.records().take_batch(rng)?;
        self.outputs.extend(batch.map(Output::Persist));
        self.outputs.extend(self.effects.drain(..));
        Ok(())
    }

    fn report_done(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            if self.is_reached(&waiting) {
                let Waiting { ticket, room, .. } = waiting;
                self.event(Event::Done { ticket, room });
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn is_reached(&self, waiting: &Waiting) -> bool {
        let room = waiting.room.and_then(|room| self.rooms.get(&room));
        match (&waiting.goal, room) {
            (Goal::Member, Some(room)) => self.is_settled_member(room),
            (Goal::Invited(user), Some(room)) => {
                !room.record.invites.contains_key(user) && self.has_added_all(room)
            }
            (Goal::Sent(counter), Some(room)) => room.record.sent >= *counter,
            (Goal::Admitted(device), _) => self.is_in_every_room(*device),
            (Goal::Dismissed(device), _) => self.is_dismissed(*device),
            (_, None) => false,
        }
    }

    /// Fails the commands that wait for something in this room.
    fn fail_waiting(&mut self, room: RoomId, reason: &str, which: impl Fn(&Goal) -> bool) {
        self.end_waiting(room, reason, None, None, which);
    }

    /// As [`Engine::fail_waiting`], with what the gateway says.
    fn refuse_waiting(
        &mut self,
        room: RoomId,
        error: &wire::ApiError,
        which: impl Fn(&Goal) -> bool,
    ) {
        let needed = FactorNeeded::of(error);
        self.end_waiting(room, &error.message, needed, None, which);
    }

    fn end_waiting(
        &mut self,
        room: RoomId,
        reason: &str,
        factor_needed: Option<FactorNeeded>,
        refusal: Option<&Refusal>,
        which: impl Fn(&Goal) -> bool,
    ) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.room == Some(room) && which(&waiting.goal) {
                self.event(Event::Failed {
                    ticket: waiting.ticket,
                    reason: reason.to_owned(),
                    factor_needed: factor_needed.clone(),
                    refusal: refusal.cloned(),
                });
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    fn known_identity(&self, user: &UserName) -> Option<VerifyingKey> {
        let key = self
            .provider
            .records()
            .get_bytes(&Key::Contact(user.clone()))?;
        VerifyingKey::from_bytes(key[..].try_into().ok()?).ok()
    }
}

fn provider(records: Records) -> Result<Provider, OpenError> {
    Provider::new(records).map_err(|_| OpenError::NoRandomness)
}

/// Keeps the first identity key seen for a user.
fn remember(provider: &Provider, user: &UserName, key: &VerifyingKey) {
    let records = provider.records();
    let contact = Key::Contact(user.clone());
    if records.get_bytes(&contact).is_none() {
        records.put_bytes(contact, key.to_bytes().to_vec());
    }
}
