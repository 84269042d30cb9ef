//! What holds for every log that commands can lead to.

use std::num::NonZeroU8;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use nkeys::{KeyPair, KeyPairType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, JoinRule, Signed};
use sotto_proto::{DeviceId, FactorId, GroupName, ProjectName, RoomId, Title, UserName, skeleton};

use super::chain;
use super::*;
use crate::policy::{Factor, LevelPolicy};

const NOW_MS: i64 = 1_800_000_000_000;
const USERS: u8 = 4;

/// A log with the state after each of its entries.
#[derive(Debug)]
struct History {
    entries: Vec<Bytes>,
    states: Vec<State>,
}

impl History {
    /// What is left of the commands when each is decided on what came before.
    fn of(commands: Vec<(Actor, Command)>) -> Self {
        let mut history = Self {
            entries: Vec::new(),
            states: vec![State::default()],
        };
        for (now_ms, (actor, command)) in (NOW_MS..).zip(commands) {
            let state = history.last().clone();
            let Ok(changes) = decide(&state, &actor.clone().into(), command, now_ms) else {
                continue;
            };
            let mut after = state.clone();
            for entry in chain::sign(state.head(), &actor, &changes, now_ms, &gateway()) {
                after
                    .advance(&entry, &gateway().verifying_key())
                    .expect("what was decided is believed");
                history.entries.push(entry);
                history.states.push(after.clone());
            }
        }
        history
    }

    fn last(&self) -> &State {
        self.states.last().unwrap()
    }
}

fn gateway() -> SigningKey {
    SigningKey::from_bytes(&[200; 32])
}

fn user(number: u8) -> UserName {
    format!("user-{number}").parse().unwrap()
}

fn project(number: u8) -> ProjectName {
    format!("project-{number}").parse().unwrap()
}

fn room(number: u8) -> RoomId {
    (&[number; 16][..]).try_into().unwrap()
}

fn device(number: u8) -> DeviceId {
    (&[number; 16][..]).try_into().unwrap()
}

/// A device of a user, with the identity key of perhaps another one.
fn certificate(of: u8, number: u8, identity: u8) -> Signed {
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

fn any_user() -> impl Strategy<Value = UserName> {
    (0..USERS).prop_map(user)
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Org),
        (0..3u8).prop_map(|number| Scope::Project(project(number))),
        (0..4u8).prop_map(|number| Scope::Room(room(number))),
    ]
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::User), Just(Role::Owner)]
}

fn any_invite() -> impl Strategy<Value = InviteHash> {
    (0..6u8).prop_map(|number| InviteHash([number; 32]))
}

/// Mostly a user's own certificate, now and then one by another identity key.
fn any_certificate(of: u8) -> impl Strategy<Value = Signed> {
    let identity = prop_oneof![9 => Just(of), 1 => 0..USERS];
    (0..40u8, identity).prop_map(move |(number, identity)| certificate(of, number, identity))
}

fn group(number: u8) -> GroupName {
    format!("group-{number}").parse().unwrap()
}

fn any_project() -> impl Strategy<Value = ProjectName> {
    (0..3u8).prop_map(project)
}

fn any_room() -> impl Strategy<Value = RoomId> {
    (0..4u8).prop_map(room)
}

fn any_group() -> impl Strategy<Value = GroupName> {
    (0..3u8).prop_map(group)
}

fn any_holder() -> impl Strategy<Value = Holder> {
    prop_oneof![
        2 => any_user().prop_map(Holder::User),
        1 => any_group().prop_map(Holder::Group),
    ]
}

/// Some of them look alike, or like a name.
fn any_title() -> impl Strategy<Value = Option<Title>> {
    let titles = ["Alice", "A1ice", "User-1", "project-1", "G\u{f6}del"];
    proptest::option::of(proptest::sample::select(titles.to_vec()))
        .prop_map(|title| title.map(|title| title.parse().unwrap()))
}

fn any_external_id() -> impl Strategy<Value = Option<ExternalId>> {
    proptest::option::of((0..3u8).prop_map(|number| format!("uuid-{number}").parse().unwrap()))
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        3 => Just(Status::Active),
        2 => Just(Status::Archived),
        1 => Just(Status::Deleted),
    ]
}

fn any_until() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.3, (1..60i64).prop_map(|valid_ms| NOW_MS + valid_ms))
}

