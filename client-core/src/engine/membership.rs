//! How rooms come to be and how devices come into them: creating, inviting,
//! adding, joining. A room notes what it wants; [`Engine::advance_membership`]
//! asks for the next step of it.

use rand::RngCore;
use sha2::{Digest, Sha256};
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{DeviceId, FileId, RoomAddress, RoomId, Subject, UserName, limits, signed};

use super::calls::Calling;
use super::outbox::{Publishing, Sort};
use super::{Engine, Goal};
use crate::group::Group;
use crate::io::{Event, Timestamp};
use crate::leaf::read_key_package;
use crate::mls::MlsError;
use crate::room::{PendingCommit, Phase, Room};
use crate::rules::{Rules, authenticated_data, check_identity};

/// Devices that one commit adds at most: its size grows with each.
const ADDS_PER_COMMIT: usize = 32;

impl Engine {
    pub(super) fn advance_membership(&mut self, room: &mut Room, rng: &mut impl RngCore) {
        match room.record.phase {
            Phase::Creating => self.ask_create(room),
            Phase::Joining if room.commit.is_none() => self.ask_join(room),
            Phase::Joining | Phase::Member => {
                if !self.is_granted_or_withheld(room.id) {
                    self.refresh_grants();
                }
                if room.record.phase == Phase::Member {
                    self.commit_removals(room, rng);
                }
                self.publish_commit(room);
                if room.record.phase == Phase::Member {
                    // Whoever was ordered out meanwhile is missing only once
                    // the order was read.
                    if !self.link.fetch.is_first() {
                        self.ask_grants(room);
                    }
                    let may_add = room.commit.is_none() && !room.record.has_removals();
                    if may_add && !room.record.wanted.is_empty() {
                        self.ask_key_packages(room, ADDS_PER_COMMIT);
                    }
                    if room.commit.is_none() && room.record.group_info_due {
                        self.put_group_info(room);
                    }
                }
            }
            Phase::Removed => {}
        }
    }

    fn publish_commit(&mut self, room: &Room) {
        let (Some(commit), Some(address)) = (&room.commit, room.address()) else {
            return;
        };
        let waits = self.link.lost_race.contains(&room.id)
            || self.link.landing.contains(&room.id)
            || self.is_held(room.id, Sort::Commit, self.now);
        if self.may_publish(room.id) && !waits {
            let publishing = Publishing::Commit(room.id);
            self.publish(
                publishing,
                address.handshakes(),
                Some(commit.after),
                &commit.payload,
            );
        }
    }

    /// Whether new grants would change nothing.
    fn is_granted_or_withheld(&self, room: RoomId) -> bool {
        self.link.granted.contains(&room) || self.link.withheld.contains_key(&room)
    }

    pub(super) fn is_settled_member(&self, room: &Room) -> bool {
        room.record.phase == Phase::Member && self.is_granted_or_withheld(room.id)
    }

    pub(super) fn has_added_all(&self, room: &Room) -> bool {
        room.record.wanted.is_empty() && room.commit.is_none() && self.has_posted_all(room.id)
    }

    pub(super) fn is_in_every_room(&self, device: DeviceId) -> bool {
        let member = |room: &&Room| {
            room.record.phase == Phase::Member && !self.link.withheld.contains_key(&room.id)
        };
        let mut rooms = self.rooms.values().filter(member);
        rooms.all(|room| {
            room.group().is_some_and(|group| group.has(device)) && self.has_added_all(room)
        })
    }

    /// The gateway has registered the room: make its group.
    pub(super) fn created(&mut self, room: &mut Room, address: &RoomAddress) {
        let own = self.own_member();
        let rules = Rules {
            org: self.account.org.clone(),
            address: address.clone(),
            owners: vec![(own.user, own.identity_key)],
            join_rule: room.record.join_rule(),
            gateway_key: self.account.gateway_key,
            spent: Vec::new(),
        };
        match self.try_group(|engine| Group::create(&engine.provider, &engine.account, rules)) {
            Ok(group) => {
                self.expect_grants();
                room.set_group(Some(group));
                room.record.set_address(address);
                room.record.phase = Phase::Member;
                room.record.group_info_due = room.record.join_rule() == JoinRule::Open;
                self.epoch_begins(room);
            }
            Err(error) => {
                self.fail_waiting(room.id, &error.to_string(), |_| true);
            }
        }
    }

    /// The gateway has given a user a role: want all of the user's devices.
    pub(super) fn granted(&mut self, room: &mut Room, user: &UserName, answer: &wire::User) {
        room.record.invites.remove(user);
        let invited = |goal: &Goal| matches!(goal, Goal::Invited(waiting) if waiting == user);
        let devices = match self.verified_devices(user, answer) {
            Ok(devices) => devices,
            Err(reason) => return self.fail_waiting(room.id, &reason, invited),
        };
        let Some(group) = room.group() else { return };
        let leaving = self.leaving(room, group);
        let missing: Vec<DeviceId> = devices
            .into_iter()
            .filter(|device| !group.has(*device) || leaving.contains(device))
            .collect();
        room.record.wanted.extend(missing);
    }

