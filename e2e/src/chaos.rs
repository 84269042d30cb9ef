//! Everything goes wrong at once, and then it is checked that nothing was
//! lost: people send and read with the real programs while a seed decides who
//! is killed, paused, cut off or told the wrong time.
//!
//! The seed decides what is done; when it hits is up to the machine, so that
//! the same seed is the same kind of run and not the same run.

mod checker;
mod crowd;
mod plan;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::case::Case;
use crate::network::Network;
use checker::Outsider;
use crowd::{Member, Said};
use plan::Fault;

pub use checker::Verdict;

/// How long after the last fault everything must be everywhere.
const PATIENCE: Duration = Duration::from_secs(180);

/// Plays for `duration` and checks.
///
/// # Errors
/// When the play itself fails; what the checker found is in the verdict.
pub fn play(seed: u64, duration: Duration) -> anyhow::Result<Verdict> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut case = Case::new()?;
    let mut people = vec![("alice", case.alice.clone())];
    for name in ["bob", "carol", "dave"] {
        people.push((name, case.member(case.device(name)?, name)?));
    }
    let outsider = case.member(case.device("erin")?, "erin")?;
    let mut members = Vec::new();
    for ((name, person), number) in people.into_iter().zip(0..) {
        person.does(&["sync"])?;
        let seed = seed.wrapping_add(number);
        let network = Network::new(case.server.layout(), plan::calm(), seed)?;
        members.push(Member::new(person, name, network));
    }

    let began = Instant::now();
    let half = duration / 2;
    let mut done = Vec::new();
    let mut said = storm(&mut case, &members, half, &mut rng, &mut done)?;
    let outsider = Outsider::take_out(&case, outsider, "erin", &members)?;
    let after = storm(&mut case, &members, half, &mut rng, &mut done)?;
    outsider.must_not_see(&after);
    said.extend(after);
    let stormed = began.elapsed();

    let quiet = Instant::now();
    let final_words = crowd::last_words(&members)?;
    said.extend(final_words);
    let findings = checker::check(&members, &case.room, &said, &outsider, PATIENCE)?;
    Ok(Verdict {
        seed,
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
    case: &mut Case,
    members: &[Member],
    duration: Duration,
    rng: &mut ChaCha8Rng,
    done: &mut Vec<Fault>,
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
                let fault = Fault::draw(rng, members.len());
                fault.happen(case, members)?;
                done.push(fault);
            }
            anyhow::Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        // A paused or stopped program would keep the people waiting.
        plan::mend(case, members)?;
        let mut said = Vec::new();
        for speaking in speaking {
            let spoken = speaking.join().ok().context("a person has panicked")?;
            said.extend(spoken?);
        }
        faults?;
        Ok(said)
    })
}
