//! What the engine asks the gateway, and what its answers mean.

use bytes::Bytes;
use prost::Message;
use sotto_proto::api::Call;
use sotto_proto::wire::directory_event::Body;
use sotto_proto::{DeviceId, RoomAddress, RoomId, UserName, limits, signed, wire};

use super::{Engine, Goal};
use crate::io::{CallFailure, CallId, Event, Output, Timestamp};
use crate::leaf::new_key_package;
use crate::records::Key;
use crate::room::Room;

/// Interventions that are looked at in one answer; a gateway names eight.
const INTERVENTIONS: usize = 64;

/// What an outstanding call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Calling {
    Me,
    KeyPackages,
    /// Which rooms are lost.
    Lost,
    Create(RoomId),
    Join(RoomId),
    Grant(RoomId, UserName),
    Claim(RoomId, Vec<DeviceId>),
    /// The room's public key of this epoch.
    GroupInfo(RoomId, u64),
}

impl Calling {
    fn room(&self) -> Option<RoomId> {
        match self {
            Self::Me | Self::KeyPackages | Self::Lost => None,
            Self::Create(room)
            | Self::Join(room)
            | Self::Grant(room, _)
            | Self::Claim(room, _)
            | Self::GroupInfo(room, _) => Some(*room),
        }
    }
}

impl Engine {
    /// Calls the gateway unless just that is outstanding, or there is no connection.
    pub(super) fn call<C: Call>(&mut self, calling: Calling, request: &C) {
        if !self.link.online
            || self
                .link
                .calls
                .values()
                .any(|outstanding| *outstanding == calling)
        {
            return;
        }
        let id = CallId(self.link.next_id());
        self.link.calls.insert(id, calling);
        self.effect(Output::Call {
            id,
            path: C::PATH,
            body: request.encode_to_vec().into(),
        });
    }

    /// Looks at the directory when that is due.
    pub(super) fn ask_me(&mut self) {
        if self.link.me_due {
            self.call(Calling::Me, &wire::MeRequest {});
        }
    }

    pub(super) fn answered(
        &mut self,
        id: CallId,
        answer: Result<Bytes, CallFailure>,
        now: Timestamp,
    ) {
        let Some(calling) = self.link.calls.remove(&id) else {
            return;
        };
        let Some(id) = calling.room() else {
            self.link.lost_due &= calling != Calling::Lost;
            match answer {
                Ok(body) => self.answered_device(&calling, body, now),
                Err(CallFailure::Unreachable) => self.link.lost_due |= calling == Calling::Lost,
                Err(CallFailure::Refused(_)) => {}
            }
            return;
        };
        let Some(mut room) = self.rooms.remove(&id) else {
            return;
        };
        let keep = match answer {
            Ok(body) => {
                self.answered_room(&mut room, calling, body);
                self.touched.insert(id);
                true
            }
            Err(CallFailure::Refused(error)) => self.refused(&mut room, &calling, &error),
            // The next tick asks again.
            Err(CallFailure::Unreachable) => true,
        };
        if keep {
            self.rooms.insert(id, room);
        } else {
            self.provider.records().delete(Key::Room(id));
        }
    }

    fn answered_device(&mut self, calling: &Calling, body: Bytes, now: Timestamp) {
        if *calling == Calling::Lost {
            return self.lost(body);
        }
        if *calling != Calling::Me {
            return;
        }
        let Ok(me) = wire::Me::decode(body) else {
            return;
        };
        self.link.me_due = false;
        self.note_interventions(&me.interventions);
        let own = self.own_member();
        let device = |certificate: &wire::Signed| {
            let certificate = signed::DeviceCertificate::verify(certificate).ok()?;
            let ours = certificate.user == own.user && certificate.identity_key == own.identity_key;
            ours.then_some(certificate.device)
        };
        let devices: Vec<DeviceId> = me.devices.iter().filter_map(device).collect();
        // Who was enrolled after the answer was made is in the next one.
        self.link.me_due = self.waiting.iter().any(
            |waiting| matches!(&waiting.goal, Goal::Admitted(device) if !devices.contains(device)),
        );
        // An answer without this device is not about this account.
        if devices.contains(&own.device) {
            self.want_own_devices(&devices);
            self.unwant_devices(|member| {
                member.user == own.user && !devices.contains(&member.device)
            });
        }
        if me.key_packages < limits::KEY_PACKAGES / 2 {
            self.upload_key_packages(me.key_packages, now);
        }
    }

