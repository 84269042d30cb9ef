//! Rooms that demand factors: fetched on subjects of their own, and closed to
//! devices that have proven nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sotto_client_core::io::Event;
use sotto_proto::{RoomId, wire};
use sotto_sim::World;

/// Alice and Bob with two rooms.
fn two_rooms() -> (World, usize, usize, [RoomId; 2]) {
    let mut world = World::new(5);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let rooms = [(); 2].map(|()| {
        let room = world.create_room(alice, wire::JoinRule::Invite);
        world.invite(alice, room, "bob");
        world.settle();
        room
    });
    (world, alice, bob, rooms)
}

#[test]
fn what_was_missed_in_gated_and_other_rooms_comes_from_their_subjects() {
    let (mut world, alice, bob, [gated, open]) = two_rooms();
    world.gate(gated);
    for machine in [alice, bob] {
        world.prove(machine);
        world.disconnect(machine);
    }
    world.connect(alice);
    for n in 0..20 {
        world.say(alice, gated, &format!("gated {n}"));
        world.say(alice, open, &format!("open {n}"));
        world.settle_connected();
    }
    world.machines[bob].events.clear();
    world.connect(bob);
    world.settle();
    for (room, name) in [(gated, "gated"), (open, "open")] {
        let all: Vec<String> = (0..20).map(|n| format!("{name} {n}")).collect();
        assert_eq!(world.texts(bob, room), all);
    }
    let caught_up = Event::CaughtUp { requests: 2 };
    let events = &world.machines[bob].events;
    assert!(
        events.contains(&caught_up),
        "one for each subject: {events:?}"
    );
}

#[test]
fn a_room_that_becomes_gated_is_read_on() {
    let (mut world, alice, bob, [gated, _]) = two_rooms();
    world.prove(alice);
    world.prove(bob);
    world.disconnect(bob);
    world.say(alice, gated, "before");
    world.settle_connected();
    // Bob connects with grants of before.
    world.connect(bob);
    world.gate(gated);
    world.settle();
    world.say(alice, gated, "after");
    world.settle();
    assert_eq!(world.texts(bob, gated), ["before", "after"]);
}

#[test]
fn a_closed_room_says_what_is_missing_and_opens_once_it_is_proven() {
    let (mut world, alice, bob, [gated, open]) = two_rooms();
    world.gate(gated);
    world.prove(alice);
    for machine in [alice, bob] {
        world.disconnect(machine);
        world.connect(machine);
    }
    world.machines[bob].events.clear();
    let ticket = world.say(bob, gated, "from behind the door");
    world.say(bob, open, "elsewhere all is well");
    world.say(alice, gated, "can you hear me?");
    world.settle();
    let failed = world.machines[bob]
        .events
        .iter()
        .find_map(|event| match event {
            Event::Failed {
                ticket: failed,
                factor_needed: Some(needed),
                ..
            } if *failed == ticket => Some(needed.missing.len()),
            _ => None,
        });
    assert_eq!(failed, Some(1), "{:?}", world.machines[bob].events);
    assert!(
        world.machines[bob].engine().is_settled(),
        "it waits for a person"
    );
    assert_eq!(world.texts(bob, gated), [""; 0]);
    assert_eq!(world.texts(alice, open), ["elsewhere all is well"]);

    world.prove(bob);
    world.disconnect(bob);
    world.connect(bob);
    world.settle();
    for machine in [alice, bob] {
        assert_eq!(
            world.texts(machine, gated),
            ["can you hear me?", "from behind the door"],
            "what was queued behind the door is not lost"
        );
    }
}
