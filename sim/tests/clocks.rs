//! Clocks that are set, and clocks that differ.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sotto_client_core::history::{Content, Note};
use sotto_proto::RoomId;
use sotto_proto::refusals::Refusal;
use sotto_sim::World;

/// Alice and bob in a room.
fn case(seed: u64) -> (World, [usize; 2], RoomId) {
    let mut world = World::new(seed);
    let (machines, room) = world.room_of_two();
    (world, machines, room)
}

fn say(world: &mut World, machine: usize, room: RoomId, text: &str) {
    world.say(machine, room, text);
    world.settle();
}

#[test]
fn what_waits_leaves_when_the_clock_is_set_back() {
    let (mut world, [alice, bob], room) = case(1);
    world.refusing = Some(Refusal::Busy);
    say(&mut world, alice, room, "later");
    world.refusing = None;
    world.set_back(22);
    world.tick(2);
    assert_eq!(world.texts(bob, room), ["later"]);
}

#[test]
fn a_pause_that_is_not_over_is_kept() {
    let (mut world, [alice, bob], room) = case(2);
    world.refusing = Some(Refusal::Busy);
    say(&mut world, alice, room, "later");
    world.refusing = None;
    world.tick(1);
    assert!(world.texts(bob, room).is_empty());
    world.let_pass(1);
    world.tick(2);
    assert_eq!(world.texts(bob, room), ["later"]);
}

/// The stream is led by a server whose clock is ahead, and then by another.
#[test]
fn servers_whose_clocks_differ_have_lost_nothing() {
    let (mut world, machines, room) = case(3);
    world.servers_ahead_ms = 600_000;
    say(&mut world, machines[0], room, "one");
    let first = *world.streams.sequences().last().unwrap();
    world.servers_ahead_ms = 0;
    say(&mut world, machines[1], room, "two");
    // It was on its way from the server that led before.
    world.tell_again(first);
    world.settle();
    for machine in machines {
        assert_eq!(world.texts(machine, room), ["one", "two"]);
        let history = world.machines[machine].history(room).into_iter();
        let rewound = |content| matches!(content, Content::Note(Note::Rewound { .. }));
        assert!(!history.map(|record| record.content).any(rewound));
    }
}

/// It cannot be added to a room; nobody else is kept from anything by that.
#[test]
fn a_device_whose_clock_is_a_year_ahead_holds_up_no_other() {
    let (mut world, [alice, bob], room) = case(4);
    world.let_pass(365);
    let ahead = world.link_device(bob);
    world.settle();
    world.set_back(365 * 24);
    say(&mut world, bob, room, "it is now");
    assert_eq!(world.texts(alice, room), ["it is now"]);
    assert!(world.texts(ahead, room).is_empty());
    for machine in [alice, bob] {
        assert!(world.machines[machine].engine().is_settled(), "{machine}");
    }
}
