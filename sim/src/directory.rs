//! What the gateway knows and answers: roles, devices, key packages and the
//! public keys of open rooms.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message;
use sotto_client_core::io::{CallFailure, Grants, Timestamp};
use sotto_proto::api::Call;
use sotto_proto::signed::{DeviceCertificate, JoinGrant, RemovalOrder, key_bytes};
use sotto_proto::wire::{self, ApiErrorCode, JoinRule, Signed};
use sotto_proto::{DeviceId, OrgName, RoomAddress, RoomId, Shard, UserName};

/// How long a grant is good for, in ms.
const GRANT_MS: i64 = 86_400_000;

/// The directory of one org, and the gateway's signing key.
pub struct Directory {
    pub(crate) key: SigningKey,
    devices: BTreeMap<DeviceId, (DeviceCertificate, Signed)>,
    rooms: BTreeMap<RoomId, (RoomAddress, JoinRule)>,
    roles: BTreeSet<(RoomId, UserName)>,
    key_packages: BTreeMap<DeviceId, Vec<Bytes>>,
    last_resorts: BTreeMap<DeviceId, Bytes>,
    group_infos: BTreeMap<RoomId, wire::GroupInfoPut>,
    /// Rooms that demand factors.
    gated: BTreeSet<RoomId>,
    /// Devices that have proven what gated rooms demand.
    proven: BTreeSet<DeviceId>,
}

