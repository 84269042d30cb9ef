//! Nothing that comes from the network makes an engine panic, lose what it has
//! or show what was not said.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_client_core::io::Command;
use sotto_proto::{RoomId, Subject, wire};
use sotto_sim::World;

const ROUNDS: u32 = 400;

fn send(world: &mut World, machine: usize, room: RoomId, text: &str) {
    world.say(machine, room, text);
    world.settle();
}

/// Flips, cuts, grows or replaces.
fn damage(payload: &Bytes, rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    match rng.gen_range(0..4) {
        0 => {
            let bit = rng.gen_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        1 => bytes.truncate(rng.gen_range(0..bytes.len())),
        2 => bytes.extend((0..rng.gen_range(1..100)).map(|_| rng.r#gen::<u8>())),
        _ => bytes = (0..rng.gen_range(0..300)).map(|_| rng.r#gen()).collect(),
    }
    bytes
}

#[test]
fn damaged_copies_of_real_messages_change_nothing() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut world = World::new(1);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    let user = "bob".parse().unwrap();
    world.command(
        alice,
        Command::Invite {
            room,
            user,
            role: wire::Role::User,
        },
    );
    world.settle();
    send(&mut world, alice, room, "one");
    let second = world.link_device(bob);
    world.settle();
    send(&mut world, bob, room, "two");

    let stored: Vec<(Subject, Bytes)> = world.streams.stored().collect();
    assert!(
        stored
            .iter()
            .any(|(subject, _)| matches!(subject, Subject::Inbox(_)))
    );
    for _ in 0..ROUNDS {
        let (subject, payload) = &stored[rng.gen_range(0..stored.len())];
        let damaged = damage(payload, &mut rng);
        world.inject(subject.clone(), &damaged);
        if rng.gen_bool(0.1) {
            let victim = rng.gen_range(0..world.machines.len());
            world.crash(victim);
        }
        if rng.gen_bool(0.1) {
            world.settle();
        }
    }
    world.settle();
    send(&mut world, second, room, "three");
    for machine in [alice, bob] {
        let texts = world.machines[machine].texts(room);
        let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "three"]);
    }
}