/// A harmless one: what it says is not what these tests are about.
fn any_policy() -> impl Strategy<Value = Option<Arc<LevelPolicy>>> {
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

fn any_factor_id() -> impl Strategy<Value = FactorId> {
    (0..4u8).prop_map(|number| (&[number; 16][..]).try_into().unwrap())
}

/// What anyone may ask for, whether or not they may have it.
fn any_ask() -> BoxedStrategy<Command> {
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

fn any_titled() -> impl Strategy<Value = Titled> {
    prop_oneof![
        Just(Titled::Org),
        any_project().prop_map(Titled::Project),
        any_user().prop_map(Titled::User),
        any_group().prop_map(Titled::Group),
    ]
}

fn any_command() -> impl Strategy<Value = (Actor, Command)> {
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

/// An org with a first owner, then anything.
fn any_history() -> impl Strategy<Value = History> {
    let founding = vec![
        (
            Actor::Gateway,
            Command::CreateOrg {
                org: "acme".parse().unwrap(),
                gateway_key: gateway().verifying_key(),
            },
        ),
        (
            Actor::Gateway,
            Command::IssueInvite {
                invite: InviteHash([100; 32]),
                expires_ms: NOW_MS + 1_000,
                scope: Scope::Org,
                role: Role::Owner,
                for_user: None,
                guest_until_ms: None,
            },
        ),
        (
            Actor::User(user(0)),
            Command::Enrol {
                invite: InviteHash([100; 32]),
                certificate: certificate(0, 100, 0),
            },
        ),
    ];
    vec(any_command(), 0..60)
        .prop_map(move |commands| History::of([founding.clone(), commands].concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn replaying_any_prefix_gives_the_same_state(history in any_history()) {
        let mut replayed = State::default();
        prop_assert_eq!(&replayed, &history.states[0]);
        for (entry, state) in history.entries.iter().zip(&history.states[1..]) {
            replayed.advance(entry, &gateway().verifying_key()).unwrap();
            prop_assert_eq!(&replayed, state);
        }
    }

    #[test]
    fn an_org_that_had_an_owner_has_one(history in any_history()) {
        let owned = history.states.iter().map(State::has_owner);
        let without: Vec<bool> = owned.skip_while(|owned| !owned).filter(|owned| !owned).collect();
        prop_assert!(history.last().has_owner());
        prop_assert_eq!(without, Vec::<bool>::new());
    }

    #[test]
    fn a_snapshot_anywhere_is_the_state_there(history in any_history(), at: Index) {
        // The first state has no org yet.
        let at = 1 + at.index(history.entries.len());
        let state = &history.states[at];
        let mut bytes = Vec::new();
        snapshot::write(state, &mut bytes).unwrap();
        let key = gateway().verifying_key();
        let mut restored = snapshot::read(&bytes[..], &"acme".parse().unwrap(), &key).unwrap();
        prop_assert_eq!(&restored, state);
        // And it goes on just so.
        for (entry, state) in history.entries[at..].iter().zip(&history.states[at + 1..]) {
            restored.advance(entry, &key).unwrap();
            prop_assert_eq!(&restored, state);
        }
    }

    #[test]
    fn guests_have_nothing_but_rooms(history in any_history()) {
        for state in &history.states {
            for (name, user) in state.users().filter(|(_, user)| user.guest_until_ms.is_some()) {
                for scope in [Scope::Org, Scope::Project(project(0)), Scope::Project(project(1))] {
                    prop_assert_eq!(state.granted_role(name, &scope), None, "{:?}", user);
                }
                for room in state.rooms_of(name) {
                    let scope = Scope::Room(room.address.room);
                    prop_assert_eq!(state.granted_role(name, &scope), Some(Role::User));
                }
            }
        }
    }

    #[test]
    fn who_is_out_of_a_room_was_noted(history in any_history()) {
        let places = history.states.windows(2).zip(&history.entries);
        for (states, entry) in places {
            let index = read(entry).index;
            let noted = |name: &UserName, room| {
                let mut departures = states[1].departures_since(index);
                departures.any(|departure| (&departure.user, departure.room) == (name, room))
            };
            for (name, user) in states[0].users().filter(|(_, user)| user.identity_key.is_some()) {
                let after: Vec<RoomId> =
                    states[1].rooms_of(name).iter().map(|room| room.address.room).collect();
                for room in states[0].rooms_of(name) {
                    let room = room.address.room;
                    let out = !after.contains(&room) && states[1].room(room).is_some();
                    prop_assert!(!out || noted(name, room), "{name} left {room:?}: {:?}", user);
                    prop_assert!(!out || states[1].restricted_at_ms(name).is_some()
                        || states[1].user(name).unwrap().devices().count() == 0);
                }
            }
        }
    }

    #[test]
    fn no_title_passes_for_a_sibling(history in any_history()) {
        let state = history.last();
        let alive = || state.users().filter(|(_, user)| user.status != UserStatus::Revoked);
        for (name, user) in alive() {
            let Some(title) = &user.title else { continue };
            for (other, sibling) in alive().filter(|(other, _)| *other != name) {
                let looks = [Some(skeleton(other.as_str())), sibling.title.as_ref().map(Title::skeleton)];
                prop_assert!(!looks.contains(&Some(title.skeleton())), "{title} and {other}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed(history in any_history(), at: Index, bit: Index) {
        let at = at.index(history.entries.len());
        let mut entry = history.entries[at].to_vec();
        let bit = bit.index(entry.len() * 8);
        entry[bit / 8] ^= 1 << (bit % 8);
        let mut state = history.states[at].clone();
        prop_assert!(state.advance(&entry, &gateway().verifying_key()).is_err());
        // And what was refused has left no trace.
        prop_assert_eq!(&state, &history.states[at]);
    }

    #[test]
    fn no_entry_fits_anywhere_else(history in any_history(), entry: Index, place: Index) {
        let entry = entry.index(history.entries.len());
        let place = place.index(history.states.len());
        prop_assume!(entry != place);
        let mut state = history.states[place].clone();
        let moved = state.advance(&history.entries[entry], &gateway().verifying_key());
        prop_assert_eq!(moved, Err(ChainError::Order));
    }

    #[test]
    fn an_invite_is_good_for_one_user(history in any_history()) {
        let events = history.entries.iter().map(read);
        let mut used: Vec<InviteHash> = Vec::new();
        for event in events {
            if let Change::UserEnrolled { invite, .. } = event.change {
                let issued_again = history.states[event.index as usize].invite(&invite).is_some();
                prop_assert!(issued_again, "{:?} was used unissued", invite);
                prop_assert!(history.states[event.index as usize + 1].invite(&invite).is_none());
                used.push(invite);
            }
        }
        prop_assert!(!used.is_empty());
    }

    #[test]
    fn every_device_is_its_users_own(history in any_history()) {
        let state = history.last();
        for name in (0..USERS).map(user) {
            let Some(found) = state.user(&name) else { continue };
            for device in found.devices() {
                prop_assert_eq!(&device.certificate.user, &name);
                prop_assert_eq!(Some(device.certificate.identity_key), found.identity_key);
                prop_assert_eq!(state.device(device.certificate.device), Some(device));
            }
        }
    }

    #[test]
    fn events_survive_the_wire(history in any_history()) {
        for entry in &history.entries {
            let event = read(entry);
            let again = Event::try_from(wire::DirectoryEvent::from(&event)).unwrap();
            prop_assert_eq!(again, event);
        }
    }

    #[test]
    fn reading_never_panics(bytes: Vec<u8>) {
        prop_assert!(State::default().advance(&bytes, &gateway().verifying_key()).is_err());
    }
}

fn read(entry: &Bytes) -> Event {
    use prost::Message;
    let signed = Signed::decode(entry.clone()).unwrap();
    let event: wire::DirectoryEvent =
        sotto_proto::signed::verify(&signed, &gateway().verifying_key()).unwrap();
    Event::try_from(event).unwrap()
}

#[test]
fn an_unknown_kind_of_event_is_not_passed_over() {
    use prost::Message;
    // Field 99, a kind that this version does not know.
    let mut statement = wire::DirectoryEvent::default().encode_to_vec();
    statement.extend([0x9a, 0x06, 0x00]);
    let signature = {
        use ed25519_dalek::Signer;
        let label = <wire::DirectoryEvent as sotto_proto::signed::Statement>::LABEL;
        gateway().sign(&[label, &statement].concat())
    };
    let entry = Signed {
        statement: statement.into(),
        signature: Bytes::copy_from_slice(&signature.to_bytes()),
    };
    let read = State::default().advance(&entry.encode_to_vec(), &gateway().verifying_key());
    assert_eq!(read, Err(ChainError::Malformed(Malformed::Part("kind"))));
}

#[test]
fn a_log_names_the_key_that_signs_it() {
    let other = SigningKey::from_bytes(&[7; 32]);
    let create = Change::OrgCreated {
        org: "acme".parse().unwrap(),
        gateway_key: other.verifying_key(),
    };
    let entries = chain::sign(&Head::default(), &Actor::Gateway, &[create], 0, &gateway());
    let read = State::default().advance(&entries[0], &gateway().verifying_key());
    assert_eq!(read, Err(ChainError::GatewayKey));
}
