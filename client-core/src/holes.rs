//! What a device knows of what others have said in a room and it has not got:
//! counters without gaps show what is missing in between, and what others
//! name shows what is missing at the end.
//!
//! Must never take another device's word for what its sender has said: words
//! of others only make it ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sotto_proto::{DeviceId, RoomId, UserName, wire};

/// By how much another device's word may raise what somebody is thought to
/// have said.
const HEARSAY: u64 = 10_000;

/// The counters seen of one device, exactly, so that what travels twice is
/// shown once, in whatever order it comes: runs of them, first to last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    runs: BTreeMap<u64, u64>,
}

/// Runs that are kept apart; what is missing between the oldest is given up.
const RUNS: usize = 128;

impl Seen {
    /// Notes a counter; `false` when it was seen before.
    pub(crate) fn insert(&mut self, counter: u64) -> bool {
        let before = self.runs.range(..=counter).next_back();
        let before = before.map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| counter <= last) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(counter) => first,
            _ => counter,
        };
        let after = counter
            .checked_add(1)
            .and_then(|next| self.runs.remove(&next));
        self.runs.insert(first, after.unwrap_or(counter));
        while self.runs.len() > RUNS {
            self.join_oldest();
        }
        true
    }

    /// Notes every counter from the first to the last.
    pub(crate) fn insert_run(&mut self, from: u64, through: u64) {
        let Some(before) = from.checked_sub(1) else {
            return;
        };
        let (mut first, mut last) = (from, through.max(from));
        let after = last.saturating_add(1);
        let touching = |(&first, &last): (&u64, &u64)| last >= before && first <= after;
        let joined: Vec<(u64, u64)> = self
            .runs
            .range(..=after)
            .rev()
            .take_while(|run| touching(*run))
            .map(|(first, last)| (*first, *last))
            .collect();
        for run in joined {
            self.runs.remove(&run.0);
            first = first.min(run.0);
            last = last.max(run.1);
        }
        self.runs.insert(first, last);
        while self.runs.len() > RUNS {
            self.join_oldest();
        }
    }

    /// The highest, or 0.
    pub(crate) fn highest(&self) -> u64 {
        let newest = self.runs.last_key_value();
        newest.map_or(0, |(_, last)| *last)
    }

    /// What is missing from the first to the last, as runs of it.
    pub(crate) fn gaps(&self, from: u64, through: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = from;
        for (&first, &last) in &self.runs {
            if first > through {
                break;
            }
            if first > next {
                gaps.push((next, first - 1));
            }
            next = next.max(last.saturating_add(1));
        }
        if next <= through {
            gaps.push((next, through));
        }
        gaps
    }

    /// What is there from the first to the last, as runs.
    fn within(&self, from: u64, through: u64) -> Vec<(u64, u64)> {
        let runs = self.runs.range(..=through);
        let parts = runs.map(|(&first, &last)| (first.max(from), last.min(through)));
        parts.filter(|(first, last)| first <= last).collect()
    }

    fn join_oldest(&mut self) {
        let Some((first, _)) = self.runs.pop_first() else {
            return;
        };
        if let Some((_, last)) = self.runs.pop_first() {
            self.runs.insert(first, last);
        }
    }
}

/// What a device has read and heard of one other device in a room, format 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) user: UserName,
    /// What was read of it.
    seen: Seen,
    /// The first counter that this device is owed; unknown at first.
    owed_from: Option<u64>,
    /// The highest counter that it is known, or said, to have used.
    known: u64,
    /// The newest entry that was read.
    newest: Option<Newest>,
    /// Whether an own frame has named the newest.
    pub(crate) named: bool,
    /// What the history says is missing.
    noted: Seen,
    /// What it cannot say again.
    gone: Seen,
    /// How often what is missing was asked for.
    pub(crate) asked: u32,
    /// Whether the history says that it said different things to others.
    contradicted: bool,
}

/// The newest entry that was read of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) counter: u64,
    /// The epoch of the frame that brought it.
    pub(crate) epoch: u64,
    /// That frame's sequence in the stream.
    pub(crate) sequence: u64,
    pub(crate) hash: [u8; 16],
}

/// How an entry that was read stands to what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is the newest.
    New,
    /// It should have come before others that were read already.
    Late,
    /// It was read before.
    Again,
}

impl Heard {
    pub(crate) fn new(user: UserName) -> Self {
        Self {
            user,
            seen: Seen::default(),
            owed_from: None,
            known: 0,
            newest: None,
            named: true,
            noted: Seen::default(),
            gone: Seen::default(),
            asked: 0,
            contradicted: false,
        }
    }

