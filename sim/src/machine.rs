//! One device: an engine, its disk, and what is on its way to it.

use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use sotto_client_core::account::Account;
use sotto_client_core::engine::Engine;
use sotto_client_core::history::{Content, HistoryRecord};
use sotto_client_core::io::{Event, Input, Output, Recall, Recalled, Timestamp};
use sotto_client_core::store::{MemoryStore, Store};
use sotto_client_core::vault::Vault;
use sotto_proto::wire::Beacon;
use sotto_proto::{DeviceId, RoomId, UserName};

/// See the module.
pub struct Machine {
    /// The device.
    pub device: DeviceId,
    /// Its user.
    pub user: UserName,
    /// What its engine told it, over all its lives.
    pub events: Vec<Event>,
    /// What it said to relays, over all its lives.
    pub beacons: Vec<Beacon>,
    engine: Engine,
    vault: Vault,
    store: MemoryStore,
    pub(crate) online: bool,
    pub(crate) inbound: VecDeque<Input>,
    pub(crate) crashes: u32,
}

impl Machine {
    pub(crate) fn new(account: Account, vault: Vault, rng: &mut ChaCha20Rng) -> Self {
        let (device, user) = (account.device, account.user.clone());
        #[expect(
            clippy::expect_used,
            reason = "the machine that runs the simulator has randomness"
        )]
        let engine = Engine::create(account, vault.clone(), rng).expect("an engine");
        let mut machine = Self {
            device,
            user,
            events: Vec::new(),
            beacons: Vec::new(),
            engine,
            vault,
            store: MemoryStore::default(),
            online: false,
            inbound: VecDeque::new(),
            crashes: 0,
        };
        while let Some(output) = machine.engine.poll_output() {
            if let Output::Persist(batch) = output {
                let _ = machine.store.commit(&batch);
            }
        }
        machine
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The whole history of a room.
    pub fn history(&self, room: RoomId) -> Vec<HistoryRecord> {
        #[expect(
            clippy::expect_used,
            reason = "a store in memory that was written by this run"
        )]
        self.engine
            .history(&self.store, room, 0..u64::MAX)
            .expect("a history")
    }

    /// Every text of a room with its sender, in order.
    pub fn texts(&self, room: RoomId) -> Vec<(UserName, String)> {
        let text = |record: HistoryRecord| match record.content {
            Content::Text(text) => Some((record.user, text)),
            _ => None,
        };
        self.history(room).into_iter().filter_map(text).collect()
    }

    /// What the engine asks its store for.
    pub(crate) fn recall(&self, room: RoomId, recall: Recall) -> Vec<Recalled> {
        #[expect(
            clippy::expect_used,
            reason = "a store in memory that was written by this run"
        )]
        self.engine
            .recall(&self.store, room, recall)
            .expect("a store that reads")
    }

    pub(crate) fn handle(&mut self, input: Input, now: Timestamp, rng: &mut ChaCha20Rng) {
        if self.engine.handle(input, now, rng).is_err() {
            self.crash();
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.engine.poll_output()
    }

    pub(crate) fn commit(&mut self, batch: &sotto_client_core::store::WriteBatch) {
        let _ = self.store.commit(batch);
    }

    /// Loses everything that is not on the disk, and starts again from it.
    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        self.online = false;
        self.inbound.clear();
        #[expect(
            clippy::expect_used,
            reason = "a store that does not open is what the simulator looks for"
        )]
        let engine = Engine::open(&self.store, self.vault.clone()).expect("the store opens");
        self.engine = engine;
    }
}
