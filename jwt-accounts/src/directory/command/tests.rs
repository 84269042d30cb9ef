use ed25519_dalek::SigningKey;
use nkeys::{KeyPair, KeyPairType};
use proptest::prelude::*;
use sotto_proto::limits;
use sotto_proto::signed::DeviceCertificate;

use super::super::terms::Actor;
use super::plan::shard;
use super::*;
use crate::policy::{Proven, nats_access, revoked_nats_keys};

const NOW_MS: i64 = 1_800_000_000_000;

/// An org whose owner is alice; bob and carol are users of its project `field`.
struct Org {
    state: State,
}

impl Org {
    fn new() -> Self {
        let mut org = Self {
            state: State::default(),
        };
        let create = Command::CreateOrg {
            org: "acme".parse().unwrap(),
            gateway_key: key(200).verifying_key(),
        };
        org.run(&Actor::Gateway, create);
        let project = field();
        org.run(&Actor::Gateway, Command::CreateProject { project });
        org.sign_up("alice", 1, Scope::Org, Role::Owner);
        org.sign_up("bob", 2, Scope::Project(field()), Role::User);
        org.sign_up("carol", 3, Scope::Project(field()), Role::User);
        org
    }

    fn try_to(&mut self, actor: &Actor, command: Command) -> Result<usize, Refusal> {
        let changes = decide(&self.state, &actor.clone().into(), command, NOW_MS)?;
        let count = changes.len();
        for change in changes {
            let event = Event {
                index: 0,
                previous: None,
                at_ms: NOW_MS,
                actor: actor.clone(),
                change,
            };
            self.state.apply(&event).unwrap();
        }
        Ok(count)
    }

    fn run(&mut self, actor: &Actor, command: Command) {
        self.try_to(actor, command).unwrap();
    }

    /// Enrols a first factor.
    fn enrol(&mut self, name: &str, factor: Factor, id: FactorId) {
        let by = By {
            actor: user(name),
            proven: Proven::none().with(Factor::Password, NOW_MS),
        };
        let enrol = Command::EnrolFactor { factor, id };
        for change in decide(&self.state, &by, enrol, NOW_MS).unwrap() {
            let event = Event {
                index: 0,
                previous: None,
                at_ms: NOW_MS,
                actor: by.actor.clone(),
                change,
            };
            self.state.apply(&event).unwrap();
        }
    }

    fn sign_up(&mut self, name: &str, number: u8, scope: Scope, role: Role) {
        let invite = InviteHash([number; 32]);
        let issue = Command::IssueInvite {
            invite,
            expires_ms: NOW_MS,
            scope,
            role,
            for_user: None,
            guest_until_ms: None,
        };
        self.run(&Actor::Gateway, issue);
        let certificate = certificate(name, number, number);
        self.run(
            &user(name),
            Command::Enrol {
                invite,
                certificate,
            },
        );
    }

    fn room(&mut self, owner: &str, number: u8, join_rule: JoinRule) -> RoomId {
        let room = RoomId::try_from(&[number; 16][..]).unwrap();
        let create = Command::CreateRoom {
            room,
            project: field(),
            join_rule,
            shards: NonZeroU8::MIN,
        };
        self.run(&user(owner), create);
        room
    }
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn field() -> ProjectName {
    "field".parse().unwrap()
}

fn user(name: &str) -> Actor {
    Actor::User(name.parse().unwrap())
}

fn device(number: u8) -> DeviceId {
    (&[number; 16][..]).try_into().unwrap()
}

fn certificate(name: &str, identity: u8, number: u8) -> Signed {
    let nats_key = KeyPair::new_from_raw(KeyPairType::User, [number; 32]).unwrap();
    let certificate = DeviceCertificate {
        org: "acme".parse().unwrap(),
        user: name.parse().unwrap(),
        device: device(number),
        identity_key: key(identity).verifying_key(),
        signature_key: key(number).verifying_key(),
        nats_key: nats_key.public_key(),
        not_before_ms: NOW_MS,
        not_after_ms: NOW_MS + 1_000,
    };
    certificate.sign(&key(identity))
}

fn add(name: &str, identity: u8, number: u8) -> Command {
    Command::AddDevice {
        certificate: certificate(name, identity, number),
    }
}

fn grant(name: &str, room: RoomId, role: Role) -> Command {
    Command::GrantRole {
        holder: Holder::User(name.parse().unwrap()),
        scope: Scope::Room(room),
        role,
    }
}

fn revoke(name: &str, scope: Scope) -> Command {
    Command::RevokeRole {
        holder: Holder::User(name.parse().unwrap()),
        scope,
    }
}

fn rule(refused: Result<usize, Refusal>) -> Rule {
    match refused {
        Err(Refusal::Rule(rule)) => rule,
        other => panic!("{other:?}"),
    }
}

fn is_denied(refused: &Result<usize, Refusal>) -> bool {
    matches!(refused, Err(Refusal::Denied(_)))
}

#[test]
fn who_makes_a_room_owns_it_and_nobody_else_is_in_it() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    let bob = "bob".parse().unwrap();
    assert_eq!(
        org.state.granted_role(&bob, &Scope::Room(room)),
        Some(Role::Owner)
    );
    for (number, rooms) in [(1, 0), (2, 1), (3, 0)] {
        let access = nats_access(&org.state, device(number), &Proven::none(), NOW_MS).unwrap();
        assert_eq!(access.rooms().len(), rooms, "device {number}");
    }
}

