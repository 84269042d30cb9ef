//! What can go wrong, and doing it.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use sotto_faults::Conditions;

use super::crowd::Member;
use super::machines::{Apart, End, Machines, Others, Survivors};
use crate::server::Part;

/// Something that goes wrong, until it is mended or mends itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
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
    FlipBit(usize, f64, Others),
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
    fn draw(rng: &mut impl Rng, people: usize, nodes: usize) -> Self {
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
            19 => {
                let others = match rng.gen_range(0..3) {
                    0 => Others::AreKilled,
                    _ => Others::Stay,
                };
                Self::FlipBit(node, rng.gen_range(0.0..1.0), others)
            }
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
            Self::FlipBit(_, _, Others::Stay) => "a bit of a node's messages is flipped".to_owned(),
            Self::FlipBit(_, _, Others::AreKilled) => {
                "a bit of a node's messages is flipped, and kill -9 of the others".to_owned()
            }
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

    /// Whether it goes on for a while, in which another one may happen.
    fn lasts(self) -> bool {
        matches!(
            self,
            Self::Part(..) | Self::Pause(..) | Self::Cut(..) | Self::CutAll(_) | Self::Bad(..)
        )
    }

    /// Whether it may happen while another one goes on. What damages a node's
    /// disk may not: with another node behind or away, one disk of those that
    /// have acknowledged something would be all that has it.
    fn may_be_second(self) -> bool {
        !matches!(self, Self::LoseDisk(_) | Self::FlipBit(..) | Self::Calm(_))
    }

    /// Whether nats-server itself may lose what it has acknowledged (7549), so
    /// that it comes back late, from its senders.
    fn may_make_late(self) -> bool {
        matches!(self, Self::FlipBit(_, _, Others::AreKilled))
    }

    /// Begins it: how long it is to last and what ends it then, if it is not
    /// over when this returns.
    fn begin<'a>(
        self,
        machines: &mut Machines,
        members: &'a [Member],
    ) -> anyhow::Result<Option<(Duration, End<'a>)>> {
        let whom = |who: usize| members.get(who).context("there are not so many people");
        match self {
            Self::Kill(part, node) => machines.kill(part, node)?,
            Self::KillAll => machines.kill_all()?,
            Self::Pause(part, node, time) => {
                return Ok(machines.pause(part, node)?.map(|end| (time, end)));
            }
            Self::CutPower(survivors) => machines.cut_power(survivors)?,
            Self::CutPowerOf(node, survivors) => machines.cut_power_of(node, survivors)?,
            Self::CutPowerOfClient(who, survivors) => whom(who)?.cut_power(survivors),
            Self::Part(apart, time) => {
                return Ok(machines.part(apart)?.map(|end| (time, end)));
            }
            Self::LoseDisk(node) => machines.lose_disk(node)?,
            Self::FlipBit(node, place, others) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a place in a file"
                )]
                let draw = |length| (length as f64 * place) as usize;
                machines.flip_bit(node, draw, others)?;
            }
            Self::KillClient(who) => whom(who)?.kill(),
            Self::Cut(who, time) => {
                let network = &whom(who)?.network;
                network.cut();
                return Ok(Some((time, Box::new(|| network.heal()))));
            }
            Self::CutAll(time) => {
                let all = members.iter();
                all.for_each(|member| member.network.cut());
                let heal = || members.iter().for_each(|member| member.network.heal());
                return Ok(Some((time, Box::new(heal))));
            }
            Self::Reset(who) => whom(who)?.network.reset(),
            Self::Bad(who, time) => {
                let network = &whom(who)?.network;
                network.set(&bad());
                return Ok(Some((time, Box::new(|| network.set(&calm())))));
            }
            Self::Clock(who, seconds) => whom(who)?.set_clock(seconds),
            Self::Calm(time) => thread::sleep(time),
        }
        Ok(None)
    }
}

/// A fault, and perhaps another one that begins while it goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    first: Fault,
    second: Option<Fault>,
}

impl Trouble {
    /// Draws one, of two faults each third time.
    pub(super) fn draw(rng: &mut impl Rng, people: usize, nodes: usize) -> Self {
        let two = rng.gen_ratio(1, 3);
        let mut one_that = |is: fn(Fault) -> bool| loop {
            let fault = Fault::draw(rng, people, nodes);
            if is(fault) {
                return fault;
            }
        };
        match two {
            true => Self {
                first: one_that(Fault::lasts),
                second: Some(one_that(Fault::may_be_second)),
            },
            false => Self {
                first: one_that(|_| true),
                second: None,
            },
        }
    }

    /// Does it, and returns when it is over.
    pub(super) fn happen(self, machines: &mut Machines, members: &[Member]) -> anyhow::Result<()> {
        let Self { first, second } = self;
        let Some((time, end)) = first.begin(machines, members)? else {
            return Ok(());
        };
        thread::scope(|scope| {
            // What begins meanwhile may be over only once this is.
            scope.spawn(move || {
                thread::sleep(time);
                end();
            });
            let Some(second) = second else {
                return Ok(());
            };
            thread::sleep(time / 3);
            if let Some((time, end)) = second.begin(machines, members)? {
                thread::sleep(time);
                end();
            }
            Ok(())
        })
    }

    /// See [`Fault::may_make_late`].
    pub(super) fn may_make_late(self) -> bool {
        self.first.may_make_late()
    }

    fn name(self) -> String {
        let first = self.first.name();
        match self.second {
            Some(second) => format!("{first}, and meanwhile: {}", second.name()),
            None => first,
        }
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
pub(super) fn count(faults: &[Trouble]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.name()).or_default() += 1;
    }
    counts
}
