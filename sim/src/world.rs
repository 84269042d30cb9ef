//! The run itself: whose turn it is, and what goes wrong.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use opaque_ke::{RegistrationRequest, ServerRegistration, ServerSetup};
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_client_core::account::Account;
use sotto_client_core::io::{
    CallFailure, Command, Event, Input, Output, Publish, PublishFailure, PublishId, Ticket,
    Timestamp,
};
use sotto_client_core::link::{NewDevice, OldDevice};
use sotto_client_core::pace::Pace;
use sotto_client_core::signup;
use sotto_client_core::vault::Vault;
use sotto_proto::password::{PasswordSuite, credential_identifier};
use sotto_proto::refusals::Refusal;
use sotto_proto::signed::RemovalOrder;
use sotto_proto::{
    DeviceId, GatewayAddress, InviteLink, InviteToken, RoomAddress, RoomId, Subject, UserName, wire,
};

use crate::directory::{Directory, org};
use crate::{Machine, Streams};

/// How often things go wrong: one in so many, 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A live message does not arrive.
    pub lose_live: u32,
    /// A publish does not reach the stream.
    pub lose_publish: u32,
    /// A publish is stored, and its answer lost.
    pub lose_ack: u32,
    /// A gateway call, or its answer, is lost.
    pub lose_call: u32,
    /// An answer to catching up breaks off.
    pub lose_fetch: u32,
    /// The machine dies just before or just after a write.
    pub crash: u32,
    /// The connection breaks.
    pub disconnect: u32,
}

impl Faults {
    /// Everything goes wrong, often.
    pub const STORM: Self = Self {
        lose_live: 5,
        lose_publish: 8,
        lose_ack: 8,
        lose_call: 8,
        lose_fetch: 6,
        crash: 25,
        disconnect: 20,
    };
}

/// See the module.
pub struct World {
    /// What may go wrong from now on.
    pub faults: Faults,
    /// How slow everybody's link is when they connect.
    pub pace: Pace,
    /// Answers to catching up are on their way, and stay there.
    pub holding_answers: bool,
    /// So do answers to this gateway call.
    pub holding_calls: Option<&'static str>,
    /// Acknowledgements overtake the live messages of what they are about.
    pub acks_first: bool,
    /// What the server says to what is published, in place of storing it.
    pub refusing: Option<Refusal>,
    /// What it says that to.
    pub refuses: fn(&Subject) -> bool,
    /// How often it has.
    pub refused: usize,
    /// By how much the servers' clock is ahead of the devices', in ms.
    pub servers_ahead_ms: i64,
    /// Catch-up requests so far, and the messages in their answers.
    pub asked: usize,
    /// See `asked`.
    pub answered: usize,
    /// Every device.
    pub machines: Vec<Machine>,
    /// What the relay holds.
    pub streams: Streams,
    directory: Directory,
    held: Vec<(usize, Vec<Input>)>,
    vault: Vault,
    rng: ChaCha20Rng,
    now: Timestamp,
    next_ticket: u64,
}

/// openmls holds the lifetime of key packages against the system's clock, so
/// that the simulated one must start there.
fn start() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since_1970.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0)))
}

