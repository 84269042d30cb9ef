//! Storms on a server that loses what it has acknowledged, goes back, repeats
//! and puts out of order, by many seeds. `SOTTO_SEEDS` runs more of them,
//! `SOTTO_SEED` just one.
//!
//! What was queued is on every device exactly once, or that device says that
//! it is missing; each sender's entries are in their order, but for those that
//! came late and say so; all agree on the room's members.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_client_core::history::{Content, HistoryRecord, Note};
use sotto_client_core::io::{Command, Event, Ticket};
use sotto_proto::{DeviceId, RoomId, wire};
use sotto_sim::{Faults, World};

/// Of each test; 100 in all.
const SEEDS: u64 = 25;

/// What goes wrong at clients and on the way: less than in a storm.
const FAULTS: Faults = Faults {
    lose_live: 8,
    lose_publish: 15,
    lose_ack: 15,
    lose_call: 15,
    lose_fetch: 10,
    crash: 60,
    disconnect: 30,
};

/// Each runs its part of the seeds, beside the others.
macro_rules! parts {
    ($($name:ident: $part:expr,)*) => {
        $(
            #[test]
            fn $name() {
                seeds($part);
            }
        )*
    };
}

// What a lying server does is repaired or noted.
parts! {
    a_lying_server_is_repaired_or_noted: 0,
    a_lying_server_is_repaired_or_noted_2: 1,
    a_lying_server_is_repaired_or_noted_3: 2,
    a_lying_server_is_repaired_or_noted_4: 3,
}

fn seeds(part: u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let only: Option<u64> = number("SOTTO_SEED");
    let seeds = number("SOTTO_SEEDS").unwrap_or(SEEDS);
    for seed in only.map_or(part * seeds..(part + 1) * seeds, |seed| seed..seed + 1) {
        run(seed);
    }
}

/// What was given to the engines, by sender and ticket.
type Sent = Vec<(usize, Ticket, String)>;

fn run(seed: u64) {
    let mut choices = ChaCha20Rng::seed_from_u64(seed ^ 0xabcd);
    let mut world = World::new(seed);
    let machines: Vec<usize> = ["alice", "bob", "carol"]
        .map(|user| world.sign_up(user))
        .to_vec();
    world.settle();
    let room = world.create_room(machines[0], wire::JoinRule::Invite);
    for user in ["bob", "carol"] {
        world.invite(machines[0], room, user);
        world.settle();
    }

    world.faults = FAULTS;
    let mut sent = Sent::new();
    for n in 0..40 {
        let sender = *machines.choose(&mut choices).unwrap();
        let text = format!("{n}");
        let texts = vec![text.clone()];
        let ticket = world.command(sender, Command::SendTexts { room, texts });
        sent.push((sender, ticket, text));
        world.run(choices.gen_range(0..12));
        if n == 15 {
            world.sign_up("dave");
            world.invite(machines[0], room, "dave");
        }
        if choices.gen_ratio(1, 4) {
            lie(&mut world, &mut choices);
        }
        if choices.gen_ratio(1, 4) {
            world.tick(1);
        }
    }
    world.streams.forget_message_ids();
    for _ in 0..3 {
        world.settle();
        world.tick(60);
    }
    check(&world, seed, room, &sent, &machines);
}

fn lie(world: &mut World, choices: &mut ChaCha20Rng) {
    let sequences = world.streams.sequences();
    let Some(&any) = sequences.choose(choices) else {
        return;
    };
    let newest = *sequences.last().unwrap();
    match choices.gen_range(0..10) {
        0..4 => world.streams.lose(any),
        4..6 => world.replay(any),
        6..8 => {
            let other = *sequences.choose(choices).unwrap();
            world.streams.swap(any, other);
        }
        _ => world
            .streams
            .rewind(newest - choices.gen_range(0..4).min(newest)),
    }
}

fn check(world: &World, seed: u64, room: RoomId, sent: &Sent, machines: &[usize]) {
    let summary = |machine: usize| {
        let rooms = world.machines[machine].engine().rooms();
        rooms
            .into_iter()
            .find(|summary| summary.room == room)
            .unwrap()
    };
    for &machine in machines {
        let engine = world.machines[machine].engine();
        assert_eq!(
            summary(machine).members,
            summary(machines[0]).members,
            "seed {seed}: {machine} does not agree on the members: {engine:?}"
        );
        assert!(engine.is_settled(), "seed {seed}: {machine}: {engine:?}");
        let history = world.machines[machine].history(room);
        in_order(seed, machine, &history);
        for (sender, ticket, text) in sent {
            let from = &world.machines[*sender];
            let queued = from.events.iter().any(
                |event| matches!(event, Event::Queued { ticket: queued, .. } if queued == ticket),
            );
            let said = |record: &&HistoryRecord| record.content == Content::Text(text.clone());
            let shown = history.iter().filter(said).count();
            assert!(
                shown <= 1,
                "seed {seed}: {machine} shows {text} {shown} times"
            );
            let counter = from
                .history(room)
                .iter()
                .find(said)
                .map(|record| record.counter);
            assert!(
                !queued || shown == 1 || is_noted(&history, from.device, counter),
                "seed {seed}: {machine} lacks {text} of {sender}, and no note says so: {engine:?}"
            );
        }
    }
}

/// Whether the history says that this entry of a device is missing.
fn is_noted(history: &[HistoryRecord], device: DeviceId, counter: Option<u64>) -> bool {
    history
        .iter()
        .any(|record| match (&record.content, counter) {
            (Content::Note(Note::Missing { from, through }), Some(counter)) => {
                record.device == device && (*from..=*through).contains(&counter)
            }
            _ => false,
        })
}

fn in_order(seed: u64, machine: usize, history: &[HistoryRecord]) {
    let mut highest: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for record in history {
        if matches!(record.content, Content::Note(_)) {
            continue;
        }
        let highest = highest.entry(record.device).or_default();
        assert!(
            record.counter > *highest || record.late,
            "seed {seed}: {machine} shows {record:?} out of order without saying so"
        );
        *highest = record.counter.max(*highest);
    }
}
