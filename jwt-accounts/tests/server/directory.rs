//! A directory in memory, and people in it.

use std::num::NonZeroU8;

use ed25519_dalek::SigningKey;
use nkeys::KeyPair;
use sotto_jwt_accounts::directory::{
    Actor, Command, Event, InviteHash, Role, Scope, State, decide,
};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{JoinRule, Signed};
use sotto_proto::{DeviceId, RoomAddress, RoomId, UserName};

use super::now_ms;

/// A user with one device; every key follows from the number.
pub struct Person {
    pub name: UserName,
    pub device: DeviceId,
    number: u8,
}

impl Person {
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.parse().unwrap(),
            device: (&[number; 16][..]).try_into().unwrap(),
            number,
        }
    }

    pub fn nats_key(&self) -> KeyPair {
        KeyPair::new_from_raw(nkeys::KeyPairType::User, [self.number; 32]).unwrap()
    }

    pub fn actor(&self) -> Actor {
        Actor::User(self.name.clone())
    }

    pub fn certificate(&self) -> Signed {
        let identity = SigningKey::from_bytes(&[self.number; 32]);
        let certificate = DeviceCertificate {
            org: "acme".parse().unwrap(),
            user: self.name.clone(),
            device: self.device,
            identity_key: identity.verifying_key(),
            signature_key: SigningKey::from_bytes(&[self.number.wrapping_add(100); 32])
                .verifying_key(),
            nats_key: self.nats_key().public_key(),
            not_before_ms: now_ms(),
            not_after_ms: now_ms() + 1_000_000_000,
        };
        certificate.sign(&identity)
    }
}

/// The org `acme` with the project `field`.
pub struct Directory {
    pub state: State,
}

impl Directory {
    pub fn new() -> Self {
        let mut directory = Self {
            state: State::default(),
        };
        for command in first_commands() {
            directory.run(&Actor::Gateway, command);
        }
        directory
    }

    /// Decides and applies a command that must be accepted.
    pub fn run(&mut self, actor: &Actor, command: Command) {
        for change in decide(&self.state, &actor.clone().into(), command, now_ms()).unwrap() {
            let event = Event {
                index: 0,
                previous: None,
                at_ms: now_ms(),
                actor: actor.clone(),
                change,
            };
            self.state.apply(&event).unwrap();
        }
    }

    /// Signs someone up as an owner of the project.
    pub fn enrol(&mut self, who: &Person) {
        for (actor, command) in enrolment(who) {
            self.run(&actor, command);
        }
    }

    /// Signs someone up with this role there.
    pub fn enrol_as(&mut self, who: &Person, scope: Scope, role: Role) {
        for (actor, command) in enrolment_as(who, scope, role) {
            self.run(&actor, command);
        }
    }

    /// Makes a room that `owner` owns.
    pub fn room(&mut self, owner: &Person, number: u8) -> RoomAddress {
        self.room_in(owner, "field", number, JoinRule::Invite)
    }

    /// Makes a room somewhere that `owner` owns.
    pub fn room_in(
        &mut self,
        owner: &Person,
        project: &str,
        number: u8,
        join_rule: JoinRule,
    ) -> RoomAddress {
        let room: RoomId = (&[number; 16][..]).try_into().unwrap();
        let command = Command::CreateRoom {
            room,
            project: project.parse().unwrap(),
            join_rule,
            shards: NonZeroU8::MIN,
        };
        self.run(&owner.actor(), command);
        self.state.room(room).unwrap().address.clone()
    }
}

pub fn gateway_key() -> SigningKey {
    SigningKey::from_bytes(&[200; 32])
}

pub fn first_commands() -> [Command; 2] {
    [
        Command::CreateOrg {
            org: "acme".parse().unwrap(),
            gateway_key: gateway_key().verifying_key(),
        },
        Command::CreateProject {
            project: "field".parse().unwrap(),
        },
    ]
}

pub fn enrolment(who: &Person) -> [(Actor, Command); 2] {
    enrolment_as(who, Scope::Project("field".parse().unwrap()), Role::Owner)
}

pub fn enrolment_as(who: &Person, scope: Scope, role: Role) -> [(Actor, Command); 2] {
    let invite = InviteHash([who.number; 32]);
    let issue = Command::IssueInvite {
        invite,
        expires_ms: now_ms() + 60_000,
        scope,
        role,
        for_user: None,
        guest_until_ms: None,
    };
    let enrol = Command::Enrol {
        invite,
        certificate: who.certificate(),
    };
    [(Actor::Gateway, issue), (who.actor(), enrol)]
}

pub fn create_room(room: RoomId) -> Command {
    Command::CreateRoom {
        room,
        project: "field".parse().unwrap(),
        join_rule: JoinRule::Invite,
        shards: NonZeroU8::MIN,
    }
}
