//! A small org, and who may do what in it.

mod levels;
mod lockouts;
mod reach;
mod speed;
mod table;

use std::num::NonZeroU32;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use nkeys::{KeyPair, KeyPairType};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{DeviceId, FactorId, ProjectName, RoomId, Shard};

use super::*;
use crate::directory::{Change, Event, Holder, InviteHash, Role, Scope, Status};

const NOW_MS: i64 = 1_800_000_000_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Acme with its project `field` and three rooms in it.
#[derive(Clone)]
struct Org {
    state: State,
    users: u8,
}

impl Org {
    fn new() -> Self {
        let mut org = Self {
            state: State::default(),
            users: 0,
        };
        org.change(Change::OrgCreated {
            org: "acme".parse().unwrap(),
            gateway_key: key(200),
        });
        org.change(Change::ProjectCreated { project: field() });
        for (room, join_rule) in [
            (closed(), JoinRule::Invite),
            (open(), JoinRule::Open),
            (archived(), JoinRule::Open),
        ] {
            org.change(Change::RoomCreated {
                room,
                project: field(),
                shard: Shard(0),
                join_rule,
            });
        }
        org
    }

    fn change(&mut self, change: Change) {
        self.change_at(change, NOW_MS);
    }

    fn change_at(&mut self, change: Change, at_ms: i64) {
        let event = Event {
            index: 0,
            previous: None,
            at_ms,
            actor: Actor::Gateway,
            change,
        };
        self.state.apply(&event).unwrap();
    }

    fn archive(&mut self) {
        self.change(Change::RoomStatusSet {
            room: archived(),
            status: Status::Archived,
        });
    }

    /// Signs up somebody with a device whose number is theirs.
    fn enrol(&mut self, name: &str) -> DeviceId {
        self.enrol_until(name, None)
    }

    fn enrol_until(&mut self, name: &str, guest_until_ms: Option<i64>) -> DeviceId {
        self.users += 1;
        let number = self.users;
        let invite = InviteHash([number; 32]);
        self.change(Change::InviteIssued {
            invite,
            expires_ms: NOW_MS,
            scope: Scope::Room(closed()),
            role: Role::User,
            for_user: None,
            guest_until_ms,
        });
        self.change(Change::UserEnrolled {
            user: user(name),
            identity_key: key(number),
            invite,
        });
        self.device(name, number)
    }

    fn device(&mut self, name: &str, number: u8) -> DeviceId {
        self.device_by(name, number, number)
    }

    /// One more device, certified by the identity key of this number.
    fn device_by(&mut self, name: &str, identity: u8, number: u8) -> DeviceId {
        let nats_key = KeyPair::new_from_raw(KeyPairType::User, [number; 32]).unwrap();
        let device = DeviceId::try_from(&[number; 16][..]).unwrap();
        let certificate = DeviceCertificate {
            org: "acme".parse().unwrap(),
            user: user(name),
            device,
            identity_key: key(identity),
            signature_key: key(number),
            nats_key: nats_key.public_key(),
            not_before_ms: NOW_MS,
            not_after_ms: NOW_MS + 24 * HOUR_MS,
        };
        let signed = certificate.sign(&SigningKey::from_bytes(&[identity; 32]));
        self.change(Change::DeviceAdded {
            certificate,
            signed,
        });
        device
    }

    fn grant(&mut self, name: &str, scope: Scope, role: Role) {
        self.change(Change::RoleGranted {
            holder: Holder::User(user(name)),
            scope,
            role,
        });
    }

    fn introduce(&mut self, name: &str, by: &str) {
        self.change(Change::IntroductionGiven {
            user: user(name),
            by: user(by),
        });
    }

    fn enrol_factor(&mut self, name: &str, factor: Factor) {
        self.change(Change::FactorEnrolled {
            user: user(name),
            factor,
            id: FactorId::try_from(&[factor as u8; 16][..]).unwrap(),
        });
    }

    fn demand(&mut self, scope: Scope, demands: &[wire::Demand]) {
        self.set(scope, demands, "");
    }

    fn cedar(&mut self, scope: Scope, cedar: &str) {
        self.set(scope, &[], cedar);
    }

    fn set(&mut self, scope: Scope, demands: &[wire::Demand], cedar: &str) {
        let policy = policy(demands, cedar).unwrap();
        policy.validate().unwrap();
        self.change(Change::PolicySet {
            scope,
            policy: Some(Arc::new(policy)),
        });
    }

    fn ask<A: Action>(
        &self,
        name: &str,
        proven: &Proven,
        action: A,
        object: &A::Object,
    ) -> Result<Permit<A>, Denied> {
        let asking = Asking {
            user: &user(name),
            proven,
            now_ms: NOW_MS,
        };
        check(&self.state, asking, action, object)
    }