    /// Notes an entry of a frame.
    pub(crate) fn read(&mut self, entry: Newest) -> Reading {
        let late = entry.counter < self.seen.highest();
        if !self.seen.insert(entry.counter) {
            return Reading::Again;
        }
        self.known = self.known.max(entry.counter);
        if late {
            return Reading::Late;
        }
        self.newest = Some(entry);
        self.named = false;
        Reading::New
    }

    /// Takes what a frame of this device says of what it has said: the last
    /// counter that it has used, and from where on newcomers are owed what it
    /// says. Older versions say 0. It counts more than what others have said.
    pub(crate) fn says(&mut self, counter: u64, first_read: Option<u64>, owed_from: u64) {
        if counter > 0 {
            self.known = counter.max(self.seen.highest());
        }
        let owed = [Some(owed_from).filter(|from| *from > 0), first_read];
        let owed = owed.into_iter().flatten().min();
        self.owed_from = [self.owed_from, owed].into_iter().flatten().min();
    }

    /// Takes another device's word that it has read this; `true` when that is
    /// the first time that it contradicts what this device has read.
    pub(crate) fn hear(&mut self, counter: u64, hash: &[u8]) -> bool {
        if self.known > 0 && counter > self.known.saturating_add(HEARSAY) {
            return false;
        }
        self.known = self.known.max(counter);
        let owed = self.owed_from.unwrap_or(counter);
        self.owed_from = Some(owed.min(counter));
        let same = |newest: Newest| newest.counter != counter || newest.hash[..] == *hash;
        let contradicts = !self.newest.is_none_or(same);
        contradicts && !std::mem::replace(&mut self.contradicted, true)
    }

    /// It cannot say these again.
    pub(crate) fn lost(&mut self, from: u64, through: u64) {
        let through = through.min(self.known);
        if from > 0 && from <= through {
            self.gone.insert_run(from, through);
        }
    }

    /// What is missing and can be asked for.
    pub(crate) fn missing(&self) -> Vec<(u64, u64)> {
        self.without(&self.gone)
    }

    /// What is missing and the history does not say so yet; it says so from
    /// now on.
    pub(crate) fn take_unnoted(&mut self) -> Vec<(u64, u64)> {
        let unnoted = self.without(&self.noted);
        self.note(unnoted)
    }

    /// The same, of what cannot be said again.
    pub(crate) fn take_lost(&mut self) -> Vec<(u64, u64)> {
        let unnoted = self.without(&self.noted).into_iter();
        let lost = unnoted.flat_map(|(from, through)| self.gone.within(from, through));
        let lost = lost.collect();
        self.note(lost)
    }

    fn note(&mut self, runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        for &(from, through) in &runs {
            self.noted.insert_run(from, through);
        }
        runs
    }

    /// Whether nothing is missing; cheap.
    pub(crate) fn is_whole(&self) -> bool {
        let holds = |from: u64| {
            let run = self.seen.runs.range(..=from).next_back();
            run.is_some_and(|(_, last)| *last >= self.known)
        };
        self.owed_from
            .is_none_or(|from| from > self.known || holds(from))
    }

    /// This device has left the room and come back: what was said meanwhile is
    /// not for it.
    pub(crate) fn forget_owed(&mut self) {
        self.owed_from = None;
        self.asked = 0;
    }

    /// The frame that named the newest may not have come: the next names it
    /// again.
    pub(crate) fn name_again(&mut self) {
        self.named = self.newest.is_none();
    }

    pub(crate) fn newest(&self) -> Option<Newest> {
        self.newest
    }

    fn without(&self, closed: &Seen) -> Vec<(u64, u64)> {
        let Some(owed_from) = self.owed_from else {
            return Vec::new();
        };
        let holes = self.seen.gaps(owed_from, self.known);
        let open = holes.into_iter();
        open.flat_map(|(from, through)| closed.gaps(from, through))
            .collect()
    }
}