    /// Says of each entry once that whoever runs the server stepped in.
    fn note_interventions(&mut self, entries: &[wire::Signed]) {
        let records = self.provider.records();
        let mut seen: u64 = records
            .get(&Key::InterventionsSeen)
            .ok()
            .flatten()
            .unwrap_or(0);
        let before = seen;
        for signed in entries.iter().take(INTERVENTIONS) {
            let entry = signed::verify(signed, &self.account.gateway_key);
            let Ok(entry): Result<wire::DirectoryEvent, _> = entry else {
                continue;
            };
            let index = entry.index;
            let at = Timestamp(entry.at_ms);
            let Some(Body::OperatorIntervened(what)) = entry.body else {
                continue;
            };
            if index >= seen {
                seen = index.saturating_add(1);
                let event = Event::Intervened { index, at, what };
                self.effects.push(Output::Event(event));
            }
        }
        if seen > before {
            records.put(Key::InterventionsSeen, &seen);
        }
    }

    fn upload_key_packages(&mut self, there: u32, now: Timestamp) {
        let make = |last_resort| new_key_package(&self.provider, &self.account, now, last_resort);
        let missing = limits::KEY_PACKAGES.saturating_sub(there);
        let Ok(key_packages) = (0..missing)
            .map(|_| make(false))
            .collect::<Result<Vec<_>, _>>()
        else {
            return;
        };
        // The last resort is made once; it is never used up.
        let last_resort = if there == 0 {
            make(true).unwrap_or_default()
        } else {
            Vec::new()
        };
        let request = wire::KeyPackagesUpload {
            key_packages: key_packages.into_iter().map(Bytes::from).collect(),
            last_resort: last_resort.into(),
        };
        self.call(Calling::KeyPackages, &request);
    }

    fn answered_room(&mut self, room: &mut Room, calling: Calling, body: Bytes) {
        match calling {
            Calling::Create(_) => {
                let answer = wire::RoomCreated::decode(body).ok();
                let address =
                    answer.and_then(|answer| RoomAddress::try_from(&answer.address?).ok());
                if let Some(address) = address.filter(|address| address.room == room.id) {
                    self.created(room, &address);
                }
            }
            Calling::Join(_) => {
                if let Ok(answer) = wire::RoomJoinable::decode(body) {
                    self.joinable(room, answer);
                }
            }
            Calling::Grant(_, user) => {
                if let Some(answer) = wire::RoomGranted::decode(body)
                    .ok()
                    .and_then(|answer| answer.user)
                {
                    self.granted(room, &user, &answer);
                }
            }
            Calling::Claim(_, devices) => {
                let may_add = room.commit.is_none() && !room.record.has_removals();
                if let (Ok(answer), true) = (wire::KeyPackagesClaimed::decode(body), may_add) {
                    self.claimed(room, &devices, answer);
                }
            }
            Calling::GroupInfo(_, epoch) => {
                let current = room.group().map(|group| group.epoch());
                room.record.group_info_due &= current != Some(epoch);
            }
            Calling::Me | Calling::KeyPackages | Calling::Lost => {}
        }
    }

    /// The gateway said no, and will not say otherwise to the same question.
    /// `false` when the room came to nothing by that.
    fn refused(&mut self, room: &mut Room, calling: &Calling, error: &wire::ApiError) -> bool {
        let passing = matches!(
            error.code(),
            wire::ApiErrorCode::SessionExpired
                | wire::ApiErrorCode::TooMany
                | wire::ApiErrorCode::Unavailable
        );
        if passing {
            return true;
        }
        match calling {
            Calling::Create(_) | Calling::Join(_) => {
                self.refuse_waiting(room.id, error, |_| true);
                return room.record.history_length > 0;
            }
            Calling::Grant(_, user) => {
                room.record.invites.remove(user);
                let invited =
                    |goal: &Goal| matches!(goal, Goal::Invited(waiting) if waiting == user);
                self.refuse_waiting(room.id, error, invited);
            }
            Calling::Claim(..) => {
                room.record.wanted.clear();
                self.refuse_waiting(room.id, error, |goal| matches!(goal, Goal::Invited(_)));
            }
            Calling::GroupInfo(..) => room.record.group_info_due = false,
            Calling::Me | Calling::KeyPackages | Calling::Lost => {}
        }
        true
    }
}
