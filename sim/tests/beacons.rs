//! What devices say to relays beside messages, and are told by them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use sotto_client_core::io::{Command, Event};
use sotto_proto::{DeviceId, wire};
use sotto_sim::World;

#[test]
fn beacons_say_what_is_durable_and_only_what_is_new() {
    let mut world = World::new(1);
    let ([alice, bob], room) = world.room_of_two();
    // Long enough for whoever has read something to have said so.
    world.tick(80);
    world.machines[bob].beacons.clear();
    world.tick(20);
    assert!(
        world.machines[bob]
            .beacons
            .iter()
            .all(|b| b.cursors.is_empty()),
        "nothing was said"
    );
    world.machines[bob].beacons.clear();
    let texts = vec!["news".to_owned()];
    world.command(alice, Command::SendTexts { room, texts });
    world.settle();
    world.tick(12);
    let newest = world.streams.sequences().into_iter().max().unwrap();
    let cursors: Vec<&wire::RoomCursor> = world.machines[bob]
        .beacons
        .iter()
        .flat_map(|beacon| &beacon.cursors)
        .collect();
    assert_eq!(cursors.len(), 1, "{cursors:?}");
    assert_eq!(cursors[0].room, room.to_bytes());
    assert_eq!(cursors[0].messages_after, newest);
    assert!(world.machines[bob].beacons.len() <= 3, "not too often");

    // A new connection may reach a relay that knows nothing.
    world.disconnect(bob);
    world.machines[bob].beacons.clear();
    world.settle();
    let first = world.machines[bob].beacons.first().unwrap();
    assert_eq!(first.cursors.len(), 1);
}

#[test]
fn presence_is_shown_of_members_only() {
    let mut world = World::new(2);
    let ([alice, bob], room) = world.room_of_two();
    let at_bob = world.machines[bob].device;
    let stranger = DeviceId::try_from(&[9; 16][..]).unwrap();
    for (device, here) in [(at_bob, true), (stranger, true), (at_bob, false)] {
        world.tell_presence(alice, room, device, here);
    }
    let seen = world.machines[alice]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Presence { user, here, .. } => Some((user.as_str(), *here)),
            _ => None,
        });
    assert_eq!(seen.collect::<Vec<_>>(), [("bob", true), ("bob", false)]);
}
