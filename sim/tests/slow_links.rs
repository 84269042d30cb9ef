//! What a slow link carries: nothing twice that is on its way, little at once,
//! and little that nobody asked for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sotto_client_core::io::Command;
use sotto_client_core::pace::Pace;
use sotto_proto::{RoomId, Subject};
use sotto_sim::World;

struct Case {
    world: World,
    alice: usize,
    bob: usize,
    room: RoomId,
}

fn case(seed: u64) -> Case {
    let mut world = World::new(seed);
    let ([alice, bob], room) = world.room_of_two();
    Case {
        world,
        alice,
        bob,
        room,
    }
}

fn say(world: &mut World, machine: usize, room: RoomId, text: &str) {
    world.say(machine, room, text);
    world.settle_connected();
}

fn queue(world: &mut World, machine: usize, room: RoomId, texts: Vec<String>) {
    world.command(machine, Command::SendTexts { room, texts });
}

/// Connects again, on the slowest link.
fn slow_down(world: &mut World, machine: usize) {
    world.pace = Pace::SLOWEST;
    world.disconnect(machine);
    world.connect(machine);
    world.settle_connected();
}

#[test]
fn what_came_live_while_catching_up_is_not_fetched_as_well() {
    let Case {
        mut world,
        alice,
        bob,
        room,
    } = case(1);
    world.disconnect(bob);
    say(&mut world, alice, room, "one");
    world.holding_answers = true;
    world.connect(bob);
    let before = world.answered;
    say(&mut world, alice, room, "two");
    say(&mut world, alice, room, "three");
    assert!(world.texts(bob, room).is_empty(), "one is on its way");
    world.release_answers();
    world.settle_connected();
    assert_eq!(world.texts(bob, room), ["one", "two", "three"]);
    assert_eq!(world.answered, before, "what came live came twice");
}

#[test]
fn what_was_missed_comes_in_portions_and_what_is_said_meanwhile_follows() {
    let Case {
        mut world,
        alice,
        bob,
        room,
    } = case(2);
    world.disconnect(bob);
    let mut said: Vec<String> = (0..40).map(|n| format!("text {n:02}")).collect();
    for text in &said {
        say(&mut world, alice, room, text);
    }
    world.pace = Pace::SLOWEST;
    world.holding_answers = true;
    let before = world.asked;
    world.connect(bob);
    for n in 40..45 {
        let text = format!("text {n:02}");
        say(&mut world, alice, room, &text);
        said.push(text);
    }
    world.release_answers();
    world.settle_connected();
    assert_eq!(world.texts(bob, room), said);
    assert!(world.asked - before > 1, "40 texts are more than a portion");
}

#[test]
fn what_waits_travels_in_small_frames() {
    for (pace, few) in [(Pace::ORDINARY, true), (Pace::SLOWEST, false)] {
        let Case {
            mut world,
            alice,
            bob,
            room,
        } = case(3);
        let said: Vec<String> = (0..50).map(|n| format!("{n:0500}")).collect();
        world.disconnect(alice);
        queue(&mut world, alice, room, said.clone());
        let before = world.streams.messages();
        world.pace = pace;
        world.connect(alice);
        world.settle_connected();
        assert_eq!(world.texts(bob, room), said);
        let frames = world.streams.messages() - before;
        assert_eq!(frames == 1, few, "{frames} frames");
        let stored = world.streams.stored();
        let longest = stored
            .filter(|(subject, _)| matches!(subject, Subject::Messages(_)))
            .map(|(_, payload)| payload.len())
            .max();
        assert!(few || longest.unwrap() < 6_000, "{longest:?}");
    }
}

#[test]
fn what_was_acknowledged_is_given_the_time_that_it_takes_to_come_back() {
    for (pace, patient) in [(Pace::ORDINARY, false), (Pace::SLOWEST, true)] {
        let Case {
            mut world,
            alice,
            bob: _,
            room,
        } = case(4);
        world.pace = pace;
        world.disconnect(alice);
        world.connect(alice);
        world.settle_connected();
        world.faults.lose_live = 1;
        queue(&mut world, alice, room, vec!["hello".to_owned()]);
        world.run(50);
        let before = world.asked;
        world.tick(20);
        assert_eq!(world.asked == before, patient);
        world.tick(120);
        assert!(world.asked > before);
        assert_eq!(world.texts(alice, room), ["hello"]);
    }
}

#[test]
fn an_idle_device_on_a_slow_link_says_little() {
    let Case {
        mut world,
        alice,
        bob,
        room,
    } = case(5);
    slow_down(&mut world, bob);
    say(&mut world, alice, room, "hello");
    world.tick(200);
    let beacons = |world: &World| world.machines[bob].beacons.len();
    let (said, stored) = (beacons(&world), world.streams.messages());
    world.tick(250);
    assert_eq!(beacons(&world), said, "in eight minutes");
    assert_eq!(world.streams.messages(), stored);
    world.tick(400);
    assert!(beacons(&world) > said, "after all");
}
