//! Messages through loss, crashes and broken connections, by many seeds.
//! `SOTTO_SEEDS` runs more of them, `SOTTO_SEED` just one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_client_core::io::{Command, Event, Ticket};
use sotto_proto::{RoomId, UserName, wire};
use sotto_sim::{Faults, World};

const SEEDS: u64 = 25;

#[test]
fn what_was_ticked_arrives_once_in_order_everywhere() {
    let only: Option<u64> = std::env::var("SOTTO_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = std::env::var("SOTTO_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(SEEDS);
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        storm(seed);
    }
}

/// What was given to the engines, by sender and ticket.
type Sent = Vec<(usize, Ticket, String)>;

fn storm(seed: u64) {
    let mut choices = ChaCha20Rng::seed_from_u64(seed ^ 0xffff);
    let mut world = World::new(seed);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    world.sign_up("eve");
    world.settle();
    for user in ["bob", "eve"] {
        world.invite(alice, room, user);
        world.settle();
    }
    let second = world.link_device(bob);
    world.settle();

    world.faults = Faults::STORM;
    let mut sent = Sent::new();
    let mut notice = None;
    for n in 0..60 {
        let sender = [alice, bob, second][choices.gen_range(0..3)];
        let text = format!("{n}");
        let ticket = world.command(
            sender,
            Command::SendTexts {
                room,
                texts: vec![text.clone()],
            },
        );
        sent.push((sender, ticket, text));
        world.run(choices.gen_range(0..12));
        if n == 20 {
            world.sign_up("carol");
            world.invite(alice, room, "carol");
        }
        if n == 22 {
            notice = Some(world.order_user_out("eve", room));
        }
        // Gateways that do not know whether it was said say it again.
        if let (25 | 45, Some(notice)) = (n, &notice) {
            let addresses = world.machines[alice].engine().rooms().into_iter();
            let address = addresses.filter_map(|room| room.address).next().unwrap();
            world.inject(address.handshakes(), notice);
        }
        if n == 40 {
            world.streams.forget_message_ids();
        }
    }
    world.settle();
    world.settle();
    check(&world, seed, room, &sent, &[alice, bob, second]);
}

fn check(world: &World, seed: u64, room: RoomId, sent: &Sent, machines: &[usize]) {
    let reference = world.machines[machines[0]].texts(room);
    for &machine in machines {
        let texts = world.machines[machine].texts(room);
        assert_eq!(texts, reference, "seed {seed}: devices disagree");
        let engine = world.machines[machine].engine();
        let members = &engine.rooms()[0].members;
        assert!(
            members.iter().all(|member| member.user.as_str() != "eve"),
            "seed {seed}: {machine} has not carried the order out: {engine:?}"
        );
        assert!(
            engine.is_settled(),
            "seed {seed}: {machine} is not settled: {engine:?}"
        );
    }
    let mut count: BTreeMap<&(UserName, String), u32> = BTreeMap::new();
    for text in &reference {
        *count.entry(text).or_default() += 1;
    }
    assert!(
        count.values().all(|n| *n == 1),
        "seed {seed}: something was shown twice"
    );
    for (sender, ticket, text) in sent {
        let machine = &world.machines[*sender];
        // Only what the engine said is durable counts; it may have died before.
        let queued = machine
            .events
            .iter()
            .any(|event| matches!(event, Event::Queued { ticket: queued, .. } if queued == ticket));
        let arrived = reference.contains(&(machine.user.clone(), text.clone()));
        assert!(
            !queued || arrived,
            "seed {seed}: {text} was queued durably and is lost"
        );
    }
    for (user, machine) in [("alice", machines[0]), ("bob", machines[1])] {
        let user: UserName = user.parse().unwrap();
        let by_device = world.machines[machine]
            .history(room)
            .into_iter()
            .filter(|r| r.user == user);
        let mut last = BTreeMap::new();
        for record in by_device {
            let before = last.insert(record.device, record.counter);
            assert!(
                before.is_none_or(|before| before < record.counter),
                "seed {seed}: out of order"
            );
        }
    }
}
