//! The newest commits of a room, kept as they were published: if the server
//! loses them, whoever has merged them can publish them again, and members who
//! have not merged them are not left behind.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sotto_proto::RoomId;

use crate::records::{Key, Records};

/// Commits that are kept of a room.
const MOST: usize = 8;

/// Their bytes, but for the newest, which is always kept.
const BYTES: usize = 256 * 1024;

/// Oldest first, format 2.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PastCommits {
    commits: VecDeque<PastCommit>,
}

/// A commit that was merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastCommit {
    /// The epoch that it ended.
    pub(crate) epoch: u64,
    /// Where it was in the stream.
    pub(crate) sequence: u64,
    #[serde(with = "serde_bytes")]
    pub(crate) payload: Vec<u8>,
}

impl PastCommits {
    pub(crate) fn load(records: &Records, room: RoomId) -> Self {
        let kept = records.get(&Key::PastCommits(room)).ok().flatten();
        kept.unwrap_or_default()
    }

    pub(crate) fn save(&self, records: &Records, room: RoomId) {
        records.put(Key::PastCommits(room), self);
    }

    /// Keeps one more, and forgets the oldest beyond the limits.
    pub(crate) fn keep(&mut self, commit: PastCommit) {
        self.commits.push_back(commit);
        while self.commits.len() > 1 && (self.commits.len() > MOST || self.bytes() > BYTES) {
            self.commits.pop_front();
        }
    }

    pub(crate) fn holds(&self, payload: &[u8]) -> bool {
        let mut commits = self.commits.iter();
        commits.any(|commit| commit.payload == payload)
    }

    /// Those for which `which` holds, oldest first.
    pub(crate) fn only(&self, which: impl Fn(&PastCommit) -> bool) -> Vec<PastCommit> {
        let commits = self.commits.iter().filter(|commit| which(commit));
        commits.cloned().collect()
    }

    pub(crate) fn newest_epoch(&self) -> Option<u64> {
        self.commits.back().map(|commit| commit.epoch)
    }

    fn bytes(&self) -> usize {
        self.commits.iter().map(|commit| commit.payload.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(epoch: u64, length: usize) -> PastCommit {
        PastCommit {
            epoch,
            sequence: epoch,
            payload: vec![epoch as u8; length],
        }
    }

    #[test]
    fn the_newest_stay_within_the_limits() {
        let mut kept = PastCommits::default();
        for epoch in 0..20 {
            kept.keep(commit(epoch, 100));
        }
        assert_eq!(kept.only(|_| true).len(), MOST);
        assert!(kept.holds(&[19; 100]) && !kept.holds(&[11; 100]));
        kept.keep(commit(20, BYTES));
        assert_eq!(kept.only(|_| true), [commit(20, BYTES)]);
        assert_eq!(kept.newest_epoch(), Some(20));
    }
}
