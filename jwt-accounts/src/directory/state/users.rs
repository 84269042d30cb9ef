//! Users, their devices, and what they can prove.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use nkeys::{KeyPair, KeyPairType};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::Signed;
use sotto_proto::{DeviceId, FactorId, GroupName, RoomId, Title, UserName, limits};

use super::super::event::{Event, InviteHash};
use super::super::rule::Rule;
use super::super::terms::{ExternalId, Holder, Role, Scope};
use super::State;
use super::taken::Covered;
use crate::policy::Factor;

/// Factors that one user can have enrolled.
pub(in super::super) const FACTORS_MAX: usize = 16;
/// Introductions of one user that are kept, the newest.
const INTRODUCTIONS_MAX: usize = 64;

/// A user of the org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the user's devices are certified by; `None` before they sign up.
    pub identity_key: Option<VerifyingKey>,
    /// What people read in place of their name.
    pub title: Option<Title>,
    /// How far they are.
    pub status: UserStatus,
    /// A guest until then, in ms since 1970; `None`: no guest.
    pub guest_until_ms: Option<i64>,
    /// Where they come from.
    pub external_id: Option<ExternalId>,
    /// The groups they are in.
    pub groups: BTreeSet<GroupName>,
    /// By id. Not a map: nearly everybody has one or two.
    devices: Vec<Arc<Device>>,
    pub(super) roles: BTreeMap<Scope, Role>,
    /// Who vouches for them, newest first.
    pub(super) introductions: Vec<UserName>,
    pub(super) factors: BTreeMap<FactorId, Factor>,
}

/// How far a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserStatus {
    /// Expected: has a name, and has not signed up.
    Added,
    /// Has signed up.
    Active,
    /// Everything was taken from them, for good.
    Revoked,
}

impl User {
    /// The devices that are not revoked, by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().map(Arc::as_ref)
    }

    /// The roles they were granted themselves, by place; some may be in places
    /// that are deleted.
    pub fn roles(&self) -> impl Iterator<Item = (&Scope, Role)> {
        self.roles.iter().map(|(scope, role)| (scope, *role))
    }

    /// The factors they can prove beside the password, by id.
    pub fn factors(&self) -> impl Iterator<Item = (FactorId, Factor)> {
        self.factors.iter().map(|(id, factor)| (*id, *factor))
    }

    /// Adds a device, or replaces the one with its id.
    pub(super) fn insert_device(&mut self, device: Device) {
        match self.place_of(device.certificate.device) {
            Ok(place) => {
                self.devices.remove(place);
                self.devices.insert(place, Arc::new(device));
            }
            Err(place) => self.devices.insert(place, Arc::new(device)),
        }
    }

    /// Where a device is among the devices, or would be.
    fn place_of(&self, device: DeviceId) -> Result<usize, usize> {
        let devices = &self.devices;
        devices.binary_search_by_key(&device, |device| device.certificate.device)
    }

    pub(super) fn new(status: UserStatus) -> Self {
        Self {
            identity_key: None,
            title: None,
            status,
            guest_until_ms: None,
            external_id: None,
            groups: BTreeSet::new(),
            devices: Vec::new(),
            roles: BTreeMap::new(),
            introductions: Vec::new(),
            factors: BTreeMap::new(),
        }
    }
}

/// A device that is not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What the user's identity key says about it.
    pub certificate: DeviceCertificate,
    /// The same as it was signed, for others to check.
    pub signed: Signed,
}

/// A device that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedDevice {
    /// Its public NATS key, which no other device ever has.
    pub nats_key: String,
    /// When, in ms since 1970.
    pub at_ms: i64,
}

impl State {
    /// Every user there ever was, by name.
    pub fn users(&self) -> impl Iterator<Item = (&UserName, &User)> {
        self.users.iter().map(|(name, user)| (name, user.as_ref()))
    }

    /// A user, who may be expected or revoked.
    pub fn user(&self, user: &UserName) -> Option<&User> {
        self.users.get(user).map(Arc::as_ref)
    }