    /// The user's devices, if the identity key is the one that is known.
    fn verified_devices(
        &mut self,
        user: &UserName,
        answer: &wire::User,
    ) -> Result<Vec<DeviceId>, String> {
        let nonsense = || {
            "the server's answer about that user makes no sense: tell your administrator".to_owned()
        };
        let identity = signed::public_key(&answer.identity_key).map_err(|_| nonsense())?;
        let mut devices = Vec::new();
        for certificate in &answer.devices {
            let certificate =
                signed::DeviceCertificate::verify(certificate).map_err(|_| nonsense())?;
            if certificate.user != *user
                || certificate.identity_key != identity
                || certificate.org != self.account.org
            {
                return Err(nonsense());
            }
            if check_identity(&certificate, |user| self.known_identity(user)).is_err() {
                self.event(Event::IdentityChanged { user: user.clone() });
                return Err(format!(
                    "the identity key of {user} has changed: compare safety numbers before you go on"
                ));
            }
            devices.push(certificate.device);
        }
        if devices.is_empty() {
            return Err(format!(
                "{user} has no device yet: try again when they have signed in"
            ));
        }
        super::remember(&self.provider, user, &identity);
        Ok(devices)
    }

    /// Key packages have come: commit to adding their devices.
    pub(super) fn claimed(
        &mut self,
        room: &mut Room,
        asked: &[DeviceId],
        answer: wire::KeyPackagesClaimed,
    ) {
        // Somebody else may have added them meanwhile.
        let wanted = asked
            .iter()
            .filter(|device| room.record.wanted.contains(device));
        let asked: Vec<DeviceId> = wanted.copied().collect();
        if asked.is_empty() {
            return;
        }
        let mut key_packages = Vec::new();
        let mut grants = Vec::new();
        let mut recipients = Vec::new();
        // Their next ones may be as bad: such as when their clock is wrong.
        let mut unusable = Vec::new();
        for package in answer.packages {
            let device = DeviceId::try_from(&package.device)
                .ok()
                .filter(|device| asked.contains(device));
            let checked = device.and_then(|device| self.check_key_package(device, &package));
            let (Some(device), Some(key_package), Some(grant)) = (device, checked, package.grant)
            else {
                unusable.extend(device);
                continue;
            };
            key_packages.push(key_package);
            grants.push(grant);
            recipients.push(device);
        }
        for device in asked.iter().filter(|device| !recipients.contains(device)) {
            // An own device is wanted again at the next look at the directory,
            // which is soon when it has no key package yet.
            room.record.wanted.remove(device);
            self.link.me_due |= !unusable.contains(device);
        }
        if recipients.is_empty() {
            let reason = "none of that user's devices can be added yet: they must be online once, then invite again";
            return self.fail_waiting(room.id, reason, |goal| matches!(goal, Goal::Invited(_)));
        }
        let data = authenticated_data(grants).to_vec();
        let Self {
            provider, account, ..
        } = self;
        let committed = room.transact(provider, |group| {
            group.add(provider, account, key_packages, data)
        });
        match committed {
            Some(Ok(new)) if new.commit.len() <= limits::PAYLOAD => {
                room.commit = Some(PendingCommit {
                    payload: new.commit,
                    after: room.record.handshakes_after,
                    welcome: new.welcome,
                    recipients,
                    not_after_ms: None,
                });
            }
            Some(Ok(_)) => {
                let cleared =
                    room.transact(&self.provider, |group| group.clear_own(&self.provider));
                let reason = if matches!(cleared, Some(Ok(()))) {
                    "the room's tree has grown too fresh for one commit: let members send something first, then invite again"
                } else {
                    "the room's key agreement failed"
                };
                room.record.wanted.clear();
                self.fail_waiting(room.id, reason, |goal| matches!(goal, Goal::Invited(_)));
            }
            Some(Err(error)) => {
                room.record.wanted.clear();
                self.fail_waiting(room.id, &error.to_string(), |goal| {
                    matches!(goal, Goal::Invited(_))
                });
            }
            None => {}
        }
    }

    fn check_key_package(
        &self,
        device: DeviceId,
        package: &wire::ClaimedKeyPackage,
    ) -> Option<openmls::prelude::KeyPackage> {
        let (key_package, leaf) = read_key_package(&self.provider, &package.key_package).ok()?;
        let certificate = leaf.verify(&self.account.org).ok()?;
        check_identity(&certificate, |user| self.known_identity(user)).ok()?;
        (certificate.device == device).then_some(key_package)
    }

