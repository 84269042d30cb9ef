//! People who send and read all the time, each with one device and one
//! process at a time.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use sotto_faults::Disk;

use super::machines::Survivors;
use crate::network::Network;
use crate::person::Person;
use crate::process::Running;

/// What a person waits for the server while everything goes wrong, in seconds.
const WAIT: &str = "4";

/// A text that somebody wanted to send.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) by: &'static str,
    pub(super) text: String,
    /// The program said that it is durable on the device.
    pub(super) queued: bool,
    /// The program said that the server has it.
    pub(super) ticked: bool,
}

/// One of the crowd.
pub(super) struct Member {
    pub(super) person: Person,
    pub(super) name: &'static str,
    pub(super) network: Network,
    clock: AtomicI64,
    next: AtomicU64,
    /// What runs now.
    process: Mutex<Option<Pid>>,
    /// What the device keeps everything on; none where FUSE is not allowed.
    disk: Option<Disk>,
    /// What runs was the last thing before its power was cut; what survives.
    power_is_cut: Mutex<Option<Survivors>>,
}

impl Member {
    /// The person behind the network.
    pub(super) fn new(
        person: Person,
        name: &'static str,
        network: Network,
        disk: Option<Disk>,
    ) -> Self {
        Self {
            person: person.behind(&network),
            name,
            network,
            clock: AtomicI64::new(0),
            next: AtomicU64::new(0),
            process: Mutex::new(None),
            disk,
            power_is_cut: Mutex::new(None),
        }
    }

    /// From the next command on.
    pub(super) fn set_clock(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    /// Kills what runs.
    pub(super) fn kill(&self) {
        // Held, so that the process id is of nobody else meanwhile.
        if let Some(pid) = *self.running() {
            // An error says that it has ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Kills what runs, and what was not synced is lost before the next
    /// command.
    pub(super) fn cut_power(&self, survivors: Survivors) {
        *lock(&self.power_is_cut) = Some(survivors);
        self.kill();
    }

    /// Sends and reads until it is over; what was said.
    pub(super) fn lives(&self, over: &AtomicBool, rng: &mut impl Rng) -> anyhow::Result<Vec<Said>> {
        let mut said = Vec::new();
        while !over.load(Ordering::Relaxed) {
            match rng.gen_range(0..4) {
                0 => drop(self.types(&["--wait", WAIT, "sync"], None)?),
                _ => said.extend(self.says(rng.gen_range(1..=5))?),
            }
        }
        Ok(said)
    }

    /// Sends so many texts with one command.
    fn says(&self, count: u64) -> anyhow::Result<Vec<Said>> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let texts: Vec<String> = (first..first + count)
            .map(|number| format!("{} says {number:06}", self.name))
            .collect();
        let send = ["--wait", WAIT, "send", "barn", "--stdin"];
        let lines = self.types(&send, Some(texts.join("\n")))?;
        let number = |event: &str, field: &str| {
            let of_event = lines.iter().filter(move |line| line["event"] == event);
            let numbers = of_event.filter_map(|line| line[field].as_u64());
            numbers.max()
        };
        // The counters of these texts, and how far they are acknowledged.
        let from = number("queued", "first");
        let done = lines.iter().any(|line| line["done"] == "sent");
        let sent = number("sent", "sent");
        let said = texts.into_iter().zip(0..).map(|(text, index)| Said {
            by: self.name,
            text,
            queued: from.is_some(),
            ticked: done
                || from
                    .zip(sent)
                    .is_some_and(|(from, sent)| from + index <= sent),
        });
        Ok(said.collect())
    }

    /// Types a command; what it printed before it ended or was killed.
    fn types(
        &self,
        arguments: &[&str],
        input: Option<String>,
    ) -> anyhow::Result<Vec<serde_json::Value>> {
        let clock = self.clock.load(Ordering::Relaxed);
        let person = self.person.clone().with_clock_off_by(clock);
        let running: Running = person.starts(arguments, Some(input.unwrap_or_default()))?;
        *self.running() = Some(running.pid()?);
        let outcome = running.finish_unreaped(|| *self.running() = None)?;
        let survivors = lock(&self.power_is_cut).take();
        if let (Some(survivors), Some(disk)) = (survivors, &self.disk) {
            survivors.of(disk);
        }
        Ok(outcome.lines)
    }

    fn running(&self) -> MutexGuard<'_, Option<Pid>> {
        lock(&self.process)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everybody sends all that is queued, reads, says one thing more and reads
/// that of the others: whoever is in another epoch than the rest cannot.
pub(super) fn last_words(members: &[Member]) -> anyhow::Result<Vec<Said>> {
    let began = Instant::now();
    for member in members {
        member.set_clock(0);
        while !member
            .person
            .run(&["--wait", "30", "sync"])?
            .status
            .success()
        {
            ensure!(
                began.elapsed() < super::PATIENCE,
                "{} does not get through although nothing is wrong any more",
                member.name
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
    let mut said = Vec::new();
    for member in members {
        said.extend(member.says(1)?);
    }
    Ok(said)
}
