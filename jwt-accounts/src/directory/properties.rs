//! What holds for every log that commands can lead to.

mod asks;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sotto_proto::wire::{self, Signed};
use sotto_proto::{RoomId, Title, UserName, skeleton};

use asks::{USERS, any_command, certificate, project, user};

use super::chain;
use super::*;
use crate::policy::{Factor, Proven};

const NOW_MS: i64 = 1_800_000_000_000;

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
            // With the password alone, as it is right after a login.
            let by = By {
                actor: actor.clone(),
                proven: Proven::none().with(Factor::Password, now_ms),
            };
            let Ok(changes) = decide(&state, &by, command, now_ms) else {
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
