//! How this device comes into rooms that others made: by an invitation, or by
//! an external commit where the room is open.

use bytes::Bytes;
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{RoomAddress, RoomId};

use super::Engine;
use super::calls::Calling;
use crate::group::Group;
use crate::io::Event;
use crate::mls::MlsError;
use crate::orders;
use crate::room::{PendingCommit, Phase, Room, RoomRecord};
use crate::rules::{authenticated_data, check_identity};

impl Engine {
    pub(super) fn ask_join(&mut self, room: &Room) {
        self.call(
            Calling::Join(room.id),
            &wire::RoomJoin {
                room: room.id.to_bytes(),
            },
        );
    }

    pub(super) fn is_member(&self, room: RoomId) -> bool {
        let room = self.rooms.get(&room);
        room.is_some_and(|room| room.record.phase == Phase::Member)
    }

    /// Joins the room of an invitation, if it is what it says.
    pub(super) fn accept_invitation(&mut self, invitation: &wire::Invitation, tree: &[u8]) {
        let address = invitation
            .address
            .as_ref()
            .and_then(|address| RoomAddress::try_from(address).ok());
        let Some(address) = address else { return };
        if self.is_member(address.room) {
            return;
        }
        let joined = self.try_group(|engine| {
            let (group, sender) = Group::join(&engine.provider, &invitation.welcome, tree)?;
            let rules = group.rules();
            if !rules.is_owner(&sender) && sender.user != engine.account.user {
                return Err(MlsError("whoever sent the invitation may not invite"));
            }
            if rules.address != address {
                return Err(MlsError("it is for another room than it says"));
            }
            engine.check_group(&group)?;
            Ok(group)
        });
        match joined {
            Ok(group) => self.enter(&address, group, invitation.commit_sequence),
            Err(error) => {
                let sequence = self.inbox_after;
                self.event(Event::Skipped {
                    room: address.room,
                    sequence,
                    reason: error.to_string(),
                });
            }
        }
    }

    /// Checks a group that others made before this device is in it for good,
    /// and remembers its members.
    fn check_group(&mut self, group: &Group) -> Result<(), MlsError> {
        let rules = group.rules();
        if rules.org != self.account.org || rules.gateway_key != self.account.gateway_key {
            return Err(MlsError("it is of another organisation"));
        }
        if !group.has(self.account.device) {
            return Err(MlsError("it does not hold this device"));
        }
        for leaf in group.leaves() {
            let certificate = leaf
                .verify(&rules.org)
                .map_err(|_| MlsError("a member has no certificate"))?;
            if check_identity(&certificate, |user| self.known_identity(user)).is_err() {
                self.event(Event::IdentityChanged {
                    user: certificate.user,
                });
                return Err(MlsError("a member's identity key has changed"));
            }
            super::remember(&self.provider, &certificate.user, &certificate.identity_key);
        }
        Ok(())
    }

    fn enter(&mut self, address: &RoomAddress, group: Group, commit_sequence: u64) {
        let join_rule = group.rules().join_rule;
        let before = self.rooms.remove(&address.room).map(|room| room.record);
        let mut record = before.unwrap_or_else(|| RoomRecord::new(Phase::Member, None, join_rule));
        record.phase = Phase::Member;
        record.join_rule = join_rule.into();
        record.joined_epoch = group.epoch();
        record.set_address(address);
        record.messages_after = commit_sequence;
        record.handshakes_after = commit_sequence;
        let mut room = Room::new(address.room, record);
        room.set_group(Some(group));
        self.came_in(&mut room);
        self.rooms.insert(address.room, room);
        self.touched.insert(address.room);
        self.is_behind(address.room);
        self.expect_grants();
        self.event(Event::Joined { room: address.room });
    }

    /// The gateway lets this device join an open room: make the external commit.
    pub(super) fn joinable(&mut self, room: &mut Room, answer: wire::RoomJoinable) {
        let nonsense = MlsError("the server's answer makes no sense");
        let address = answer
            .address
            .as_ref()
            .and_then(|address| RoomAddress::try_from(address).ok());
        let (Some(address), Some(grant)) = (
            address.filter(|address| address.room == room.id),
            answer.grant,
        ) else {
            return self.fail_waiting(room.id, &nonsense.to_string(), |_| true);
        };
        let data = authenticated_data(vec![grant]).to_vec();
        let joined = self.try_group(|engine| {
            let Self {
                provider, account, ..
            } = &*engine;
            let (group, commit) = Group::join_externally(
                provider,
                account,
                &answer.group_info,
                &answer.ratchet_tree,
                data,
            )?;
            if group.rules().address != address || group.rules().join_rule != JoinRule::Open {
                return Err(nonsense);
            }
            engine.check_group(&group)?;
            Ok((group, commit))
        });
        match joined {
            Ok((group, payload)) => {
                self.expect_grants();
                room.set_group(Some(group));
                room.record.set_address(&address);
                room.record.messages_after = answer.commit_sequence;
                room.record.handshakes_after = answer.commit_sequence;
                let after = answer.commit_sequence;
                room.commit = Some(PendingCommit {
                    payload,
                    after,
                    welcome: Vec::new(),
                    recipients: Vec::new(),
                    not_after_ms: None,
                });
            }
            Err(error) => self.fail_waiting(room.id, &error.to_string(), |_| true),
        }
    }

    /// While joining, the first commit after the one that the GroupInfo was of
    /// decides: it is ours, or somebody else's and we try again.
    pub(super) fn settle_joining(&mut self, room: &mut Room, sequence: u64, payload: &Bytes) {
        // It changes nothing in the group that this device is about to join.
        if orders::of_notice(payload).is_some() {
            return;
        }
        let Some(commit) = room.commit.take() else {
            return;
        };
        if commit.payload == *payload {
            room.record.phase = Phase::Member;
            room.record.joined_epoch = room.epoch();
            room.record.messages_after = sequence;
            room.record.group_info_due = true;
            self.merged(room, sequence, payload, false);
            self.came_in(room);
            self.event(Event::Joined { room: room.id });
        } else if let Some(group) = room.take_group() {
            // What cannot be deleted is overwritten by the next try.
            let _ = group.delete(&self.provider);
        }
    }
}
