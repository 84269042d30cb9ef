//! What a server loses, repeats or puts out of order is noticed and comes all
//! the same, or leaves a note.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sotto_client_core::history::{Content, Note};
use sotto_client_core::io::{Command, Event};
use sotto_proto::{RoomId, wire};
use sotto_sim::World;

/// Ticks in which what can be repaired is.
const REPAIR: u32 = 12;

/// Ticks without a word after which the last that was said is spoken of.
const QUIET: u32 = 64;

struct Case {
    world: World,
    alice: usize,
    bob: usize,
    carol: usize,
    room: RoomId,
}

fn case(seed: u64) -> Case {
    let mut world = World::new(seed);
    let alice = world.sign_up("alice");
    let (bob, carol) = (world.sign_up("bob"), world.sign_up("carol"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    for user in ["bob", "carol"] {
        invite(&mut world, alice, room, user);
    }
    Case {
        world,
        alice,
        bob,
        carol,
        room,
    }
}

fn invite(world: &mut World, machine: usize, room: RoomId, user: &str) {
    world.invite(machine, room, user);
    world.settle();
}

fn say(world: &mut World, machine: usize, room: RoomId, text: &str) {
    world.say(machine, room, text);
    world.settle_connected();
}

/// The sequence of what was stored last.
fn last(world: &World) -> u64 {
    world.streams.sequences().into_iter().max().unwrap()
}

fn notes(world: &World, machine: usize, room: RoomId) -> Vec<Note> {
    let records = world.machines[machine].history(room).into_iter();
    let note = |content| match content {
        Content::Note(note) => Some(note),
        _ => None,
    };
    records.filter_map(|record| note(record.content)).collect()
}

#[test]
fn what_a_server_lost_is_said_again_and_shown_as_late() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(1);
    world.disconnect(bob);
    say(&mut world, alice, room, "one");
    let lost = last(&world);
    say(&mut world, alice, room, "two");
    world.streams.lose(lost);
    world.connect(bob);
    world.settle();
    world.tick(REPAIR);
    assert_eq!(world.texts(bob, room), ["two", "one"]);
    let late: Vec<bool> = world.machines[bob]
        .history(room)
        .iter()
        .map(|record| record.late)
        .collect();
    assert_eq!(late, [false, false, true], "the name, two, one");
    // Whoever had it shows it once.
    assert_eq!(world.texts(carol, room), ["one", "two"]);
    assert_eq!(world.texts(alice, room), ["one", "two"]);
    assert!(notes(&world, bob, room).is_empty());
    // Relays count it.
    world.tick(12);
    let beacons = world.machines[alice].beacons.iter();
    assert_eq!(beacons.map(|beacon| beacon.said_again).sum::<u32>(), 1);
}

#[test]
fn the_last_that_was_said_is_missed_when_somebody_answers() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(2);
    world.disconnect(bob);
    say(&mut world, alice, room, "question");
    let lost = last(&world);
    say(&mut world, carol, room, "answer");
    world.streams.lose(lost);
    world.connect(bob);
    world.settle();
    world.tick(REPAIR);
    assert_eq!(world.texts(bob, room), ["answer", "question"]);
}

#[test]
fn the_last_that_was_said_is_spoken_of_until_somebody_has_read_it() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(11);
    for machine in [bob, carol] {
        world.disconnect(machine);
    }
    say(&mut world, alice, room, "goodbye");
    let lost = last(&world);
    world.streams.lose(lost);
    for machine in [bob, carol] {
        world.connect(machine);
    }
    world.settle();
    assert!(world.texts(bob, room).is_empty());
    world.tick(QUIET + REPAIR);
    for machine in [alice, bob, carol] {
        assert_eq!(world.texts(machine, room), ["goodbye"]);
    }
    // Once somebody has said that it was read, nobody says anything.
    world.tick(QUIET);
    let stored = last(&world);
    world.tick(10 * QUIET);
    assert_eq!(last(&world), stored);
}

#[test]
fn what_stays_missing_is_noted_and_what_comes_after_all_is_late() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(3);
    world.disconnect(bob);
    say(&mut world, alice, room, "one");
    let lost = last(&world);
    say(&mut world, alice, room, "two");
    world.streams.lose(lost);
    world.disconnect(alice);
    world.connect(bob);
    world.tick(100);
    assert_eq!(world.texts(bob, room), ["two"]);
    let [Note::Missing { from, through }] = notes(&world, bob, room)[..] else {
        panic!("{:?}", notes(&world, bob, room));
    };
    assert_eq!(from, through);
    let said =
        |event: &Event| matches!(event, Event::Missing { user, .. } if user.as_str() == "alice");
    assert_eq!(
        world.machines[bob]
            .events
            .iter()
            .filter(|e| said(e))
            .count(),
        1
    );

    world.crash(bob);
    world.connect(alice);
    world.settle();
    world.tick(REPAIR);
    assert_eq!(world.texts(bob, room), ["two", "one"]);
    assert_eq!(notes(&world, bob, room).len(), 1);
    assert_eq!(world.texts(carol, room), ["one", "two"]);
}

#[test]
fn newcomers_get_nothing_to_read_that_was_said_before_them() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case(4);
    world.disconnect(bob);
    say(&mut world, alice, room, "before dave");
    let lost = last(&world);
    let dave = world.sign_up("dave");
    world.connect(dave);
    world.settle_connected();
    invite_connected(&mut world, alice, room, "dave");
    say(&mut world, alice, room, "after");
    world.streams.lose(lost);
    world.connect(bob);
    world.settle();
    world.tick(REPAIR);
    assert_eq!(world.texts(bob, room), ["after", "before dave"]);
    assert_eq!(world.texts(dave, room), ["after"]);
    world.tick(200);
    assert!(notes(&world, dave, room).is_empty());
    assert_eq!(world.texts(dave, room), ["after"]);
}

