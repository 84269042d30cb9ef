//! Everything goes wrong at once, and then it is checked that nothing was
//! lost: people send and read with the real programs while a seed decides who
//! is killed, paused, cut off, told the wrong time or loses power.
//!
//! The seed decides what is done; when it hits is up to the machine, so that
//! the same seed is the same kind of run and not the same run.

mod checker;
mod crowd;
mod machines;
mod plan;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::case::text;
use crate::network::Network;
use crate::person::Person;
use checker::Outsider;
use crowd::{Member, Said};
use machines::Machines;
use plan::Trouble;

pub use checker::Verdict;

/// How long after the last fault everything must be everywhere.
const PATIENCE: Duration = Duration::from_secs(180);

/// The password of everybody.
const PASSWORD: &str = "correct horse battery staple";

/// Plays for `duration` on so many nodes, and checks.
///
/// # Errors
/// When the play itself fails; what the checker found is in the verdict.
pub fn play(seed: u64, nodes: usize, duration: Duration) -> anyhow::Result<Verdict> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().context("making a folder")?;
    let mut machines = Machines::make(folder.path(), nodes)?;
    let device = |name: &str| {
        let path = folder.path().join(name);
        let disk = machines::disk(&path)?;
        anyhow::Ok((Person::new(path, PASSWORD)?, disk))
    };
    let (alice, her_disk) = device("alice")?;
    alice.does(&["signup", &machines.first_invite()?, "alice"])?;
    let made = alice.does(&["room", "create", "barn", "--project", "field"])?;
    let room = text(&made, "room")?;
    let join = |name: &str| {
        let (person, disk) = device(name)?;
        let invite = alice.does(&["invite", "--project", "field"])?;
        person.does(&["signup", &text(&invite, "invite")?, name])?;
        alice.does(&["room", "invite", &room, name])?;
        person.does(&["sync"])?;
        anyhow::Ok((person, disk))
    };
    let mut people = Vec::new();
    for name in ["bob", "carol", "dave"] {
        people.push((name, join(name)?));
    }
    let (outsider, _disk) = join("erin")?;
    let (stranger, _disk) = device("frank")?;
    let invite = alice.does(&["invite", "--project", "field"])?;
    stranger.does(&["signup", &text(&invite, "invite")?, "frank"])?;
    let stranger = checker::Stranger(stranger);
    people.push(("alice", (alice.clone(), her_disk)));
    let (gateway, nats) = machines.addresses()?;
    let mut members = Vec::new();
    for ((name, (person, disk)), number) in people.into_iter().zip(0..) {
        person.does(&["sync"])?;
        let seed = seed.wrapping_add(number);
        let network = Network::between(gateway, &nats, &plan::calm(), seed)?;
        members.push(Member::new(person, name, network, disk));
    }

    let began = Instant::now();
    let half = duration / 2;
    let mut done = Vec::new();
    let mut said = storm(&mut machines, &members, half, &mut rng, &mut done)?;
    let outsider = Outsider::take_out(&alice, outsider, "erin", &members)?;
    let after = storm(&mut machines, &members, half, &mut rng, &mut done)?;
    outsider.must_not_see(&after);
    said.extend(after);
    let stormed = began.elapsed();

    let quiet = Instant::now();
    let final_words = crowd::last_words(&members)?;
    said.extend(final_words);
    let (mut findings, late) =
        checker::check(&members, &room, &said, (&outsider, &stranger), PATIENCE)?;
    if !done.iter().any(|trouble| trouble.may_make_late()) {
        findings.extend(late);
    }
    Ok(Verdict {
        seed,
        nodes,
        forgets: machines.forget(),
        stormed,
        settled: quiet.elapsed(),
        said: said.iter().filter(|said| said.queued).count(),
        ticked: said.iter().filter(|said| said.ticked).count(),
        faults: plan::count(&done),
        findings,
    })
}

/// Faults and people at the same time; what was said.
fn storm(
    machines: &mut Machines,
    members: &[Member],
    duration: Duration,
    rng: &mut ChaCha8Rng,
    done: &mut Vec<Trouble>,
) -> anyhow::Result<Vec<Said>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let speaking: Vec<_> = members
            .iter()
            .map(|member| {
                let mut rng = ChaCha8Rng::from_rng(&mut *rng)?;
                let over = &over;
                anyhow::Ok(scope.spawn(move || member.lives(over, &mut rng)))
            })
            .collect::<anyhow::Result<_>>()?;
        let began = Instant::now();
        let faults = (|| {
            while began.elapsed() < duration {
                let trouble = Trouble::draw(rng, members.len(), machines.count());
                done.push(trouble);
                let happened = trouble.happen(machines, members);
                happened.with_context(|| format!("{trouble:?}"))?;
            }
            anyhow::Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        // A paused or stopped program would keep the people waiting.
        plan::mend(machines, members)?;
        let mut said = Vec::new();
        for speaking in speaking {
            let spoken = speaking.join().ok().context("a person has panicked")?;
            said.extend(spoken?);
        }
        faults?;
        Ok(said)
    })
}