    /// The user who came from there and is not revoked.
    pub fn user_with_external_id(&self, id: &ExternalId) -> Option<&UserName> {
        self.external_users.get(id)
    }

    /// A device that is not revoked.
    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        let user = self.users.get(self.device_users.get(&device)?)?;
        let place = user.place_of(device).ok()?;
        user.devices.get(place).map(Arc::as_ref)
    }

    /// Whose a device is, or was before it was revoked.
    pub fn device_user(&self, device: DeviceId) -> Option<&UserName> {
        self.device_users.get(&device)
    }

    /// The devices that were revoked, by id.
    pub fn revoked_devices(&self) -> impl Iterator<Item = &RevokedDevice> {
        self.revoked.values().map(Arc::as_ref)
    }

    /// Who vouches for a user, newest first, without those who were revoked.
    /// The newest 64 are kept.
    pub fn introductions(&self, user: &UserName) -> impl Iterator<Item = &UserName> {
        let given = self.user(user).map(|user| user.introductions.as_slice());
        let by = given.unwrap_or_default().iter();
        by.filter(|by| self.living_user(by).is_ok())
    }

    pub(in super::super) fn known_user(&self, user: &UserName) -> Result<&User, Rule> {
        let unknown = || Rule::UnknownUser(user.clone());
        self.user(user).ok_or_else(unknown)
    }

    /// A user who is not revoked.
    pub(super) fn living_user(&self, user: &UserName) -> Result<&User, Rule> {
        let found = self.known_user(user)?;
        if found.status == UserStatus::Revoked {
            return Err(Rule::UserRevoked(user.clone()));
        }
        Ok(found)
    }

    pub(super) fn living_user_mut(&mut self, user: &UserName) -> Result<&mut User, Rule> {
        self.living_user(user)?;
        let unknown = || Rule::UnknownUser(user.clone());
        let found = self.users.get_mut(user).ok_or_else(unknown)?;
        Ok(Arc::make_mut(found))
    }

    /// A user who has signed up and is not revoked.
    fn active_user(&self, user: &UserName) -> Result<&User, Rule> {
        let found = self.living_user(user)?;
        if found.status == UserStatus::Added {
            return Err(Rule::UserNotEnrolled(user.clone()));
        }
        Ok(found)
    }

    pub(super) fn add_user(
        &mut self,
        user: &UserName,
        title: Option<&Title>,
        external_id: Option<&ExternalId>,
    ) -> Result<(), Rule> {
        if self.users.contains_key(user) {
            return Err(Rule::UserTaken(user.clone()));
        }
        if let Some(id) = external_id.filter(|id| self.external_users.contains_key(*id)) {
            return Err(Rule::ExternalIdTaken(id.clone()));
        }
        self.check_user_name(user)?;
        self.user_looks.check_title(user, title)?;
        self.user_looks.insert(user, title);
        if let Some(id) = external_id {
            self.external_users.insert(id.clone(), user.clone());
        }
        let added = User {
            title: title.cloned(),
            external_id: external_id.cloned(),
            ..User::new(UserStatus::Added)
        };
        self.users.insert(user.clone(), Arc::new(added));
        Ok(())
    }

    pub(super) fn enrol_user(
        &mut self,
        user: &UserName,
        identity_key: &VerifyingKey,
        invite: &InviteHash,
        at_ms: i64,
    ) -> Result<(), Rule> {
        let issued = self.check_invite(invite, user, at_ms)?;
        let mut enrolled = match self.user(user) {
            None => {
                self.check_user_name(user)?;
                User::new(UserStatus::Added)
            }
            Some(found) if found.status != UserStatus::Added => {
                return Err(Rule::UserTaken(user.clone()));
            }
            Some(_) if issued.for_user.is_none() => {
                return Err(Rule::UserExpected(user.clone()));
            }
            Some(found) => found.clone(),
        };
        enrolled.status = UserStatus::Active;
        enrolled.identity_key = Some(*identity_key);
        enrolled.guest_until_ms = issued.guest_until_ms.or(enrolled.guest_until_ms);
        if enrolled.guest_until_ms.is_some() {
            self.check_fits_guest(&enrolled)?;
        }
        self.invites.remove(invite);
        self.user_looks.insert(user, None);
        self.users.insert(user.clone(), Arc::new(enrolled));
        Ok(())
    }

    pub(super) fn add_device(
        &mut self,
        certificate: &DeviceCertificate,
        signed: &Signed,
        at_ms: i64,
    ) -> Result<(), Rule> {
        let name = &certificate.user;
        if self.org() != Some(&certificate.org) {
            return Err(Rule::Certificate("another organisation"));
        }
        let user = self.active_user(name)?;
        if user.identity_key != Some(certificate.identity_key) {
            return Err(Rule::Certificate("another identity key"));
        }
        check_certificate_time(certificate, at_ms)?;
        let nats_key =
            user_key(&certificate.nats_key).ok_or(Rule::Certificate("not a NATS user key"))?;
        if self.device_users.contains_key(&certificate.device) || self.nats_keys.contains(&nats_key)
        {
            return Err(Rule::DeviceTaken);
        }
        if user.devices.len() >= limits::DEVICES_PER_USER {
            return Err(Rule::TooManyDevices);
        }
        let device = Device {
            certificate: certificate.clone(),
            signed: signed.clone(),
        };
        let user = self.living_user_mut(name)?;
        user.insert_device(device);
        self.device_users.insert(certificate.device, name.clone());
        self.nats_keys.insert(nats_key);
        Ok(())
    }

    pub(super) fn revoke_device(&mut self, device: DeviceId, event: &Event) -> Result<(), Rule> {
        self.device(device).ok_or(Rule::UnknownDevice)?;
        let owner = self.device_users.get(&device).cloned();
        let owner = owner.ok_or(Rule::UnknownDevice)?;
        let user = self.living_user_mut(&owner)?;
        let place = user.place_of(device).map_err(|_| Rule::UnknownDevice)?;
        let removed = user.devices.remove(place);
        self.note_revoked(&removed, event);
        for room in self.room_ids_of(&owner) {
            self.depart(&owner, room, Some(device), event);
        }
        Ok(())
    }

    pub(super) fn revoke_user(&mut self, user: &UserName, event: &Event) -> Result<(), Rule> {
        let rooms = self.room_ids_of(user);
        let found = self.living_user_mut(user)?;
        let kept = User {
            identity_key: found.identity_key,
            title: found.title.clone(),
            ..User::new(UserStatus::Revoked)
        };
        let before = std::mem::replace(found, kept);
        for group in &before.groups {
            self.group_mut(group)?.members.remove(user);
        }
        for device in &before.devices {
            self.note_revoked(device, event);
        }
        if let Some(id) = &before.external_id {
            self.external_users.remove(id);
        }
        self.org_owners.remove(&Holder::User(user.clone()));
        self.user_looks.remove(user, before.title.as_ref());
        self.withdraw_invites_of(user);
        for room in rooms {
            self.depart(user, room, None, event);
        }
        self.restrict(Covered::IntroducedBy(user.clone()), event.at_ms);
        Ok(())
    }

    pub(super) fn set_user_title(
        &mut self,
        user: &UserName,
        title: Option<&Title>,
    ) -> Result<(), Rule> {
        let before = self.living_user(user)?.title.clone();
        self.user_looks.check_title(user, title)?;
        self.user_looks.remove(user, before.as_ref());
        self.user_looks.insert(user, title);
        self.living_user_mut(user)?.title = title.cloned();
        Ok(())
    }

    pub(super) fn set_guest_until(
        &mut self,
        user: &UserName,
        until_ms: Option<i64>,
        at_ms: i64,
    ) -> Result<(), Rule> {
        let found = self.living_user(user)?;
        if found.guest_until_ms == until_ms {
            return Err(Rule::Unchanged);
        }
        if until_ms.is_some() {
            self.check_fits_guest(found)?;
        }
        self.living_user_mut(user)?.guest_until_ms = until_ms;
        self.restrict(Covered::Users(imbl::ordset![user.clone()]), at_ms);
        Ok(())
    }

    pub(super) fn give_introduction(&mut self, user: &UserName, by: &UserName) -> Result<(), Rule> {
        self.active_user(by)?;
        if user == by {
            return Err(Rule::IntroductionByAnother);
        }
        if self.active_user(user)?.introductions.contains(by) {
            return Err(Rule::Introduction);
        }
        let introductions = &mut self.living_user_mut(user)?.introductions;
        introductions.insert(0, by.clone());
        introductions.truncate(INTRODUCTIONS_MAX);
        Ok(())
    }

    pub(super) fn withdraw_introduction(
        &mut self,
        user: &UserName,
        by: &UserName,
        at_ms: i64,
    ) -> Result<(), Rule> {
        if !self.living_user(user)?.introductions.contains(by) {
            return Err(Rule::Introduction);
        }
        let introductions = &mut self.living_user_mut(user)?.introductions;
        introductions.retain(|given| given != by);
        self.restrict(Covered::Users(imbl::ordset![user.clone()]), at_ms);
        Ok(())
    }

    pub(super) fn enrol_factor(
        &mut self,
        user: &UserName,
        factor: Factor,
        id: FactorId,
    ) -> Result<(), Rule> {
        let found = self.active_user(user)?;
        if factor == Factor::Introductions || found.factors.contains_key(&id) {
            return Err(Rule::FactorTaken);
        }
        if found.factors.len() >= FACTORS_MAX {
            return Err(Rule::TooManyFactors);
        }
        self.living_user_mut(user)?.factors.insert(id, factor);
        Ok(())
    }

    pub(super) fn remove_factor(
        &mut self,
        user: &UserName,
        id: FactorId,
        at_ms: i64,
    ) -> Result<(), Rule> {
        if !self.living_user(user)?.factors.contains_key(&id) {
            return Err(Rule::UnknownFactor);
        }
        self.living_user_mut(user)?.factors.remove(&id);
        self.restrict(Covered::Users(imbl::ordset![user.clone()]), at_ms);
        Ok(())
    }

    fn check_user_name(&self, user: &UserName) -> Result<(), Rule> {
        let title_of = |other: &UserName| self.users.get(other)?.title.as_ref();
        self.user_looks.check_name(user, title_of)
    }

    fn note_revoked(&mut self, device: &Device, event: &Event) {
        let revoked = RevokedDevice {
            nats_key: device.certificate.nats_key.clone(),
            at_ms: event.at_ms,
        };
        let id = device.certificate.device;
        self.revoked.insert(id, Arc::new(revoked));
    }

    fn room_ids_of(&self, user: &UserName) -> Vec<RoomId> {
        let rooms = self.rooms_of(user).into_iter();
        rooms.map(|room| room.address.room).collect()
    }
}

/// The bytes of a public NATS key of a user, which is a key.
fn user_key(text: &str) -> Option<[u8; 32]> {
    KeyPair::from_public_key(text).ok()?;
    user_key_bytes(text)
}

/// The bytes of a text that has the form of a public NATS key of a user.
pub(super) fn user_key_bytes(text: &str) -> Option<[u8; 32]> {
    let (prefix, bytes) = nkeys::from_public_key(text).ok()?;
    (KeyPairType::from(prefix) == KeyPairType::User).then_some(bytes)
}

/// Fails outside the certificate's time, give or take what clocks may differ by.
fn check_certificate_time(certificate: &DeviceCertificate, at_ms: i64) -> Result<(), Rule> {
    let skew = i64::try_from(limits::CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX);
    let earliest = certificate.not_before_ms.saturating_sub(skew);
    let latest = certificate.not_after_ms.saturating_add(skew);
    if (earliest..=latest).contains(&at_ms) {
        Ok(())
    } else {
        Err(Rule::Certificate("not valid at this time"))
    }
}