#[test]
fn inviting_an_owner_again_does_not_demote_them() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    assert_eq!(
        org.try_to(&user("bob"), grant("carol", room, Role::Owner)),
        Ok(1)
    );
    assert_eq!(
        org.try_to(&user("bob"), grant("carol", room, Role::User)),
        Ok(0)
    );
    let carol = "carol".parse().unwrap();
    assert_eq!(
        org.state.granted_role(&carol, &Scope::Room(room)),
        Some(Role::Owner)
    );
}

#[test]
fn only_owners_let_others_in() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    assert!(is_denied(
        &org.try_to(&user("carol"), grant("carol", room, Role::User))
    ));
    org.run(&user("bob"), grant("carol", room, Role::User));
    assert!(is_denied(
        &org.try_to(&user("carol"), grant("alice", room, Role::User))
    ));
    assert!(is_denied(
        &org.try_to(&user("carol"), revoke("bob", Scope::Room(room)))
    ));
    // The org's owner is not in the room, and can let herself in for all to see.
    assert_eq!(
        org.try_to(&user("alice"), grant("alice", room, Role::User)),
        Ok(1)
    );
}

#[test]
fn open_rooms_are_joined_and_closed_ones_are_not() {
    let mut org = Org::new();
    let closed = org.room("bob", 50, JoinRule::Invite);
    let open = org.room("bob", 51, JoinRule::Open);
    let carol = user("carol");
    assert!(is_denied(
        &org.try_to(&carol, Command::JoinRoom { room: closed })
    ));
    assert_eq!(org.try_to(&carol, Command::JoinRoom { room: open }), Ok(1));
    assert_eq!(org.try_to(&carol, Command::JoinRoom { room: open }), Ok(0));
    assert!(is_denied(
        &org.try_to(&Actor::Gateway, Command::JoinRoom { room: open })
    ));
}

#[test]
fn the_last_owner_stays() {
    let mut org = Org::new();
    let last = revoke("alice", Scope::Org);
    assert_eq!(
        rule(org.try_to(&user("alice"), last.clone())),
        Rule::LastOwner
    );
    assert_eq!(
        rule(org.try_to(&Actor::Gateway, last.clone())),
        Rule::LastOwner
    );
    let second = Command::GrantRole {
        holder: Holder::User("bob".parse().unwrap()),
        scope: Scope::Org,
        role: Role::Owner,
    };
    org.run(&user("alice"), second);
    org.run(&user("alice"), last);
    assert_eq!(
        rule(org.try_to(&user("bob"), revoke("bob", Scope::Org))),
        Rule::LastOwner
    );
}

#[test]
fn invites_are_good_once_in_time_and_for_a_free_name() {
    let mut org = Org::new();
    let enrol = |name: &str, invite: u8| Command::Enrol {
        invite: InviteHash([invite; 32]),
        certificate: certificate(name, 60, 60),
    };
    let issue = |invite: u8, expires_ms: i64| Command::IssueInvite {
        invite: InviteHash([invite; 32]),
        expires_ms,
        scope: Scope::Project(field()),
        role: Role::User,
        for_user: None,
        guest_until_ms: None,
    };
    assert!(is_denied(&org.try_to(&user("bob"), issue(10, NOW_MS))));
    org.run(&user("alice"), issue(10, NOW_MS));
    org.run(&user("alice"), issue(11, NOW_MS - 1));
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 11))),
        Rule::InviteExpired
    );
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 12))),
        Rule::InviteInvalid
    );
    // Bob's name with another identity key; somebody else's certificate.
    assert_eq!(
        rule(org.try_to(&user("bob"), enrol("bob", 10))),
        Rule::UserTaken("bob".parse().unwrap())
    );
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("eve", 10))),
        Rule::Certificate("another user")
    );
    assert_eq!(org.try_to(&user("dave"), enrol("dave", 10)), Ok(3));
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 10))),
        Rule::InviteInvalid
    );
}

