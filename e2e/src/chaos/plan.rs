//! What can go wrong, and doing it.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use rustix::process::{Signal, kill_process};
use sotto_faults::Conditions;

use super::crowd::Member;
use crate::case::Case;
use crate::process;
use crate::server::Part;

/// Something that goes wrong, until it is mended or mends itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// SIGKILL; what supervises it starts another.
    Kill(Part),
    /// Everything of the server at once, as a power cut would.
    KillAll,
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Part, Duration),
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
    pub(super) fn draw(rng: &mut impl Rng, people: usize) -> Self {
        let part = match rng.gen_range(0..3) {
            0 => Part::Relay,
            1 => Part::Gateway,
            _ => Part::Nats,
        };
        let who = rng.gen_range(0..people);
        let time = Duration::from_millis(rng.gen_range(500..6_000));
        match rng.gen_range(0..16) {
            0..3 => Self::Kill(part),
            3 => Self::KillAll,
            4..6 => Self::Pause(part, time),
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
            Self::Kill(part) => format!("kill -9 {}", part.program()),
            Self::KillAll => "kill -9 of the whole server".to_owned(),
            Self::Pause(part, _) => format!("SIGSTOP of {}", part.program()),
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
    pub(super) fn happen(self, case: &mut Case, members: &[Member]) -> anyhow::Result<()> {
        let whom = |who: usize| members.get(who).context("there are not so many people");
        match self {
            Self::Kill(part) => drop(case.server.kill(part)?),
            Self::KillAll => {
                case.server.kill_all()?;
                case.server.start()?;
            }
            Self::Pause(part, time) => {
                let root = case.server.layout().root();
                if let Some(pid) = process::find(part.program(), root)? {
                    // Errors: it has just ended.
                    let _ = kill_process(pid, Signal::STOP);
                    thread::sleep(time);
                    let _ = kill_process(pid, Signal::CONT);
                }
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

/// Makes the networks good again.
pub(super) fn mend(case: &Case, members: &[Member]) -> anyhow::Result<()> {
    for Member { network, .. } in members {
        network.set(&calm());
        network.heal();
    }
    for part in [Part::Relay, Part::Gateway, Part::Nats] {
        if let Some(pid) = process::find(part.program(), case.server.layout().root())? {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    Ok(())
}

/// How often each kind happened.
pub(super) fn count(faults: &[Fault]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.name()).or_default() += 1;
    }
    counts
}
