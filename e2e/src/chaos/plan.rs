//! What can go wrong, and doing it.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use sotto_faults::Conditions;

use super::crowd::Member;
use super::machines::{Apart, Machines, Survivors};
use crate::server::Part;

/// Something that goes wrong, until it is mended or mends itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// SIGKILL for a program of a node; what supervises it starts another.
    Kill(Part, usize),
    /// Everything of the server at once.
    KillAll,
    /// Every machine of the server loses power, and what was not synced.
    CutPower(Survivors),
    /// A node of several does.
    CutPowerOf(usize, Survivors),
    /// Nodes of several do not hear each other for so long.
    Part(Apart, Duration),
    /// A person's device loses power, and what was not synced.
    CutPowerOfClient(usize, Survivors),
    /// SIGSTOP for a program of a node, and SIGCONT after so long.
    Pause(Part, usize, Duration),
    /// A node of several comes back without its streams.
    LoseDisk(usize),
    /// A node of several comes back with a bit flipped in a file of messages,
    /// somewhere in it.
    FlipBit(usize, f64),
    /// SIGKILL to what a person runs.
    KillClient(usize),
    /// A person is cut off for so long, and nobody is told.
    Cut(usize, Duration),
    /// Everybody is.
    CutAll(Duration),
    /// A person's connections break.
    Reset(usize),
    /// A person's network is bad for so long.
    Bad(usize, Duration),
    /// A person's clock jumps by so many seconds.
    Clock(usize, i64),
    /// Nothing does.
    Calm(Duration),
}

impl Fault {
    /// Draws one.
    pub(super) fn draw(rng: &mut impl Rng, people: usize, nodes: usize) -> Self {
        let part = match rng.gen_range(0..3) {
            0 => Part::Relay,
            1 => Part::Gateway,
            _ => Part::Nats,
        };
        let node = rng.gen_range(0..nodes);
        let who = rng.gen_range(0..people);
        let time = Duration::from_millis(rng.gen_range(500..6_000));
        let survivors = match rng.gen_range(0..2) {
            0 => Survivors::Nothing,
            _ => Survivors::Half(rng.r#gen()),
        };
        // What only a cluster survives comes last.
        let kinds = if nodes > 1 { 25 } else { 18 };
        match rng.gen_range(0..kinds) {
            0..3 => Self::Kill(part, node),
            3 => Self::KillAll,
            4..6 => Self::Pause(part, node, time),
            16 => Self::CutPower(survivors),
            17 => Self::CutPowerOfClient(who, survivors),
            18 => Self::LoseDisk(node),
            19 => Self::FlipBit(node, rng.gen_range(0.0..1.0)),
            20 => Self::CutPowerOf(node, survivors),
            21.. => {
                let other = (node + rng.gen_range(1..nodes)) % nodes;
                let apart = match rng.gen_range(0..4) {
                    0 | 1 => Apart::Alone(node),
                    2 => Apart::Two(node, other),
                    _ => Apart::Deaf(node, other),
                };
                // Longer than the nodes wait for each other, some of the time.
                Self::Part(apart, 3 * time)
            }
            6..8 => Self::KillClient(who),
            8..10 => Self::Cut(who, time),
            10 => Self::CutAll(time),
            11 => Self::Reset(who),
            12 => Self::Bad(who, time),
            13 => Self::Clock(who, rng.gen_range(-80_000..80_000)),
            _ => Self::Calm(time),
        }
    }

    /// What it is called in the report.
    fn name(self) -> String {
        match self {
            Self::Kill(part, _) => format!("kill -9 {}", part.program()),
            Self::KillAll => "kill -9 of the whole server".to_owned(),
            Self::CutPower(_) => "the whole server loses power".to_owned(),
            Self::CutPowerOf(..) => "a node loses power".to_owned(),
            Self::CutPowerOfClient(..) => "a client's device loses power".to_owned(),
            Self::Part(Apart::Alone(_), _) => "a node is cut off from the others".to_owned(),
            Self::Part(Apart::Two(..), _) => "two nodes are cut off from each other".to_owned(),
            Self::Part(Apart::Deaf(..), _) => "a node does not hear another".to_owned(),
            Self::LoseDisk(_) => "a node loses its streams".to_owned(),
            Self::FlipBit(..) => "a bit of a node's messages is flipped".to_owned(),
            Self::Pause(part, ..) => format!("SIGSTOP of {}", part.program()),
            Self::KillClient(_) => "kill -9 of a client".to_owned(),
            Self::Cut(..) => "a client is cut off".to_owned(),
            Self::CutAll(_) => "every client is cut off".to_owned(),
            Self::Reset(_) => "a client's connections break".to_owned(),
            Self::Bad(..) => "a client's network is bad".to_owned(),
            Self::Clock(..) => "a client's clock jumps".to_owned(),
            Self::Calm(_) => "nothing".to_owned(),
        }
    }

    /// Does it, and returns when it is over.
    pub(super) fn happen(self, machines: &mut Machines, members: &[Member]) -> anyhow::Result<()> {
        let whom = |who: usize| members.get(who).context("there are not so many people");
        match self {
            Self::Kill(part, node) => machines.kill(part, node)?,
            Self::KillAll => machines.kill_all()?,
            Self::Pause(part, node, time) => machines.pause(part, node, time)?,
            Self::CutPower(survivors) => machines.cut_power(survivors)?,
            Self::CutPowerOf(node, survivors) => machines.cut_power_of(node, survivors)?,
            Self::CutPowerOfClient(who, survivors) => whom(who)?.cut_power(survivors),
            Self::Part(apart, time) => machines.part(apart, time)?,
            Self::LoseDisk(node) => machines.lose_disk(node)?,
            Self::FlipBit(node, place) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a place in a file"
                )]
                machines.flip_bit(node, |length| (length as f64 * place) as usize)?;
            }
            Self::KillClient(who) => whom(who)?.kill(),
            Self::Cut(who, time) => {
                let network = &whom(who)?.network;
                network.cut();
                thread::sleep(time);
                network.heal();
            }
            Self::CutAll(time) => {
                members.iter().for_each(|member| member.network.cut());
                thread::sleep(time);
                members.iter().for_each(|member| member.network.heal());
            }
            Self::Reset(who) => whom(who)?.network.reset(),
            Self::Bad(who, time) => {
                let network = &whom(who)?.network;
                network.set(&bad());
                thread::sleep(time);
                network.set(&calm());
            }
            Self::Clock(who, seconds) => whom(who)?.set_clock(seconds),
            Self::Calm(time) => thread::sleep(time),
        }
        Ok(())
    }
}

/// An ordinary network.
pub(super) fn calm() -> Conditions {
    Conditions {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(2),
        ..Conditions::GOOD
    }
}

/// Bad, and not so slow that nothing happens in a short test.
fn bad() -> Conditions {
    Conditions {
        bits_per_second: Some(64_000),
        delay: Duration::from_millis(150),
        jitter: Duration::from_millis(100),
        loss: 0.1,
        life: Some(Duration::from_secs(3)),
        half_open: 0.5,
    }
}

/// Makes the networks good again, and has everything go on.
pub(super) fn mend(machines: &mut Machines, members: &[Member]) -> anyhow::Result<()> {
    for Member { network, .. } in members {
        network.set(&calm());
        network.heal();
    }
    machines.mend()
}

/// How often each kind happened.
pub(super) fn count(faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.name()).or_default() += 1;
    }
    counts
}