#[test]
fn devices_are_their_users_own() {
    let mut org = Org::new();
    assert_eq!(org.try_to(&user("bob"), add("bob", 2, 70)), Ok(1));
    assert_eq!(
        rule(org.try_to(&user("bob"), add("bob", 9, 71))),
        Rule::Certificate("another identity key")
    );
    assert_eq!(
        rule(org.try_to(&user("carol"), add("bob", 2, 72))),
        Rule::Certificate("another user")
    );
    assert_eq!(
        rule(org.try_to(&user("bob"), add("bob", 2, 70))),
        Rule::DeviceTaken
    );
    // Alice's device id and key, certified by bob for himself.
    assert_eq!(
        rule(org.try_to(&user("bob"), add("bob", 2, 1))),
        Rule::DeviceTaken
    );
    let mut forged = certificate("bob", 2, 73);
    forged.signature = certificate("bob", 2, 74).signature;
    let forged = Command::AddDevice {
        certificate: forged,
    };
    assert_eq!(
        rule(org.try_to(&user("bob"), forged)),
        Rule::Certificate("its signature is wrong")
    );
}

#[test]
fn a_certificate_has_its_time() {
    let mut org = Org::new();
    let day_ms = limits::CLOCK_SKEW.as_millis() as i64;
    for (off_ms, accepted) in [(-day_ms, true), (-day_ms - 1, false)] {
        let decided = decide(
            &org.state,
            &user("bob").into(),
            add("bob", 2, 70),
            NOW_MS + off_ms,
        );
        assert_eq!(decided.is_ok(), accepted, "{off_ms}");
    }
    org.run(&user("bob"), add("bob", 2, 70));
    assert!(nats_access(&org.state, device(70), &Proven::none(), NOW_MS + 1_000).is_ok());
    assert!(nats_access(&org.state, device(70), &Proven::none(), NOW_MS + 1_001).is_err());
}

#[test]
fn a_revoked_device_is_gone_and_does_not_return() {
    let mut org = Org::new();
    org.run(&user("bob"), add("bob", 2, 70));
    let revoke = Command::RevokeDevice { device: device(70) };
    assert!(is_denied(&org.try_to(&user("carol"), revoke.clone())));
    org.run(&user("bob"), revoke.clone());
    assert!(nats_access(&org.state, device(70), &Proven::none(), NOW_MS).is_err());
    let key = KeyPair::new_from_raw(KeyPairType::User, [70; 32]).unwrap();
    let void = revoked_nats_keys(&org.state, NOW_MS);
    let until_s = void.get(&key.public_key()).copied();
    assert!(until_s > Some(NOW_MS / 1_000), "{void:?}");
    // Again, as the answer may have got lost.
    assert_eq!(org.try_to(&user("bob"), revoke.clone()), Ok(0));
    assert_eq!(revoked_nats_keys(&org.state, NOW_MS), void);
    assert!(is_denied(&org.try_to(&user("carol"), revoke)));
    let never = Command::RevokeDevice { device: device(71) };
    assert_eq!(rule(org.try_to(&user("bob"), never)), Rule::UnknownDevice);
    assert_eq!(
        rule(org.try_to(&user("bob"), add("bob", 2, 70))),
        Rule::DeviceTaken
    );
    // An owner of the org revokes anyone's.
    org.run(&user("alice"), Command::RevokeDevice { device: device(3) });
}

#[test]
fn a_user_has_so_many_devices() {
    let mut org = Org::new();
    for number in 1..limits::DEVICES_PER_USER as u8 {
        org.run(&user("bob"), add("bob", 2, 100 + number));
    }
    assert_eq!(
        rule(org.try_to(&user("bob"), add("bob", 2, 99))),
        Rule::TooManyDevices
    );
}

#[test]
fn an_org_is_created_once_and_first() {
    let create = || Command::CreateOrg {
        org: "acme".parse().unwrap(),
        gateway_key: key(200).verifying_key(),
    };
    assert_eq!(
        rule(Org::new().try_to(&Actor::Gateway, create())),
        Rule::OrgOnce
    );
    let mut empty = Org {
        state: State::default(),
    };
    let project = Command::CreateProject { project: field() };
    assert_eq!(rule(empty.try_to(&Actor::Gateway, project)), Rule::OrgOnce);
    assert!(is_denied(&empty.try_to(&user("alice"), create())));
}

proptest! {
    #[test]
    fn a_rooms_shard_is_one_of_those_there_are(room: [u8; 16], shards in 1..=u8::MAX) {
        let room = RoomId::try_from(&room[..]).unwrap();
        let shards = NonZeroU8::new(shards).unwrap();
        prop_assert!(shard(room, shards).0 < shards.get());
        prop_assert_eq!(shard(room, shards), shard(room, shards));
    }
}

mod administration;