impl World {
    /// An org without users.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let directory = Directory::new(SigningKey::generate(&mut rng));
        #[expect(clippy::expect_used, reason = "constant parameters")]
        let (vault, _) = Vault::create("passphrase", &mut rng).expect("a vault");
        Self {
            faults: Faults::default(),
            pace: Pace::ORDINARY,
            holding_answers: false,
            holding_calls: None,
            acks_first: false,
            refusing: None,
            refuses: |_| true,
            refused: 0,
            servers_ahead_ms: 0,
            asked: 0,
            answered: 0,
            machines: Vec::new(),
            streams: Streams::default(),
            directory,
            held: Vec::new(),
            vault,
            rng,
            now: start(),
            next_ticket: 0,
        }
    }

    /// Signs a user up; the index of the first device.
    pub fn sign_up(&mut self, user: &str) -> usize {
        let account = self.register(user);
        #[expect(clippy::expect_used, reason = "the model's own answer")]
        let account = account.expect("a registration");
        self.directory.enrol(&account.enrolment());
        self.add(account)
    }

    /// Links a new device of the same user; its index.
    pub fn link_device(&mut self, old: usize) -> usize {
        #[expect(clippy::expect_used, reason = "both sides are honest")]
        let account = self.link(old).expect("a linked device");
        let device = account.device;
        let new = self.add(account);
        self.command(old, Command::AdmitDevice { device });
        new
    }

    /// Takes a device out of the directory, by another one, which is then told
    /// to take it out of its rooms; the ticket of that.
    pub fn revoke_device(&mut self, by: usize, device: DeviceId) -> Ticket {
        self.directory.revoke(device);
        self.command(by, Command::DismissDevice { device })
    }

    /// As [`World::revoke_device`], but nobody is told: the gateway orders its
    /// removal.
    pub fn order_device_out(&mut self, device: DeviceId) {
        let Some(machine) = self.machines.iter().find(|m| m.device == device) else {
            return;
        };
        let user = machine.user.clone();
        let Some(identity) = self.directory.identity_of(&user) else {
            return;
        };
        let orders = self
            .directory
            .removal_orders(&user, identity, Some(device), self.now);
        for (address, order) in orders {
            self.publish_order(&address, &order);
        }
        self.directory.revoke(device);
    }

    /// Takes a user's role in a room away; the gateway orders the removal, in
    /// the notice that is answered. Their devices may hear it before their
    /// grants are gone.
    pub fn order_user_out(&mut self, user: &str, room: RoomId) -> Bytes {
        #[expect(clippy::expect_used, reason = "whoever is ordered out signed up")]
        let (address, order) = self.order_for(user, room).expect("a user in the room");
        let notice = self.publish_order(&address, &order);
        self.directory.take_role(room, &order.user);
        notice
    }

    /// An order as the gateway would make it now, not signed.
    pub fn order_for(&self, user: &str, room: RoomId) -> Option<(RoomAddress, RemovalOrder)> {
        let user: UserName = user.parse().ok()?;
        let identity = self.directory.identity_of(&user)?;
        let orders = self
            .directory
            .removal_orders(&user, identity, None, self.now);
        orders.into_iter().find(|(address, _)| address.room == room)
    }

    fn publish_order(&mut self, address: &RoomAddress, order: &RemovalOrder) -> Bytes {
        let notice: Bytes = order.notice(&self.directory.key).encode_to_vec().into();
        self.inject(address.handshakes(), &notice);
        notice
    }

    /// From now on a room demands factors.
    pub fn gate(&mut self, room: RoomId) {
        self.directory.gate(room);
    }

    /// A device proves what gated rooms demand; its next connection has them.
    pub fn prove(&mut self, machine: usize) {
        self.directory.prove(self.machines[machine].device);
    }

    fn register(&mut self, user: &str) -> Option<Account> {
        let setup = ServerSetup::<PasswordSuite>::new(&mut self.rng);
        let gateway = GatewayAddress {
            host: "sim".to_owned(),
            port: 1,
            org: org(),
            authority: [0; 32],
        };
        let link = InviteLink {
            gateway,
            invite: InviteToken::random(&mut self.rng),
        };
        let user: UserName = user.parse().ok()?;
        let (starting, request) =
            signup::start(&link, user.clone(), "password", &mut self.rng).ok()?;
        let request = RegistrationRequest::deserialize(&request.opaque_request).ok()?;
        let id = credential_identifier(&org(), &user);
        let answer = ServerRegistration::<PasswordSuite>::start(&setup, request, &id).ok()?;
        let answer = wire::SignupStarted {
            opaque_response: answer.message.serialize().to_vec().into(),
        };
        let server = self.directory.server();
        let (account, _) = starting
            .finish(&answer, &server, self.now, &mut self.rng)
            .ok()?;
        Some(account)
    }

    fn link(&mut self, old: usize) -> Option<Account> {
        let account = self.machines.get(old)?.engine().account();
        let (new, link) = NewDevice::start(account.gateway.clone(), &mut self.rng).ok()?;
        let (old, commitment) = OldDevice::start(&link, account).ok()?;
        let (new, nonce) = new.answer(&commitment).ok()?;
        let (old, reveal, _) = old.nonce(&nonce, account, self.now).ok()?;
        let (new, code) = new.reveal(&reveal).ok()?;
        let (enrolment, payload) = old.confirm(&code.to_string()).ok()?;
        self.directory.enrol(&enrolment);
        new.payload(&payload, &self.directory.server()).ok()
    }

    fn add(&mut self, account: Account) -> usize {
        let machine = Machine::new(account, self.vault.clone(), &mut self.rng);
        self.machines.push(machine);
        self.machines.len() - 1
    }

    /// Gives a device a command; its ticket.
    pub fn command(&mut self, machine: usize, command: Command) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.give(machine, Input::Command(ticket, command));
        ticket
    }

    /// Makes a room and waits until it is there.
    pub fn create_room(&mut self, machine: usize, join_rule: wire::JoinRule) -> RoomId {
        #[expect(clippy::expect_used, reason = "a constant")]
        let project = "field".parse().expect("a valid name");
        let name = "the room".to_owned();
        let ticket = self.command(
            machine,
            Command::CreateRoom {
                project,
                name,
                join_rule,
            },
        );
        self.settle();
        #[expect(clippy::panic, reason = "nothing to go on with")]
        self.done(machine, ticket)
            .unwrap_or_else(|| panic!("no room: {:?}", self.machines[machine].events))
    }

    /// The room of a command that is done.
    pub fn done(&self, machine: usize, ticket: Ticket) -> Option<RoomId> {
        self.machines
            .get(machine)?
            .events
            .iter()
            .find_map(|event| match event {
                Event::Done { ticket: done, room } if *done == ticket => *room,
                _ => None,
            })
    }

    /// Why a command failed.
    pub fn failure(&self, machine: usize, ticket: Ticket) -> Option<&str> {
        self.machines
            .get(machine)?
            .events
            .iter()
            .find_map(|event| match event {
                Event::Failed {
                    ticket: failed,
                    reason,
                    ..
                } if *failed == ticket => Some(reason.as_str()),
                _ => None,
            })
    }

    /// Stores a payload that no engine made.
    pub fn inject(&mut self, subject: Subject, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        let publish = Publish {
            id: PublishId(0),
            subject,
            message_id: format!("injected at {}", self.now.0),
            expected_last_sequence: None,
            payload,
        };
        self.now.0 += 1;
        if let Ok((_, Some(live))) = self.streams.store(&publish, self.now) {
            self.republish(&live);
        }
    }

    /// Connects a device, as after a reconnection.
    pub fn connect(&mut self, machine: usize) {
        let grants = self.directory.grants(self.machines[machine].device);
        self.machines[machine].online = true;
        let pace = self.pace;
        self.give(machine, Input::Online { grants, pace });
    }

    /// Takes a device off the network.
    pub fn disconnect(&mut self, machine: usize) {
        let there = &mut self.machines[machine];
        there.online = false;
        there.inbound.clear();
        self.give(machine, Input::Offline);
    }

    /// Lets so many ticks go by without faults, with what follows from each.
    pub fn tick(&mut self, ticks: u32) {
        let faults = std::mem::take(&mut self.faults);
        for _ in 0..ticks {
            self.now.0 += 2_000;
            for machine in 0..self.machines.len() {
                if self.machines[machine].online {
                    self.give(machine, Input::Tick);
                }
            }
            while self.turn() {}
        }
        self.faults = faults;
    }

    /// Lets all answers arrive, those on their way first.
    pub fn release_answers(&mut self) {
        self.holding_answers = false;
        self.holding_calls = None;
        for (machine, answer) in std::mem::take(&mut self.held) {
            self.later(machine, answer);
        }
    }

    /// Tells a device what a relay says of another one.
    pub fn tell_presence(&mut self, machine: usize, room: RoomId, device: DeviceId, here: bool) {
        self.give(machine, Input::Presence { room, device, here });
    }

    /// Stores a payload that is stored already once more, and tells of it.
    pub fn replay(&mut self, sequence: u64) {
        if let Some(live) = self.streams.replay(sequence, self.now) {
            self.republish(&live);
        }
    }

    /// Tells once more of a message that is stored.
    pub fn tell_again(&mut self, sequence: u64) {
        if let Some(live) = self.streams.message(sequence) {
            self.republish(&live);
        }
    }

    /// Lets days go by in which nothing happens.
    pub fn let_pass(&mut self, days: u32) {
        self.now.0 += i64::from(days) * 86_400_000;
    }

    /// Sets every device's clock back.
    pub fn set_back(&mut self, hours: u32) {
        self.now.0 -= i64::from(hours) * 3_600_000;
    }

    /// Kills a device; it starts again without a connection.
    pub fn crash(&mut self, machine: usize) {
        self.machines[machine].crash();
    }

    /// Runs with the faults that are set, for so many turns.
    pub fn run(&mut self, turns: u32) {
        for _ in 0..turns {
            self.turn();
        }
    }

    /// Runs without faults until every connected device has nothing left to do.
    pub fn settle(&mut self) {
        let faults = std::mem::take(&mut self.faults);
        for _ in 0..4 {
            for machine in 0..self.machines.len() {
                if !self.machines[machine].online {
                    self.connect(machine);
                }
                self.give(machine, Input::Tick);
            }
            while self.turn() {}
        }
        self.faults = faults;
    }

    /// As [`World::settle`], but leaves who is offline offline.
    pub fn settle_connected(&mut self) {
        let faults = std::mem::take(&mut self.faults);
        for _ in 0..4 {
            for machine in 0..self.machines.len() {
                if self.machines[machine].online {
                    self.give(machine, Input::Tick);
                }
            }
            while self.turn() {}
        }
        self.faults = faults;
    }

    /// One thing happens; `false` when nothing is on its way.
    fn turn(&mut self) -> bool {
        self.now.0 += 50;
        let mut order: Vec<usize> = (0..self.machines.len()).collect();
        order.shuffle(&mut self.rng);
        if let Some(&machine) = order.first() {
            if self.strikes(self.faults.disconnect) {
                let online = self.machines[machine].online;
                if online {
                    self.disconnect(machine)
                } else {
                    self.connect(machine)
                }
                return true;
            }
            if self.strikes(self.faults.disconnect) {
                self.give(machine, Input::Tick);
            }
        }
        for machine in order {
            if let Some(input) = self.machines[machine].inbound.pop_front() {
                self.give(machine, input);
                return true;
            }
        }
        false
    }

    fn give(&mut self, machine: usize, input: Input) {
        if matches!(input, Input::Online { .. }) {
            // What was asked on the connection before is not answered on this one.
            let inbound = &mut self.machines[machine].inbound;
            inbound.retain(|input| {
                !matches!(
                    input,
                    Input::Fetched(_)
                        | Input::FetchFailed
                        | Input::Published { .. }
                        | Input::PublishFailed { .. }
                )
            });
        }
        self.machines[machine].handle(input, self.now, &mut self.rng);
        while let Some(output) = self.machines[machine].poll_output() {
            if !self.act(machine, output) {
                return;
            }
        }
    }

    /// Acts on an output; `false` when the machine died over it.
    fn act(&mut self, machine: usize, output: Output) -> bool {
        match output {
            Output::Persist(batch) => {
                let before = self.strikes(self.faults.crash);
                if !before {
                    self.machines[machine].commit(&batch);
                }
                if before || self.strikes(self.faults.crash) {
                    self.machines[machine].crash();
                    return false;
                }
            }
            Output::Publish(publish) => self.publish(machine, &publish),
            Output::Fetch { gated, request } => {
                let device = self.machines[machine].device;
                let mut frames = self.streams.fetch(device, &request, |room| {
                    let asked_there = match gated {
                        Some(gated) => gated == room,
                        None => !self.directory.is_gated(room),
                    };
                    asked_there && self.directory.may_read(device, room)
                });
                self.asked += 1;
                self.answered += frames.iter().map(|f| f.messages.len()).sum::<usize>();
                let lost = self.strikes(self.faults.lose_fetch);
                if lost {
                    frames.pop();
                }
                let mut answer: Vec<Input> = frames.into_iter().map(Input::Fetched).collect();
                answer.extend(lost.then_some(Input::FetchFailed));
                match self.holding_answers {
                    true => self.held.push((machine, answer)),
                    false => self.later(machine, answer),
                }
            }
            Output::Call { id, path, body } => {
                let device = self.machines[machine].device;
                let lost = self.strikes(self.faults.lose_call);
                let answer = if lost && self.rng.gen_bool(0.5) {
                    Err(CallFailure::Unreachable)
                } else {
                    let answer = self.directory.answer(device, path, &body, self.now);
                    if lost {
                        Err(CallFailure::Unreachable)
                    } else {
                        answer
                    }
                };
                let answer = vec![Input::Answered { id, answer }];
                match self.holding_calls == Some(path) {
                    true => self.held.push((machine, answer)),
                    false => self.later(machine, answer),
                }
            }
            Output::RefreshGrants => {
                let grants = self.directory.grants(self.machines[machine].device);
                let pace = self.pace;
                self.later(machine, vec![Input::Online { grants, pace }]);
            }
            Output::Recall { room, recall } => {
                let entries = self.machines[machine].recall(room, recall);
                let recalled = Input::Recalled {
                    room,
                    recall,
                    entries,
                };
                self.machines[machine].handle(recalled, self.now, &mut self.rng);
            }
            Output::Beacon(beacon) => self.machines[machine].beacons.push(beacon),
            Output::Event(event) => self.machines[machine].events.push(event),
        }
        true
    }

    fn publish(&mut self, machine: usize, publish: &Publish) {
        let id = publish.id;
        if self.strikes(self.faults.lose_publish) || !self.machines[machine].online {
            return self.later(
                machine,
                vec![Input::PublishFailed {
                    id,
                    failure: PublishFailure::Lost,
                }],
            );
        }
        if let Some(refusal) = self.refusing.clone()
            && (self.refuses)(&publish.subject)
        {
            self.refused += 1;
            let failure = PublishFailure::Refused(refusal);
            return self.later(machine, vec![Input::PublishFailed { id, failure }]);
        }
        let stored_at = Timestamp(self.now.0 + self.servers_ahead_ms);
        let (live, mut answer) = match self.streams.store(publish, stored_at) {
            Ok((sequence, live)) => (live, Input::Published { id, sequence }),
            Err(failure) => (None, Input::PublishFailed { id, failure }),
        };
        let (sooner, later) = match self.acks_first {
            true => (None, live),
            false => (live, None),
        };
        sooner.iter().for_each(|live| self.republish(live));
        if self.strikes(self.faults.lose_ack) {
            let failure = PublishFailure::Lost;
            answer = Input::PublishFailed { id, failure };
        }
        self.later(machine, vec![answer]);
        later.iter().for_each(|live| self.republish(live));
    }

    fn republish(&mut self, message: &sotto_client_core::io::LiveMessage) {
        for machine in 0..self.machines.len() {
            let device = self.machines[machine].device;
            let hears = match &message.subject {
                Subject::Messages(address) | Subject::Handshakes(address) => {
                    self.directory.may_hear(device, address.room)
                }
                Subject::Inbox(to) => *to == device,
                _ => false,
            };
            if hears && !self.strikes(self.faults.lose_live) {
                self.later(machine, vec![Input::Live(message.clone())]);
            }
        }
    }

    /// Puts inputs on their way to a machine that is connected.
    fn later(&mut self, machine: usize, inputs: Vec<Input>) {
        let there = &mut self.machines[machine];
        if there.online {
            there.inbound.extend(inputs);
        }
    }

    fn strikes(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.rng.gen_range(0..one_in) == 0
    }
}