/// What an entry is called in [`wire::Head`].
pub(crate) fn entry_hash(room: RoomId, device: DeviceId, entry: &wire::Entry) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update("sotto entry 1")
        .chain_update(room.as_bytes())
        .chain_update(device.as_bytes())
        .chain_update(entry.counter.to_be_bytes())
        .chain_update(entry.sent_at_ms.to_be_bytes())
        .chain_update(entry.kind.to_be_bytes())
        .chain_update(&entry.body)
        .finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(digest.get(..16).unwrap_or(&[0; 16]));
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_counter_is_new_once(counters in proptest::collection::vec(1u64..60, 0..200)) {
            let mut seen = Seen::default();
            let mut model = std::collections::BTreeSet::new();
            for counter in counters {
                prop_assert_eq!(seen.insert(counter), model.insert(counter));
            }
        }
    }

    /// Bits of a small model, as runs.
    fn runs(bits: &[bool]) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (counter, _) in (0u64..).zip(bits).filter(|(_, bit)| **bit) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == counter => *last = counter,
                _ => runs.push((counter, counter)),
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn runs_and_gaps_are_those_of_a_set(
            inserted in proptest::collection::vec((1u64..60, 0u64..20), 0..12),
            from in 1u64..60,
            through in 1u64..80,
        ) {
            let mut seen = Seen::default();
            let mut model = [false; 100];
            for (first, more) in inserted {
                seen.insert_run(first, first + more);
                model[first as usize..=(first + more) as usize].fill(true);
            }
            let inside = |counter: usize| (from..=through).contains(&(counter as u64));
            let there: Vec<bool> = (0..100).map(|n| model[n] && inside(n)).collect();
            let missing: Vec<bool> = (0..100).map(|n| !model[n] && inside(n)).collect();
            prop_assert_eq!(seen.within(from, through), runs(&there));
            prop_assert_eq!(seen.gaps(from, through), runs(&missing));
        }
    }

    fn newest(counter: u64) -> Newest {
        Newest {
            counter,
            epoch: 1,
            sequence: counter,
            hash: [counter as u8; 16],
        }
    }

    fn heard() -> Heard {
        Heard::new("alice".parse().unwrap())
    }

    #[test]
    fn what_is_missing_shows_by_what_comes_after_it() {
        let mut heard = heard();
        assert_eq!(heard.read(newest(4)), Reading::New);
        heard.says(4, Some(4), 3);
        assert_eq!(heard.missing(), [(3, 3)]);
        assert_eq!(heard.read(newest(7)), Reading::New);
        heard.says(7, Some(7), 3);
        assert_eq!(heard.missing(), [(3, 3), (5, 6)]);
        assert_eq!(heard.read(newest(5)), Reading::Late);
        assert_eq!(heard.read(newest(5)), Reading::Again);
        assert_eq!(heard.missing(), [(3, 3), (6, 6)]);
    }

    #[test]
    fn what_came_before_this_device_is_not_missing() {
        let mut heard = heard();
        heard.read(newest(40));
        heard.says(40, Some(40), 0);
        assert!(heard.missing().is_empty());
    }

    #[test]
    fn the_last_that_was_said_is_missed_by_what_others_have_read() {
        let mut heard = heard();
        assert!(!heard.hear(9, &[9; 16]));
        assert_eq!(heard.missing(), [(9, 9)]);
        heard.read(newest(9));
        assert!(heard.missing().is_empty());
        assert!(!heard.hear(9 + HEARSAY + 1, &[0; 16]));
        assert!(heard.missing().is_empty());
        // Its sender's own word counts more.
        assert!(!heard.hear(12, &[0; 16]));
        heard.says(10, None, 0);
        assert_eq!(heard.missing(), [(10, 10)]);
    }

    #[test]
    fn a_sender_who_says_different_things_is_noticed_once() {
        let mut heard = heard();
        heard.read(newest(1));
        assert!(!heard.hear(1, &[1; 16]));
        assert!(heard.hear(1, &[2; 16]));
        assert!(!heard.hear(1, &[2; 16]));
    }

    #[test]
    fn what_is_missing_is_noted_once() {
        let mut heard = heard();
        heard.read(newest(1));
        heard.read(newest(9));
        heard.says(9, Some(1), 0);
        assert!(heard.take_lost().is_empty());
        heard.lost(4, 5);
        assert_eq!(heard.take_lost(), [(4, 5)]);
        assert_eq!(heard.missing(), [(2, 3), (6, 8)]);
        assert_eq!(heard.take_unnoted(), [(2, 3), (6, 8)]);
        assert!(heard.take_unnoted().is_empty());
        // It is asked for all the same, and may still come.
        assert_eq!(heard.missing(), [(2, 3), (6, 8)]);
        assert_eq!(heard.read(newest(4)), Reading::Late);
    }

    #[test]
    fn gaps_that_stay_do_not_grow_for_ever() {
        let mut seen = Seen::default();
        for counter in (2..5_000).step_by(2) {
            assert!(seen.insert(counter));
        }
        assert_eq!(seen.runs.len(), RUNS);
        assert!(!seen.insert(4_998));
        assert!(seen.insert(4_997));
    }

    #[test]
    fn the_last_counter_there_is_does_not_overflow() {
        let mut seen = Seen::default();
        assert!(seen.insert(u64::MAX));
        assert!(!seen.insert(u64::MAX));
        assert!(seen.insert(u64::MAX - 1));
    }
}