    /// The pending commit is in the stream: it counts, and the devices that it
    /// added are told.
    pub(super) fn land_commit(
        &mut self,
        room: &mut Room,
        sequence: u64,
        stored_at: Timestamp,
    ) -> Result<(), MlsError> {
        let Some(commit) = room.commit.take() else {
            return Ok(());
        };
        if commit.not_after_ms.is_some_and(|end| stored_at.0 > end) {
            return self.land_too_late(room, stored_at);
        }
        let merged = room.transact(&self.provider, |group| group.merge_own(&self.provider));
        merged.unwrap_or(Ok(()))?;
        let newcomers = !commit.recipients.is_empty();
        self.merged(room, sequence, &commit.payload, newcomers);
        room.record.group_info_due = room.record.join_rule() == JoinRule::Open;
        if commit.recipients.is_empty() {
            return Ok(());
        }
        room.record.name_due = true;
        let (Some(group), Some(address)) = (room.group(), room.address()) else {
            return Ok(());
        };
        let tree = group.ratchet_tree()?;
        let ratchet_tree = Some(self.place_tree(&address, tree));
        let invitation = wire::Invitation {
            address: Some((&address).into()),
            welcome: commit.welcome.into(),
            ratchet_tree,
            commit_sequence: sequence,
        };
        let kind = wire::inbox_message::Kind::Invitation(invitation);
        let message = prost::Message::encode_to_vec(&wire::InboxMessage { kind: Some(kind) });
        for device in commit.recipients {
            room.record.wanted.remove(&device);
            self.post(Some(room.id), &Subject::Inbox(device), message.clone());
        }
        Ok(())
    }

    /// A small tree travels with the invitation, a larger one as chunks before it.
    fn place_tree(&mut self, address: &RoomAddress, tree: Vec<u8>) -> wire::RatchetTree {
        if tree.len() <= limits::INLINE_TREE {
            return wire::RatchetTree {
                place: Some(wire::ratchet_tree::Place::Inline(tree.into())),
            };
        }
        let sha256: [u8; 32] = Sha256::digest(&tree).into();
        // Named after its content: nothing needs to be drawn or remembered.
        let file = FileId::from_digest(&sha256);
        let mut chunks = 0;
        for chunk in tree.chunks(limits::CHUNK) {
            self.post(
                Some(address.room),
                &address.blob(file, chunks),
                chunk.to_vec(),
            );
            chunks += 1;
        }
        let blob = wire::PublicBlob {
            file: file.to_bytes(),
            chunks,
            size: tree.len() as u64,
            sha256: sha256.to_vec().into(),
        };
        wire::RatchetTree {
            place: Some(wire::ratchet_tree::Place::Blob(blob)),
        }
    }

    /// Runs something that makes a group, inside a savepoint.
    pub(super) fn try_group<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, MlsError>,
    ) -> Result<T, MlsError> {
        self.provider.records().savepoint();
        let result = action(self);
        if result.is_ok() {
            self.provider.records().keep();
        } else {
            self.provider.records().roll_back();
        }
        result
    }

    /// The next devices to be added to a room.
    pub(super) fn wanted(room: &Room, most: usize) -> Vec<DeviceId> {
        room.record.wanted.iter().copied().take(most).collect()
    }

    /// Wants every own device in every room.
    pub(super) fn want_own_devices(&mut self, devices: &[DeviceId]) {
        let ids: Vec<RoomId> = self.rooms.keys().copied().collect();
        for id in ids {
            let Some(room) = self.rooms.get_mut(&id) else {
                continue;
            };
            let Some(group) = room.group().filter(|_| room.record.phase == Phase::Member) else {
                continue;
            };
            let missing: Vec<DeviceId> = devices
                .iter()
                .copied()
                .filter(|device| !group.has(*device))
                .collect();
            if !missing.is_empty() {
                room.record.wanted.extend(missing);
                self.touched.insert(id);
            }
        }
    }

    fn ask_create(&mut self, room: &Room) {
        let Some(project) = &room.record.project else {
            return;
        };
        let request = wire::RoomCreate {
            project: project.to_string(),
            room: room.id.to_bytes(),
            join_rule: room.record.join_rule,
        };
        self.call(Calling::Create(room.id), &request);
    }

    fn ask_grants(&mut self, room: &Room) {
        for (user, role) in &room.record.invites {
            let request = wire::RoomGrant {
                room: room.id.to_bytes(),
                user: user.to_string(),
                role: *role,
            };
            self.call(Calling::Grant(room.id, user.clone()), &request);
        }
    }

    fn ask_key_packages(&mut self, room: &Room, most: usize) {
        let claims = |calling: &Calling| matches!(calling, Calling::Claim(claimed, _) if *claimed == room.id);
        if self.link.calls.values().any(claims) {
            return;
        }
        let devices = Self::wanted(room, most);
        let request = wire::KeyPackagesClaim {
            room: room.id.to_bytes(),
            devices: devices.iter().map(|device| device.to_bytes()).collect(),
        };
        self.call(Calling::Claim(room.id, devices), &request);
    }

    fn put_group_info(&mut self, room: &Room) {
        let Some(group) = room.group() else { return };
        let exported = group
            .group_info(&self.provider, &self.account)
            .and_then(|info| Ok((info, group.ratchet_tree()?)));
        let Ok((group_info, ratchet_tree)) = exported else {
            return;
        };
        let epoch = group.epoch();
        let request = wire::GroupInfoPut {
            room: room.id.to_bytes(),
            epoch,
            group_info: group_info.into(),
            ratchet_tree: ratchet_tree.into(),
            commit_sequence: room.record.handshakes_after,
        };
        self.call(Calling::GroupInfo(room.id, epoch), &request);
    }
}