    fn denied<A: Action>(&self, name: &str, action: A, object: &A::Object) -> Denied {
        self.ask(name, &Proven::none(), action, object).unwrap_err()
    }
}

fn policy(demands: &[wire::Demand], cedar: &str) -> Result<LevelPolicy, BadPolicy> {
    let policy = wire::Policy {
        demands: demands.to_vec(),
        cedar: cedar.to_owned(),
    };
    policy.try_into()
}

/// A factor, proven at most so long ago; 0: however long.
fn factor(actions: &[ActionKind], factor: Factor, max_age_seconds: u32) -> wire::Demand {
    wire::Demand {
        actions: wire_actions(actions),
        factor: wire::Factor::from(factor).into(),
        max_age_seconds,
        ..wire::Demand::default()
    }
}

fn introductions(actions: &[ActionKind], at_least: u32, of: u32) -> wire::Demand {
    wire::Demand {
        actions: wire_actions(actions),
        factor: wire::Factor::Introductions.into(),
        at_least,
        of,
        ..wire::Demand::default()
    }
}

fn wire_actions(actions: &[ActionKind]) -> Vec<i32> {
    let actions = actions.iter().copied();
    actions
        .map(|action| wire::PolicyAction::from(action).into())
        .collect()
}

fn key(number: u8) -> VerifyingKey {
    SigningKey::from_bytes(&[number; 32]).verifying_key()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn field() -> ProjectName {
    "field".parse().unwrap()
}

fn in_field() -> Scope {
    Scope::Project(field())
}

fn closed() -> RoomId {
    room(1)
}

fn open() -> RoomId {
    room(2)
}

fn archived() -> RoomId {
    room(3)
}

fn room(number: u8) -> RoomId {
    (&[number; 16][..]).try_into().unwrap()
}

#[test]
fn a_denial_says_who_lacks_what_where() {
    let mut org = Org::new();
    org.enrol("alice");
    assert_eq!(
        org.denied("alice", Post, &closed()).to_string(),
        "alice may not post in room aeaqcaibaeaqcaibaeaqcaibae: a role in the room is needed; ask one of its owners for an invitation"
    );
}

#[test]
fn strangers_and_unknown_objects_are_denied() {
    let mut org = Org::new();
    org.enrol("alice");
    org.grant("alice", Scope::Org, Role::Owner);
    org.denied("mallory", Introduce, &());
    org.denied("alice", Manage, &Scope::Room(room(9)));
    org.denied("alice", CreateRoom, &"nowhere".parse().unwrap());
}

#[test]
fn who_is_expected_revoked_or_over_is_denied_everything() {
    let mut org = Org::new();
    org.change(Change::UserAdded {
        user: user("expected"),
        title: None,
        external_id: None,
    });
    org.enrol("revoked");
    org.enrol_until("guest", Some(NOW_MS));
    org.enrol_until("staying", Some(NOW_MS + 1));
    let everyone = ["expected", "revoked", "guest", "staying"];
    for name in everyone {
        org.grant(name, Scope::Room(closed()), Role::User);
    }
    org.change(Change::UserRevoked {
        user: user("revoked"),
    });
    let reads = everyone.map(|name| org.ask(name, &Proven::all(NOW_MS), Read, &closed()).is_ok());
    assert_eq!(reads, [false, false, false, true]);
}

#[test]
fn a_room_role_by_a_group_is_a_role_in_the_room() {
    let mut org = Org::new();
    org.enrol("alice");
    let group = "crew".parse().unwrap();
    org.change(Change::GroupCreated {
        group,
        title: None,
        external_id: None,
    });
    org.change(Change::RoleGranted {
        holder: Holder::Group("crew".parse().unwrap()),
        scope: Scope::Room(closed()),
        role: Role::User,
    });
    org.denied("alice", Post, &closed());
    org.change(Change::GroupMemberAdded {
        group: "crew".parse().unwrap(),
        user: user("alice"),
    });
    assert!(org.ask("alice", &Proven::none(), Post, &closed()).is_ok());
}

#[test]
fn what_is_archived_is_read_and_managed_and_nothing_else() {
    let mut org = Org::new();
    org.enrol("alice");
    org.grant("alice", Scope::Room(archived()), Role::Owner);
    org.archive();
    let none = Proven::none();
    let place = Scope::Room(archived());
    assert!(org.ask("alice", &none, Read, &archived()).is_ok());
    assert!(org.ask("alice", &none, Manage, &place).is_ok());
    org.denied("alice", Join, &archived());
    org.denied("alice", Invite, &place);
    let denied = org.denied("alice", Post, &archived());
    assert!(
        denied
            .to_string()
            .ends_with("it is archived; ask one of its owners to restore it")
    );
}