#[test]
fn who_was_there_before_the_newest_is_owed_more_than_they() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(9);
    world.disconnect(alice);
    world.disconnect(carol);
    say(&mut world, bob, room, "his first word");
    let lost = last(&world);
    world.streams.lose(lost);
    world.connect(alice);
    let dave = world.sign_up("dave");
    world.connect(dave);
    world.settle_connected();
    invite_connected(&mut world, alice, room, "dave");
    say(&mut world, bob, room, "his second");
    world.connect(carol);
    world.settle();
    world.tick(REPAIR);
    let both = ["his second", "his first word"];
    assert_eq!(world.texts(alice, room), both);
    assert_eq!(world.texts(carol, room), both);
    world.tick(200);
    assert_eq!(world.texts(dave, room), ["his second"]);
    assert!(notes(&world, dave, room).is_empty());
}

#[test]
fn a_commit_that_is_refused_again_and_again_waits() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case(10);
    // The server has lost the newest commit, and takes it for a duplicate.
    let handshakes = world.streams.sequences().into_iter();
    let lost = handshakes.filter(|sequence| world.streams.is_handshake(*sequence));
    let lost = lost.max().unwrap();
    world.streams.lose(lost);
    let dave = world.sign_up("dave");
    world.settle();
    let asked = world.asked;
    invite(&mut world, alice, room, "dave");
    // A few for each tick.
    assert!(world.asked - asked < 60, "{}", world.asked - asked);
    world.streams.forget_message_ids();
    world.tick(REPAIR);
    world.settle();
    for machine in [alice, bob, dave] {
        let rooms = world.machines[machine].engine().rooms().into_iter();
        let members = rooms.map(|summary| summary.members.len());
        assert_eq!(members.collect::<Vec<_>>(), [4]);
    }
}

fn invite_connected(world: &mut World, machine: usize, room: RoomId, user: &str) {
    world.invite(machine, room, user);
    world.settle_connected();
    world.settle_connected();
}

#[test]
fn an_acknowledged_message_that_is_gone_is_sent_again() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case(5);
    // Its echo is lost as well.
    world.faults.lose_live = 1;
    let texts_of = vec!["vanished".to_owned()];
    world.command(
        alice,
        Command::SendTexts {
            room,
            texts: texts_of,
        },
    );
    world.run(3);
    let lost = last(&world);
    world.streams.lose(lost);
    world.faults.lose_live = 0;
    world.tick(REPAIR);
    assert_eq!(world.texts(alice, room), ["vanished"]);
    assert_eq!(world.texts(bob, room), ["vanished"]);
}

#[test]
fn a_stream_that_went_back_gets_again_what_it_lost() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(6);
    say(&mut world, alice, room, "kept");
    let kept = last(&world);
    world.disconnect(carol);
    say(&mut world, alice, room, "one");
    say(&mut world, bob, room, "two");
    for machine in [alice, bob] {
        world.disconnect(machine);
    }
    world.streams.rewind(kept);
    world.settle();
    world.tick(REPAIR);
    world.settle();
    assert_eq!(world.texts(alice, room), ["kept", "one", "two"]);
    assert_eq!(world.texts(bob, room), ["kept", "one", "two"]);
    let mut late = world.texts(carol, room);
    late.sort();
    assert_eq!(late, ["kept", "one", "two"]);
    let rewound = |note: &Note| matches!(note, Note::Rewound { .. });
    assert!(notes(&world, alice, room).iter().any(rewound));
    say(&mut world, carol, room, "three");
    assert_eq!(world.texts(alice, room), ["kept", "one", "two", "three"]);
}

#[test]
fn a_commit_that_a_server_lost_is_published_again() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(7);
    world.disconnect(bob);
    let dave = world.sign_up("dave");
    world.connect(dave);
    world.settle_connected();
    invite_connected(&mut world, alice, room, "dave");
    let commits = world.streams.sequences().into_iter();
    let commit = commits
        .filter(|n| world.streams.is_handshake(*n))
        .max()
        .unwrap();
    world.streams.lose(commit);
    world.streams.forget_message_ids();
    say(&mut world, carol, room, "welcome, dave");
    world.connect(bob);
    world.settle();
    world.tick(40);
    assert_eq!(world.texts(bob, room), ["welcome, dave"]);
    say(&mut world, bob, room, "hello");
    for machine in [alice, carol, dave] {
        assert_eq!(world.texts(machine, room), ["welcome, dave", "hello"]);
    }
    // And the room can still change.
    world.sign_up("erin");
    world.settle();
    invite(&mut world, alice, room, "erin");
    world.settle();
    assert_eq!(world.machines[bob].engine().rooms()[0].members.len(), 5);
}

#[test]
fn what_is_replayed_or_out_of_order_is_shown_once() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        room,
    } = case(8);
    world.disconnect(bob);
    let mut sequences = Vec::new();
    for n in 0..20 {
        say(&mut world, alice, room, &n.to_string());
        sequences.push(last(&world));
    }
    world.streams.swap(sequences[0], sequences[15]);
    world.streams.swap(sequences[7], sequences[8]);
    for &sequence in &sequences[..5] {
        world.replay(sequence);
    }
    world.connect(bob);
    world.settle();
    world.tick(40);
    let all: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let mut at_bob = world.texts(bob, room);
    at_bob.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(at_bob, all);
    assert_eq!(world.texts(carol, room), all);
    assert_eq!(world.texts(alice, room), all);
}
