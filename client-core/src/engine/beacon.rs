//! Beacons: a device says that it is there, and how far it has come, so that
//! relays know what every device of a room has and who is there. Only what has
//! changed, and seldom: all times are those of an ordinary link.

use std::collections::BTreeMap;

use rand::{Rng, RngCore};
use sotto_proto::{DeviceId, RoomId, limits, wire};

use super::Engine;
use crate::io::{Event, Output};
use crate::room::Phase;

/// The fewest ticks between two beacons; by up to as many more they differ
/// from device to device.
const EVERY_TICKS: u32 = 5;

/// Ticks after which a device says that it is there though nothing changed.
const ALIVE_TICKS: u32 = 30;

/// Ticks after which it says all that it has said again: relays keep it in
/// memory only.
const COMPLETE_TICKS: u32 = 300;

/// What was said on this connection.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The cursors of messages and handshakes.
    cursors: BTreeMap<RoomId, (u64, u64)>,
    /// Ticks until something may be said again.
    wait: u32,
    /// Ticks since something was said.
    quiet: u32,
    /// Ticks since everything was said.
    old: u32,
    begun: bool,
    /// Entries that were said again since the beacon before.
    pub(super) said_again: u32,
}

impl Engine {
    /// Says how far this device has come, if it is time and there is news.
    pub(super) fn tick_beacon(&mut self, rng: &mut impl RngCore) {
        if !self.link.online || self.link.fetch.is_first() {
            return;
        }
        let pace = self.link.pace;
        let said = &mut self.link.beacon;
        said.wait = said.wait.saturating_sub(1);
        said.quiet += 1;
        said.old += 1;
        if said.old >= pace.ticks(COMPLETE_TICKS) {
            said.cursors.clear();
            said.old = 0;
        }
        if said.wait > 0 {
            return;
        }
        let mut cursors = Vec::new();
        for room in self.rooms.values() {
            let cursor = (room.record.messages_after, room.record.handshakes_after);
            let is_news = said.cursors.get(&room.id) != Some(&cursor);
            if room.record.phase != Phase::Member || !is_news {
                continue;
            }
            if cursors.len() == limits::FETCH_ROOMS {
                break;
            }
            said.cursors.insert(room.id, cursor);
            cursors.push(wire::RoomCursor {
                room: room.id.to_bytes(),
                messages_after: cursor.0,
                handshakes_after: cursor.1,
            });
        }
        let due = !said.begun || !cursors.is_empty() || said.quiet >= pace.ticks(ALIVE_TICKS);
        if due {
            said.begun = true;
            said.quiet = 0;
            let said_again = std::mem::take(&mut said.said_again);
            said.wait = pace.ticks(EVERY_TICKS + rng.gen_range(0..=EVERY_TICKS));
            self.effect(Output::Beacon(wire::Beacon {
                cursors,
                leaving: false,
                said_again,
            }));
        }
    }

    /// A relay says who is there; of members it may be true.
    pub(super) fn present(&mut self, id: RoomId, device: DeviceId, here: bool) {
        let group = self.rooms.get(&id).and_then(|room| room.group());
        let member = group.and_then(|group| group.members().find(|m| m.device == device));
        if let Some(member) = member.filter(|member| member.device != self.account.device) {
            self.event(Event::Presence {
                room: id,
                user: member.user,
                device,
                here,
            });
        }
    }
}
