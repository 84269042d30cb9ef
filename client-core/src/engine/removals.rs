//! Who must leave a room: devices that a person dismissed, and whom removal
//! orders of the gateway name. Either way somebody's commit takes them out,
//! and until then this device says nothing new in the room.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use rand::{Rng, RngCore};
use sotto_proto::signed::RemovalOrder;
use sotto_proto::wire::{self, Signed};
use sotto_proto::{DeviceId, limits};

use super::Engine;
use super::calls::Calling;
use crate::group::Group;
use crate::io::{Event, Timestamp};
use crate::mls::MlsError;
use crate::orders::{NoOrder, Order, WaitingOrder};
use crate::room::{PendingCommit, Phase, Room};
use crate::rules::Member;

/// Up to this many leaves, all who are there carry an order out at once, and
/// all but one lose the race.
const SMALL_ROOM: usize = 8;
/// Devices of a larger room that try at once, on average; the others do when
/// nobody has done it by their next tick.
const TRYING: u32 = 4;

/// Whether it is for this device to carry an order out in a large room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Come,
    /// At the next tick, unless somebody else has done it.
    NextTick,
}

impl Engine {
    /// Wants these devices out of every room where this device may remove them.
    pub(super) fn unwant_devices(&mut self, unwanted: impl Fn(&Member) -> bool) {
        let own = self.own_member();
        for (id, room) in &mut self.rooms {
            let Some(group) = room.group().filter(|_| room.record.phase == Phase::Member) else {
                continue;
            };
            let owner = group.rules().is_owner(&own);
            let unwanted = group.members().filter(|member| {
                let may_remove = owner || member.same_user(&own);
                may_remove && member.device != own.device && unwanted(member)
            });
            let unwanted: Vec<DeviceId> = unwanted.map(|member| member.device).collect();
            if !unwanted.is_empty() {
                room.record.unwanted.extend(unwanted);
                self.touched.insert(*id);
            }
        }
    }

    pub(super) fn is_dismissed(&self, device: DeviceId) -> bool {
        let unwanted = |room: &Room| {
            room.record.unwanted.contains(&device) && !self.link.withheld.contains_key(&room.id)
        };
        !self.rooms.values().any(unwanted)
    }

    /// Notes an order that names somebody here. Whom it names has no business
    /// in the room from now on, and forgets its keys at once.
    pub(super) fn take_order(
        &mut self,
        room: &mut Room,
        signed: &Signed,
        stored_at: Timestamp,
    ) -> Result<(), NoOrder> {
        let Some(group) = room.group() else {
            return Ok(());
        };
        let order = match Order::verify(group.rules(), signed, stored_at) {
            Ok(order) => order,
            // A second copy.
            Err(NoOrder::Spent) => return Ok(()),
            Err(why) => return Err(why),
        };
        if order.names(&self.own_member()) {
            self.removed(room);
            return Ok(());
        }
        let named = group.members().any(|member| order.names(&member));
        let waiting = WaitingOrder::new(&order, stored_at);
        if named && !waiting_for(room, group).contains(&order) {
            room.record.orders.push(waiting);
        }
        Ok(())
    }

    /// Asks the gateway about the rooms that this device is in and is not
    /// granted: it may have been away when it was taken out of them.
    pub(super) fn ask_lost(&mut self) {
        if !self.link.lost_due {
            return;
        }
        let link = &self.link;
        let ungranted = self.rooms.values().filter(|room| {
            room.record.phase == Phase::Member
                && !link.granted.contains(&room.id)
                && !link.withheld.contains_key(&room.id)
        });
        let rooms = ungranted.map(|room| room.id.to_bytes());
        let rooms: Vec<_> = rooms.take(limits::FETCH_ROOMS).collect();
        if rooms.is_empty() {
            self.link.lost_due = false;
        } else {
            self.call(Calling::Lost, &wire::RoomsCheck { rooms });
        }
    }

    /// Takes in the orders that name this device itself.
    pub(super) fn lost(&mut self, answer: Bytes) {
        let Ok(answer) = wire::RoomsChecked::decode(answer) else {
            return;
        };
        for signed in answer.removal_orders.iter().take(limits::FETCH_ROOMS) {
            let order = RemovalOrder::verify(signed, &self.account.gateway_key);
            let Ok(order) = order else { continue };
            let Some(mut room) = self.rooms.remove(&order.room) else {
                continue;
            };
            let own = order.user == self.account.user && order.device.is_none();
            if own && room.record.phase == Phase::Member {
                // One that does not count in this room changes nothing.
                let _ = self.take_order(&mut room, signed, Timestamp(order.at_ms));
            }
            self.touched.insert(room.id);
            self.rooms.insert(room.id, room);
        }
    }

    /// At a tick it is everybody's turn.
    pub(super) fn take_turns(&mut self) {
        for turn in self.link.turns.values_mut() {
            *turn = Turn::Come;
        }
    }