impl Directory {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self {
            key,
            devices: BTreeMap::new(),
            rooms: BTreeMap::new(),
            roles: BTreeSet::new(),
            key_packages: BTreeMap::new(),
            last_resorts: BTreeMap::new(),
            group_infos: BTreeMap::new(),
            gated: BTreeSet::new(),
            proven: BTreeSet::new(),
        }
    }

    pub(crate) fn server(&self) -> wire::ServerInfo {
        wire::ServerInfo {
            server_name: "sim".to_owned(),
            gateway_key: key_bytes(&self.key.verifying_key()),
            ..wire::ServerInfo::default()
        }
    }

    pub(crate) fn enrol(&mut self, enrolment: &wire::DeviceEnrol) -> Option<DeviceId> {
        let signed = enrolment.certificate.clone()?;
        let certificate = DeviceCertificate::verify(&signed).ok()?;
        let device = certificate.device;
        self.devices.insert(device, (certificate, signed));
        Some(device)
    }

    pub(crate) fn revoke(&mut self, device: DeviceId) {
        self.devices.remove(&device);
    }

    pub(crate) fn gate(&mut self, room: RoomId) {
        self.gated.insert(room);
    }

    pub(crate) fn is_gated(&self, room: RoomId) -> bool {
        self.gated.contains(&room)
    }

    pub(crate) fn prove(&mut self, device: DeviceId) {
        self.proven.insert(device);
    }

    pub(crate) fn take_role(&mut self, room: RoomId, user: &UserName) {
        self.roles.remove(&(room, user.clone()));
    }

    /// The orders by which a user, or one device of theirs, is to leave rooms.
    pub(crate) fn removal_orders(
        &self,
        user: &UserName,
        identity_key: VerifyingKey,
        device: Option<DeviceId>,
        now: Timestamp,
    ) -> Vec<(RoomAddress, RemovalOrder)> {
        let in_it = |room: &RoomId| self.roles.contains(&(*room, user.clone()));
        let rooms = self.rooms.iter().filter(|(room, _)| in_it(room));
        let order = |room: &RoomId| RemovalOrder {
            org: org(),
            room: *room,
            user: user.clone(),
            identity_key,
            device,
            at_ms: now.0,
        };
        rooms
            .map(|(room, (address, _))| (address.clone(), order(room)))
            .collect()
    }

    pub(crate) fn identity_of(&self, user: &UserName) -> Option<VerifyingKey> {
        let mut devices = self.devices.values();
        let (found, _) = devices.find(|(device, _)| device.user == *user)?;
        Some(found.identity_key)
    }

    /// What a device's next connection grants.
    pub(crate) fn grants(&self, device: DeviceId) -> Grants {
        let rooms = self.rooms_of(device);
        let (gated, open): (Vec<_>, Vec<_>) = rooms
            .into_iter()
            .partition(|address| self.gated.contains(&address.room));
        let proven = self.proven.contains(&device);
        let withheld = |address: &RoomAddress| wire::WithheldRoom {
            room: Some(address.into()),
            missing: vec![wire::MissingFactor::default()],
        };
        let gated_open = if proven { gated.as_slice() } else { &[] };
        let jwt = wire::Jwt {
            rooms: open.iter().chain(gated_open).map(Into::into).collect(),
            gated_rooms: gated_open.iter().map(|a| a.room.to_bytes()).collect(),
            withheld: match proven {
                true => Vec::new(),
                false => gated.iter().map(withheld).collect(),
            },
            ..wire::Jwt::default()
        };
        Grants::of(&jwt)
    }

    /// Whether a device's user may read a room.
    pub(crate) fn may_read(&self, device: DeviceId, room: RoomId) -> bool {
        self.devices
            .get(&device)
            .is_some_and(|(certificate, _)| self.roles.contains(&(room, certificate.user.clone())))
    }

    /// Whether a device is told live what is said in a room.
    pub(crate) fn may_hear(&self, device: DeviceId, room: RoomId) -> bool {
        let open = !self.gated.contains(&room) || self.proven.contains(&device);
        open && self.may_read(device, room)
    }

    pub(crate) fn rooms_of(&self, device: DeviceId) -> Vec<RoomAddress> {
        let rooms = self
            .rooms
            .iter()
            .filter(|(room, _)| self.may_read(device, **room));
        rooms.map(|(_, (address, _))| address.clone()).collect()
    }

    /// Answers a call as the gateway would.
    pub(crate) fn answer(
        &mut self,
        device: DeviceId,
        path: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Bytes, CallFailure> {
        let Some((caller, _)) = self.devices.get(&device).cloned() else {
            return Err(refused(ApiErrorCode::Denied, "unknown device"));
        };
        match path {
            wire::MeRequest::PATH => Ok(self.me(&caller).encode_to_vec().into()),
            wire::KeyPackagesUpload::PATH => {
                let upload: wire::KeyPackagesUpload = read(body)?;
                let kept = self.key_packages.entry(device).or_default();
                kept.extend(upload.key_packages);
                let unused = u32::try_from(kept.len()).unwrap_or(u32::MAX);
                if !upload.last_resort.is_empty() {
                    self.last_resorts.insert(device, upload.last_resort);
                }
                Ok(wire::KeyPackagesUploaded { unused }.encode_to_vec().into())
            }
            wire::RoomCreate::PATH => self.create(&caller, &read(body)?),
            wire::RoomGrant::PATH => self.grant(&caller, &read(body)?),
            wire::KeyPackagesClaim::PATH => self.claim(&caller, &read(body)?, now),
            wire::RoomsCheck::PATH => self.check_rooms(&caller, &read(body)?, now),
            wire::RoomJoin::PATH => self.join(&caller, &read(body)?, now),
            wire::GroupInfoPut::PATH => {
                let put: wire::GroupInfoPut = read(body)?;
                if let Ok(room) = RoomId::try_from(&put.room) {
                    self.group_infos.insert(room, put);
                }
                Ok(Bytes::new())
            }
            _ => Err(refused(ApiErrorCode::NotFound, "no such call")),
        }
    }

    /// As the gateway does, says which of these rooms the caller has lost.
    fn check_rooms(
        &self,
        caller: &DeviceCertificate,
        request: &wire::RoomsCheck,
        now: Timestamp,
    ) -> Result<Bytes, CallFailure> {
        let mut removal_orders = Vec::new();
        for bytes in &request.rooms {
            let room = room(bytes)?;
            let lost = !self.roles.contains(&(room, caller.user.clone()));
            if lost && self.rooms.contains_key(&room) {
                let order = RemovalOrder {
                    org: org(),
                    room,
                    user: caller.user.clone(),
                    identity_key: caller.identity_key,
                    device: None,
                    at_ms: now.0,
                };
                removal_orders.push(order.sign(&self.key));
            }
        }
        Ok(wire::RoomsChecked { removal_orders }.encode_to_vec().into())
    }

    fn me(&self, caller: &DeviceCertificate) -> wire::Me {
        let own = self
            .devices
            .values()
            .filter(|(device, _)| device.user == caller.user);
        wire::Me {
            org: caller.org.to_string(),
            user: caller.user.to_string(),
            rooms: self
                .rooms_of(caller.device)
                .iter()
                .map(Into::into)
                .collect(),
            devices: own.map(|(_, signed)| signed.clone()).collect(),
            projects: vec!["field".to_owned()],
            key_packages: self.key_packages.get(&caller.device).map_or(0, Vec::len) as u32,
            interventions: Vec::new(),
        }
    }

    fn create(
        &mut self,
        caller: &DeviceCertificate,
        request: &wire::RoomCreate,
    ) -> Result<Bytes, CallFailure> {
        let room = room(&request.room)?;
        let project = request
            .project
            .parse()
            .map_err(|_| refused(ApiErrorCode::Malformed, "project"))?;
        let address = RoomAddress {
            shard: Shard(0),
            project,
            room,
        };
        self.rooms
            .entry(room)
            .or_insert((address.clone(), request.join_rule()));
        self.roles.insert((room, caller.user.clone()));
        Ok(wire::RoomCreated {
            address: Some((&address).into()),
        }
        .encode_to_vec()
        .into())
    }

    fn grant(
        &mut self,
        caller: &DeviceCertificate,
        request: &wire::RoomGrant,
    ) -> Result<Bytes, CallFailure> {
        let room = room(&request.room)?;
        if !self.roles.contains(&(room, caller.user.clone())) {
            return Err(refused(ApiErrorCode::Denied, "you may not invite here"));
        }
        let mut of_user = self
            .devices
            .values()
            .filter(|(device, _)| device.user.as_str() == request.user);
        let Some((first, signed)) = of_user.next() else {
            return Err(refused(ApiErrorCode::NotFound, "there is no such user"));
        };
        let user = wire::User {
            user: request.user.clone(),
            identity_key: key_bytes(&first.identity_key),
            devices: std::iter::once(signed)
                .chain(of_user.map(|(_, signed)| signed))
                .cloned()
                .collect(),
        };
        self.roles.insert((room, first.user.clone()));
        Ok(wire::RoomGranted { user: Some(user) }
            .encode_to_vec()
            .into())
    }

    fn claim(
        &mut self,
        caller: &DeviceCertificate,
        request: &wire::KeyPackagesClaim,
        now: Timestamp,
    ) -> Result<Bytes, CallFailure> {
        let room = room(&request.room)?;
        if !self.roles.contains(&(room, caller.user.clone())) {
            return Err(refused(ApiErrorCode::Denied, "you are not in this room"));
        }
        let mut answer = wire::KeyPackagesClaimed::default();
        for bytes in &request.devices {
            let Ok(device) = DeviceId::try_from(bytes) else {
                continue;
            };
            let unused = self.key_packages.get_mut(&device).and_then(Vec::pop);
            let Some(key_package) = unused.or_else(|| self.last_resorts.get(&device).cloned())
            else {
                continue;
            };
            let grant = self.join_grant(device, room, now);
            answer.packages.push(wire::ClaimedKeyPackage {
                device: bytes.clone(),
                key_package,
                grant,
            });
        }
        Ok(answer.encode_to_vec().into())
    }

    fn join(
        &mut self,
        caller: &DeviceCertificate,
        request: &wire::RoomJoin,
        now: Timestamp,
    ) -> Result<Bytes, CallFailure> {
        let room = room(&request.room)?;
        let Some((address, JoinRule::Open)) = self.rooms.get(&room).cloned() else {
            return Err(refused(ApiErrorCode::Denied, "this room is by invitation"));
        };
        self.roles.insert((room, caller.user.clone()));
        let Some(info) = self.group_infos.get(&room).cloned() else {
            return Err(refused(
                ApiErrorCode::Unavailable,
                "its public key is not there yet",
            ));
        };
        let answer = wire::RoomJoinable {
            address: Some((&address).into()),
            group_info: info.group_info,
            ratchet_tree: info.ratchet_tree,
            commit_sequence: info.commit_sequence,
            grant: self.join_grant(caller.device, room, now),
        };
        Ok(answer.encode_to_vec().into())
    }

    fn join_grant(&self, device: DeviceId, room: RoomId, now: Timestamp) -> Option<Signed> {
        let (certificate, _) = self.devices.get(&device)?;
        let grant = JoinGrant {
            org: certificate.org.clone(),
            room,
            user: certificate.user.clone(),
            device,
            identity_key: certificate.identity_key,
            policy_version: 1,
            not_after_ms: now.0 + GRANT_MS,
        };
        Some(grant.sign(&self.key))
    }
}

pub(crate) fn org() -> OrgName {
    #[expect(clippy::expect_used, reason = "a constant")]
    "acme".parse().expect("a valid name")
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, CallFailure> {
    M::decode(body).map_err(|_| refused(ApiErrorCode::Malformed, "does not read"))
}

fn room(bytes: &Bytes) -> Result<RoomId, CallFailure> {
    RoomId::try_from(bytes).map_err(|_| refused(ApiErrorCode::Malformed, "room id"))
}

fn refused(code: ApiErrorCode, message: &str) -> CallFailure {
    CallFailure::Refused(wire::ApiError {
        code: code.into(),
        message: message.to_owned(),
        missing: Vec::new(),
    })
}
