//! Whatever may be asked of a small org, by whomever.

use std::num::NonZeroU8;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use nkeys::{KeyPair, KeyPairType};
use proptest::collection::vec;
use proptest::prelude::*;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, JoinRule, Signed};
use sotto_proto::{DeviceId, FactorId, GroupName, ProjectName, RoomId, Title, UserName};

use super::super::*;
use super::NOW_MS;
use crate::policy::{Factor, LevelPolicy};

pub(super) const USERS: u8 = 4;

pub(super) fn user(number: u8) -> UserName {
    format!("user-{number}").parse().unwrap()
}

pub(super) fn project(number: u8) -> ProjectName {
    format!("project-{number}").parse().unwrap()
}

pub(super) fn room(number: u8) -> RoomId {
    (&[number; 16][..]).try_into().unwrap()
}

pub(super) fn device(number: u8) -> DeviceId {
    (&[number; 16][..]).try_into().unwrap()
}

/// A device of a user, with the identity key of perhaps another one.
pub(super) fn certificate(of: u8, number: u8, identity: u8) -> Signed {
    let identity = SigningKey::from_bytes(&[identity; 32]);
    let nats_key = KeyPair::new_from_raw(KeyPairType::User, [number; 32]).unwrap();
    let certificate = DeviceCertificate {
        org: "acme".parse().unwrap(),
        user: user(of),
        device: device(number),
        identity_key: identity.verifying_key(),
        signature_key: SigningKey::from_bytes(&[number; 32]).verifying_key(),
        nats_key: nats_key.public_key(),
        not_before_ms: NOW_MS,
        not_after_ms: NOW_MS + 1_000,
    };
    certificate.sign(&identity)
}

pub(super) fn any_user() -> impl Strategy<Value = UserName> {
    (0..USERS).prop_map(user)
}

pub(super) fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Org),
        (0..3u8).prop_map(|number| Scope::Project(project(number))),
        (0..4u8).prop_map(|number| Scope::Room(room(number))),
    ]
}

pub(super) fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::User), Just(Role::Owner)]
}

pub(super) fn any_invite() -> impl Strategy<Value = InviteHash> {
    (0..6u8).prop_map(|number| InviteHash([number; 32]))
}

/// Mostly a user's own certificate, now and then one by another identity key.
pub(super) fn any_certificate(of: u8) -> impl Strategy<Value = Signed> {
    let identity = prop_oneof![9 => Just(of), 1 => 0..USERS];
    (0..40u8, identity).prop_map(move |(number, identity)| certificate(of, number, identity))
}

pub(super) fn group(number: u8) -> GroupName {
    format!("group-{number}").parse().unwrap()
}

pub(super) fn any_project() -> impl Strategy<Value = ProjectName> {
    (0..3u8).prop_map(project)
}

pub(super) fn any_room() -> impl Strategy<Value = RoomId> {
    (0..4u8).prop_map(room)
}

pub(super) fn any_group() -> impl Strategy<Value = GroupName> {
    (0..3u8).prop_map(group)
}

pub(super) fn any_holder() -> impl Strategy<Value = Holder> {
    prop_oneof![
        2 => any_user().prop_map(Holder::User),
        1 => any_group().prop_map(Holder::Group),
    ]
}

/// Some of them look alike, or like a name.
pub(super) fn any_title() -> impl Strategy<Value = Option<Title>> {
    let titles = ["Alice", "A1ice", "User-1", "project-1", "G\u{f6}del"];
    proptest::option::of(proptest::sample::select(titles.to_vec()))
        .prop_map(|title| title.map(|title| title.parse().unwrap()))
}

pub(super) fn any_external_id() -> impl Strategy<Value = Option<ExternalId>> {
    proptest::option::of((0..3u8).prop_map(|number| format!("uuid-{number}").parse().unwrap()))
}

pub(super) fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        3 => Just(Status::Active),
        2 => Just(Status::Archived),
        1 => Just(Status::Deleted),
    ]
}

pub(super) fn any_until() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.3, (1..60i64).prop_map(|valid_ms| NOW_MS + valid_ms))
}

/// A harmless one: what it says is not what these tests are about.
pub(super) fn any_policy() -> impl Strategy<Value = Option<Arc<LevelPolicy>>> {
    proptest::option::of((1..100u32).prop_map(|max_age_seconds| {
        let demand = wire::Demand {
            actions: vec![wire::PolicyAction::Post.into()],
            factor: wire::Factor::Password.into(),
            max_age_seconds,
            ..wire::Demand::default()
        };
        let policy = wire::Policy {
            demands: vec![demand],
            cedar: String::new(),
        };
        Arc::new(LevelPolicy::try_from(policy).unwrap())
    }))
}

pub(super) fn any_factor_id() -> impl Strategy<Value = FactorId> {
    (0..4u8).prop_map(|number| (&[number; 16][..]).try_into().unwrap())
}

