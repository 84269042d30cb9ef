//! The gate through which a new program has to go: it must become ready within
//! a bound, and stay ready for a while; otherwise the old one comes back.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use semver::Version;
use sotto_log::Known;

use crate::Digest;
use crate::journal::Probation;
use crate::slot::{Slot, SlotError};

/// How many looks in a row may find the program not ready.
const MISSES_MAX: u32 = 3;

/// What is updated while it runs.
pub trait Service {
    /// Has the program that is in place now take the place of what runs, which
    /// may go on until the new one serves.
    ///
    /// # Errors
    /// When the program does not start.
    fn restart(&mut self) -> io::Result<()>;

    /// The process that serves with the program that is in place now; nothing
    /// while there is none.
    fn ready(&mut self) -> Option<Serving>;
}

/// A process that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Its id.
    pub process: u32,
    /// Whether it has yet to start anew a part of itself: so long it does not
    /// prove itself.
    pub is_partial: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the start to ready.
    pub ready: Duration,
    /// How long it has to stay so, with all of its parts.
    pub probation: Duration,
    /// Between two looks.
    pub look: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(120),
            probation: Duration::from_secs(600),
            look: Duration::from_secs(1),
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new program serves, and the old one is kept beside it.
    Confirmed(Version),
    /// The old program is in place again.
    Returned {
        /// What did not serve.
        version: Version,
        /// In words.
        why: String,
        /// Whether the old one is ready.
        old_is_ready: bool,
    },
}

/// Puts the file at [`Slot::next`] in place, restarts, and watches.
///
/// # Errors
/// When the disk says no.
pub fn update(
    slot: &Slot,
    sha256: Digest,
    (version, running): (&Version, &Version),
    service: &mut dyn Service,
    bounds: Bounds,
) -> Result<Outcome, SlotError> {
    slot.activate(sha256, version, running)?;
    if let Err(error) = service.restart() {
        let why = format!("it does not start: {error}");
        return take_back(slot, version, service, bounds, why);
    }
    watch(slot, version, service, bounds, bounds.probation)
}

/// Goes on with an update that was interrupted: watches what is left of the
/// probation; nothing when none is on.
///
/// # Errors
/// When the disk says no.
pub fn resume(
    slot: &Slot,
    service: &mut dyn Service,
    bounds: Bounds,
) -> Result<Option<Outcome>, SlotError> {
    let Some(Probation { version, since, .. }) = slot.recover()? else {
        return Ok(None);
    };
    // A clock that was changed meanwhile makes it longer, never shorter than nothing.
    let passed = Timestamp::now()
        .duration_since(since)
        .max(SignedDuration::ZERO);
    let passed = Duration::try_from(passed).unwrap_or_default();
    let left = bounds.probation.saturating_sub(passed);
    if service.ready().is_none() && service.restart().is_err() {
        let why = "it does not start".to_owned();
        return take_back(slot, &version, service, bounds, why).map(Some);
    }
    watch(slot, &version, service, bounds, left).map(Some)
}

fn watch(
    slot: &Slot,
    version: &Version,
    service: &mut dyn Service,
    bounds: Bounds,
    probation: Duration,
) -> Result<Outcome, SlotError> {
    let Some(mut serving) = becomes_ready(service, bounds) else {
        let why = format!("it was not ready within {} s", bounds.ready.as_secs_f32());
        return take_back(slot, version, service, bounds, why);
    };
    let process = serving.process;
    let (mut began, mut probation) = (Instant::now(), probation);
    let mut misses = 0;
    loop {
        if serving.is_partial {
            // It counts from when all of it serves.
            (began, probation) = (Instant::now(), bounds.probation);
        } else if began.elapsed() >= probation {
            break;
        }
        thread::sleep(bounds.look);
        if !on_probation(slot, version)? {
            return taken_back_by_the_guard(version, process);
        }
        match service.ready() {
            Some(now) if now.process == process => (serving, misses) = (now, 0),
            Some(_) => {
                let why = "it was ready, and then ended".to_owned();
                return take_back(slot, version, service, bounds, why);
            }
            None if misses + 1 < MISSES_MAX => misses += 1,
            None => {
                let why = "it was ready, and then no more".to_owned();
                return take_back(slot, version, service, bounds, why);
            }
        }
    }
    if !on_probation(slot, version)? {
        return taken_back_by_the_guard(version, process);
    }
    slot.confirm()?;
    Ok(Outcome::Confirmed(version.clone()))
}

fn on_probation(slot: &Slot, version: &Version) -> Result<bool, SlotError> {
    let journal = slot.journal().read()?;
    Ok(journal
        .probation
        .is_some_and(|probation| probation.version == *version))
}

fn taken_back_by_the_guard(version: &Version, ready: u32) -> Result<Outcome, SlotError> {
    sotto_log::warn!(
        version = Known(version),
        ready,
        "the guard returned to the old program"
    );
    Ok(Outcome::Returned {
        version: version.clone(),
        why: "it was started again and again".to_owned(),
        old_is_ready: true,
    })
}

fn take_back(
    slot: &Slot,
    version: &Version,
    service: &mut dyn Service,
    bounds: Bounds,
    why: String,
) -> Result<Outcome, SlotError> {
    // The guard may have been faster.
    if slot.recover()?.is_some() {
        slot.back(&why)?;
    }
    let old_is_ready = service.restart().is_ok() && becomes_ready(service, bounds).is_some();
    Ok(Outcome::Returned {
        version: version.clone(),
        why,
        old_is_ready,
    })
}

fn becomes_ready(service: &mut dyn Service, bounds: Bounds) -> Option<Serving> {
    let started = Instant::now();
    loop {
        if let Some(serving) = service.ready() {
            return Some(serving);
        }
        if started.elapsed() >= bounds.ready {
            return None;
        }
        thread::sleep(bounds.look);
    }
}