    /// The devices that are to leave.
    pub(super) fn leaving(&self, room: &Room, group: &Group) -> BTreeSet<DeviceId> {
        let mut leaving = room.record.unwanted.clone();
        if !room.record.orders.is_empty() {
            leaving.extend(named(group, &waiting_for(room, group)));
        }
        leaving
    }

    /// Commits to what is to be removed. It needs nobody's key package, so it
    /// comes before everything else.
    pub(super) fn commit_removals(&mut self, room: &mut Room, rng: &mut impl RngCore) {
        self.forget_done(room);
        if !room.record.has_removals() {
            self.link.turns.remove(&room.id);
            return;
        }
        let Some(group) = room.group().filter(|_| room.commit.is_none()) else {
            return;
        };
        let mut orders = Vec::new();
        if self.is_own_turn(room, group, rng) {
            orders = waiting_for(room, group);
            orders.truncate(limits::REMOVAL_ORDERS);
        }
        let mut leaving = room.record.unwanted.clone();
        leaving.extend(named(group, &orders));
        if leaving.is_empty() {
            return;
        }
        let Self {
            provider, account, ..
        } = self;
        let committed = room.transact(provider, |group| {
            let new = group.remove(provider, account, &leaving, &orders)?;
            if new.commit.len() > limits::PAYLOAD {
                return Err(MlsError("the room's tree is too fresh for one commit"));
            }
            Ok(new)
        });
        match committed {
            Some(Ok(new)) => {
                let ends = orders.iter().map(|order| order.last_moment().0);
                room.commit = Some(PendingCommit {
                    payload: new.commit,
                    after: room.record.handshakes_after,
                    welcome: Vec::new(),
                    recipients: Vec::new(),
                    not_after_ms: ends.min(),
                });
            }
            Some(Err(error)) => {
                self.link.turns.insert(room.id, Turn::NextTick);
                self.event(Event::Skipped {
                    room: room.id,
                    sequence: room.record.handshakes_after,
                    reason: error.to_string(),
                });
            }
            None => {}
        }
    }

    /// An own commit was stored when orders in it had ended: nobody takes it in.
    pub(super) fn land_too_late(
        &mut self,
        room: &mut Room,
        stored_at: Timestamp,
    ) -> Result<(), MlsError> {
        if let Some(group) = room.group() {
            let rules = group.rules();
            let lasts = |order: Order| order.last_moment() >= stored_at;
            let waiting = room.record.orders.iter();
            let lasting = waiting.filter(|waiting| waiting.order(rules).is_some_and(lasts));
            room.record.orders = lasting.cloned().collect();
        }
        let cleared = room.transact(&self.provider, |group| group.clear_own(&self.provider));
        cleared.unwrap_or(Ok(()))
    }

    /// Forgets who is gone, and orders that name nobody any more.
    fn forget_done(&mut self, room: &mut Room) {
        let Some(group) = room.group().filter(|_| room.record.has_removals()) else {
            return;
        };
        let members: Vec<Member> = group.members().collect();
        let there: BTreeSet<DeviceId> = members.iter().map(|member| member.device).collect();
        let rules = group.rules();
        let names_somebody = |waiting: &WaitingOrder| {
            let order = waiting.order(rules);
            order.is_some_and(|order| members.iter().any(|member| order.names(member)))
        };
        let waiting = room.record.orders.iter();
        let orders = waiting.filter(|waiting| names_somebody(waiting)).cloned();
        room.record.orders = orders.collect();
        room.record.unwanted.retain(|device| there.contains(device));
    }

    /// Whether this device tries to carry orders out now. A device that has
    /// just connected first reads whether somebody has.
    fn is_own_turn(&mut self, room: &Room, group: &Group, rng: &mut impl RngCore) -> bool {
        if room.record.orders.is_empty() || self.link.fetch.is_first() {
            return false;
        }
        let leaves = group.members().count();
        let turn = self.link.turns.entry(room.id).or_insert_with(|| {
            let several = u32::try_from(leaves).unwrap_or(u32::MAX);
            if leaves <= SMALL_ROOM || rng.gen_ratio(TRYING, several) {
                Turn::Come
            } else {
                Turn::NextTick
            }
        });
        *turn == Turn::Come
    }
}

/// The orders that wait in a room and count.
fn waiting_for(room: &Room, group: &Group) -> Vec<Order> {
    let waiting = room.record.orders.iter();
    waiting
        .filter_map(|waiting| waiting.order(group.rules()))
        .collect()
}

fn named(group: &Group, orders: &[Order]) -> BTreeSet<DeviceId> {
    let named = |member: &Member| orders.iter().any(|order| order.names(member));
    let members = group.members().filter(named);
    members.map(|member| member.device).collect()
}