/// What anyone may ask for, whether or not they may have it.
pub(super) fn any_ask() -> BoxedStrategy<Command> {
    let of_the_org = prop_oneof![
        any_project().prop_map(|project| Command::CreateProject { project }),
        (
            (any_invite(), 0..60i64, any_scope(), any_role()),
            proptest::option::weighted(0.3, any_user()),
            any_until(),
        )
            .prop_map(
                |((invite, valid_ms, scope, role), for_user, guest_until_ms)| {
                    Command::IssueInvite {
                        invite,
                        expires_ms: NOW_MS + valid_ms,
                        scope,
                        role,
                        for_user,
                        guest_until_ms,
                    }
                }
            ),
        (any_titled(), any_title()).prop_map(|(of, title)| Command::SetTitle { of, title }),
        (any_project(), any_status())
            .prop_map(|(project, status)| Command::SetProjectStatus { project, status }),
        (any_room(), any_status())
            .prop_map(|(room, status)| Command::SetRoomStatus { room, status }),
        (any_room(), any_project()).prop_map(|(room, project)| Command::MoveRoom { room, project }),
        (any_scope(), any_policy())
            .prop_map(|(scope, policy)| Command::SetPolicy { scope, policy }),
    ];
    let of_rooms = prop_oneof![
        (any_room(), any_project(), any::<bool>(), 1..=4u8).prop_map(
            |(room, project, open, shards)| Command::CreateRoom {
                room,
                project,
                join_rule: if open {
                    JoinRule::Open
                } else {
                    JoinRule::Invite
                },
                shards: NonZeroU8::new(shards).unwrap(),
            }
        ),
        any_room().prop_map(|room| Command::JoinRoom { room }),
        (any_holder(), any_scope(), any_role()).prop_map(|(holder, scope, role)| {
            Command::GrantRole {
                holder,
                scope,
                role,
            }
        }),
        (any_holder(), any_scope())
            .prop_map(|(holder, scope)| Command::RevokeRole { holder, scope }),
    ];
    let of_users = prop_oneof![
        (any_user(), any_title(), any_external_id()).prop_map(|(user, title, external_id)| {
            Command::AddUser {
                user,
                title,
                external_id,
            }
        }),
        any_user().prop_map(|user| Command::RevokeUser { user }),
        (0..40u8).prop_map(|number| Command::RevokeDevice {
            device: device(number)
        }),
        (any_user(), any_until())
            .prop_map(|(user, until_ms)| Command::SetGuestUntil { user, until_ms }),
        (any_user(), any_user()).prop_map(|(user, by)| Command::Introduce { user, by }),
        (any_user(), any_user()).prop_map(|(user, by)| Command::WithdrawIntroduction { user, by }),
        any_factor_id().prop_map(|id| Command::EnrolFactor {
            factor: Factor::Totp,
            id
        }),
        (any_user(), any_factor_id()).prop_map(|(user, id)| Command::RemoveFactor { user, id }),
    ];
    let of_groups = prop_oneof![
        (any_group(), any_title(), any_external_id()).prop_map(|(group, title, external_id)| {
            Command::CreateGroup {
                group,
                title,
                external_id,
            }
        }),
        any_group().prop_map(|group| Command::DeleteGroup { group }),
        (any_group(), any_user()).prop_map(|(group, user)| Command::AddGroupMember { group, user }),
        (any_group(), any_user())
            .prop_map(|(group, user)| Command::RemoveGroupMember { group, user }),
    ];
    prop_oneof![of_the_org, of_rooms, of_users, of_groups].boxed()
}

pub(super) fn any_titled() -> impl Strategy<Value = Titled> {
    prop_oneof![
        Just(Titled::Org),
        any_project().prop_map(Titled::Project),
        any_user().prop_map(Titled::User),
        any_group().prop_map(Titled::Group),
    ]
}

pub(super) fn any_command() -> impl Strategy<Value = (Actor, Command)> {
    let actor = prop_oneof![
        2 => Just(Actor::Gateway),
        2 => Just(Actor::User(user(0))),
        2 => any_user().prop_map(Actor::User),
    ];
    let several = vec(any_ask(), 1..4).prop_map(Command::All);
    let by_anyone = prop_oneof![9 => any_ask(), 1 => several];
    let by_itself = (0..USERS).prop_flat_map(|of| {
        let actor = Actor::User(user(of));
        let enrol =
            (any_invite(), any_certificate(of)).prop_map(|(invite, certificate)| Command::Enrol {
                invite,
                certificate,
            });
        let add = any_certificate(of).prop_map(|certificate| Command::AddDevice { certificate });
        (Just(actor), prop_oneof![enrol, add])
    });
    prop_oneof![3 => (actor, by_anyone), 1 => by_itself]
}
