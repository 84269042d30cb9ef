//! Commits that somebody lacks, or that the stream lost: whoever has made or
//! merged them publishes them again.

use std::collections::BTreeSet;

use sotto_proto::RoomId;

use crate::commits::{PastCommit, PastCommits};
use crate::engine::Engine;
use crate::room::Room;

/// Conflicts at one place in the stream, with a catch-up between, after which
/// what this device has seen there counts as lost.
const CONFLICTS: u32 = 3;

impl Engine {
    /// Publishes commits again for who lacks them.
    pub(super) fn tick_commits(&mut self, room: &mut Room) {
        let Some(repair) = self.link.repairs.get_mut(&room.id) else {
            return;
        };
        if let Some((from, wait)) = &mut repair.commits {
            *wait = wait.saturating_sub(1);
            let from = *from;
            if *wait == 0 {
                repair.commits = None;
                let past = PastCommits::load(self.provider.records(), room.id);
                self.publish_again(room, &past.only(|commit| commit.epoch >= from));
            }
        }
    }

    pub(super) fn publish_again(&mut self, room: &Room, commits: &[PastCommit]) {
        let Some(address) = room.address() else {
            return;
        };
        for commit in commits {
            self.post(Some(room.id), &address.handshakes(), commit.payload.clone());
        }
    }

    /// An own commit was refused because the stream is not where this device
    /// believes it to be.
    pub(in crate::engine) fn commit_conflicts(&mut self, id: RoomId) {
        let Some(room) = self.rooms.remove(&id) else {
            return;
        };
        let after = room.record.handshakes_after;
        let repair = self.link.repairs.entry(id).or_default();
        let (place, times) = repair.conflicts;
        let times = if place == after { times + 1 } else { 1 };
        repair.conflicts = (after, times);
        if times >= CONFLICTS {
            repair.conflicts = (after, 0);
            // With it the stream has an end that everybody has seen.
            let past = PastCommits::load(self.provider.records(), id);
            let newest = past.newest_epoch();
            self.publish_again(&room, &past.only(|commit| Some(commit.epoch) == newest));
        }
        self.rooms.insert(id, room);
    }

    /// All that the server has was read: where an own commit was refused, the
    /// next one may follow. Where one after the other was, only after a tick:
    /// what this device has seen there has to be stored again first, which the
    /// server may take for a duplicate for some minutes.
    pub(in crate::engine) fn race_again(&mut self) {
        let repairs = &self.link.repairs;
        let hopeless = |room: &RoomId| {
            let repair = repairs.get(room);
            repair.is_some_and(|repair| repair.conflicts.1 == 0)
        };
        let lost = std::mem::take(&mut self.link.lost_race);
        let (wait, again): (BTreeSet<_>, BTreeSet<_>) = lost.into_iter().partition(hopeless);
        self.link.lost_race = wait;
        self.touched.extend(again);
    }

    pub(in crate::engine) fn is_past_commit(&self, room: RoomId, payload: &[u8]) -> bool {
        PastCommits::load(self.provider.records(), room).holds(payload)
    }
}
