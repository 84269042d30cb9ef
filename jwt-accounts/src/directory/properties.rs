//! What holds for every log that commands can lead to.

use std::num::NonZeroU8;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use nkeys::{KeyPair, KeyPairType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{self, JoinRule, Signed};
use sotto_proto::{DeviceId, ProjectName, RoomId, UserName};

use super::chain;
use super::*;

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

fn any_command() -> impl Strategy<Value = (Actor, Command)> {
    let by_anyone = prop_oneof![
        (0..3u8).prop_map(|number| Command::CreateProject {
            project: project(number)
        }),
        (any_invite(), 0..60i64, any_scope(), any_role()).prop_map(
            |(invite, valid_ms, scope, role)| Command::IssueInvite {
                invite,
                expires_ms: NOW_MS + valid_ms,
                scope,
                role,
                for_user: None,
                guest_until_ms: None
            }
        ),
        (0..40u8).prop_map(|number| Command::RevokeDevice {
            device: device(number)
        }),
        (0..4u8, 0..3u8, any::<bool>(), 1..=4u8).prop_map(|(number, of, open, shards)| {
            Command::CreateRoom {
                room: room(number),
                project: project(of),
                join_rule: if open {
                    JoinRule::Open
                } else {
                    JoinRule::Invite
                },
                shards: NonZeroU8::new(shards).unwrap(),
            }
        }),
        (0..4u8).prop_map(|number| Command::JoinRoom { room: room(number) }),
        (any_user(), any_scope(), any_role()).prop_map(|(user, scope, role)| Command::GrantRole {
            holder: Holder::User(user),
            scope,
            role
        }),
        (any_user(), any_scope()).prop_map(|(user, scope)| Command::RevokeRole {
            holder: Holder::User(user),
            scope
        }),
    ];
    let actor = prop_oneof![Just(Actor::Gateway), any_user().prop_map(Actor::User)];
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
    prop_oneof![2 => (actor, by_anyone), 1 => by_itself]
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
