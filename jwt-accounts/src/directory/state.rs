//! What the log adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use nkeys::{KeyPair, KeyPairType};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{JoinRule, Signed};
use sotto_proto::{DeviceId, OrgName, ProjectName, RoomAddress, RoomId, UserName, limits};

use super::chain::Head;
use super::event::{Change, Event, InviteHash, Role, Scope};
use super::rule::Rule;

/// The directory after some number of events. Reads only what
/// [`State::apply`] took in; equal logs give equal states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(super) head: Head,
    org: Option<Org>,
    projects: BTreeSet<ProjectName>,
    /// Shared between copies of the state: every decision is tried on a copy.
    users: BTreeMap<UserName, Arc<User>>,
    /// Every device there ever was; ids are not used twice.
    device_users: BTreeMap<DeviceId, UserName>,
    revoked: BTreeMap<DeviceId, RevokedDevice>,
    /// Every device's NATS key there ever was, so that revoking one device can
    /// never cut another.
    nats_keys: BTreeSet<[u8; 32]>,
    rooms: BTreeMap<RoomId, Room>,
    invites: BTreeMap<InviteHash, Invite>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Org {
    name: OrgName,
    gateway_key: VerifyingKey,
}

/// A user of the org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the user's devices are certified by.
    pub identity_key: VerifyingKey,
    devices: BTreeMap<DeviceId, Device>,
    roles: BTreeMap<Scope, Role>,
}

impl User {
    /// The devices that are not revoked, by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
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

/// A room. What it is called is for its members only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Where it is on NATS.
    pub address: RoomAddress,
    /// Who may join.
    pub join_rule: JoinRule,
}

/// An invitation that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Not accepted after, in ms since 1970.
    pub expires_ms: i64,
    /// Where the new user gets a role.
    pub scope: Scope,
    /// Which role.
    pub role: Role,
}

impl State {
    /// The org's name, once it is created.
    pub fn org(&self) -> Option<&OrgName> {
        self.org.as_ref().map(|org| &org.name)
    }

    /// The key that signs the log, once the org is created.
    pub fn gateway_key(&self) -> Option<&VerifyingKey> {
        self.org.as_ref().map(|org| &org.gateway_key)
    }

    /// How far the log was read.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Every project, by name.
    pub fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.projects.iter()
    }

    /// A user.
    pub fn user(&self, user: &UserName) -> Option<&User> {
        self.users.get(user).map(Arc::as_ref)
    }

    /// A device that is not revoked.
    pub fn device(&self, device: DeviceId) -> Option<&Device> {
        let user = self.users.get(self.device_users.get(&device)?)?;
        user.devices.get(&device)
    }

    /// Whose a device is, or was before it was revoked.
    pub fn device_user(&self, device: DeviceId) -> Option<&UserName> {
        self.device_users.get(&device)
    }

    /// The devices that were revoked, by id.
    pub fn revoked_devices(&self) -> impl Iterator<Item = &RevokedDevice> {
        self.revoked.values()
    }

    /// A room.
    pub fn room(&self, room: RoomId) -> Option<&Room> {
        self.rooms.get(&room)
    }

    /// An invitation that nobody has used yet; it may have expired.
    pub fn invite(&self, invite: &InviteHash) -> Option<&Invite> {
        self.invites.get(invite)
    }

    /// The role that was granted to the user in just this place.
    pub fn granted_role(&self, user: &UserName, scope: &Scope) -> Option<Role> {
        self.users.get(user)?.roles.get(scope).copied()
    }

    /// The role that counts in a place: the greater of the one granted there
    /// and what comes down from above. Into a project comes any role; into a
    /// room only `owner`, which there gives the right to manage, not to read.
    pub fn effective_role(&self, user: &UserName, scope: &Scope) -> Option<Role> {
        let granted = self.granted_role(user, scope);
        let from_above = match scope {
            Scope::Org => None,
            Scope::Project(project) if self.projects.contains(project) => {
                self.effective_role(user, &Scope::Org)
            }
            Scope::Room(room) => {
                let project = Scope::Project(self.rooms.get(room)?.address.project.clone());
                let role = self.effective_role(user, &project);
                role.filter(|role| *role == Role::Owner)
            }
            Scope::Project(_) => None,
        };
        granted.max(from_above)
    }

    /// The rooms that the user was given a role in, by id.
    pub fn rooms_of(&self, user: &UserName) -> Vec<&Room> {
        let roles = self.users.get(user).map(|user| &user.roles);
        let scopes = roles.into_iter().flat_map(BTreeMap::keys);
        let rooms = scopes.filter_map(|scope| match scope {
            Scope::Room(room) => self.rooms.get(room),
            Scope::Org | Scope::Project(_) => None,
        });
        rooms.collect()
    }

    /// Whether someone owns the org: from the first owner on, always.
    pub fn has_owner(&self) -> bool {
        self.owners().next().is_some()
    }

    /// Takes in what an event changes, or nothing of it when a rule forbids
    /// it. Does not look at the event's place in the chain.
    ///
    /// # Errors
    /// The rule that it would break.
    pub fn apply(&mut self, event: &Event) -> Result<(), Rule> {
        let at_ms = event.at_ms;
        match &event.change {
            Change::OrgCreated { .. } => {}
            _ if self.org.is_none() => return Err(Rule::OrgOnce),
            _ => {}
        }
        match &event.change {
            Change::OrgCreated { org, gateway_key } => self.create_org(org, gateway_key),
            Change::ProjectCreated { project } => self.create_project(project),
            Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
            } => {
                let issued = Invite {
                    expires_ms: *expires_ms,
                    scope: scope.clone(),
                    role: *role,
                };
                self.issue_invite(*invite, issued)
            }
            Change::UserEnrolled {
                user,
                identity_key,
                invite,
            } => self.enrol_user(user, identity_key, invite, at_ms),
            Change::DeviceAdded {
                certificate,
                signed,
            } => self.add_device(certificate, signed, at_ms),
            Change::DeviceRevoked { device } => self.revoke_device(*device, at_ms),
            Change::RoomCreated {
                room,
                project,
                shard,
                join_rule,
            } => {
                let address = RoomAddress {
                    shard: *shard,
                    project: project.clone(),
                    room: *room,
                };
                self.create_room(address, *join_rule)
            }
            Change::RoleGranted { user, scope, role } => self.grant_role(user, scope, *role),
            Change::RoleRevoked { user, scope } => self.revoke_role(user, scope),
        }
    }

    fn create_org(&mut self, name: &OrgName, gateway_key: &VerifyingKey) -> Result<(), Rule> {
        if self.org.is_some() {
            return Err(Rule::OrgOnce);
        }
        self.org = Some(Org {
            name: name.clone(),
            gateway_key: *gateway_key,
        });
        Ok(())
    }

    fn create_project(&mut self, project: &ProjectName) -> Result<(), Rule> {
        if self.projects.insert(project.clone()) {
            Ok(())
        } else {
            Err(Rule::ProjectTaken(project.clone()))
        }
    }

    fn issue_invite(&mut self, invite: InviteHash, issued: Invite) -> Result<(), Rule> {
        self.check_scope(&issued.scope)?;
        if self.invites.contains_key(&invite) {
            return Err(Rule::InviteTaken);
        }
        self.invites.insert(invite, issued);
        Ok(())
    }

    fn enrol_user(
        &mut self,
        user: &UserName,
        identity_key: &VerifyingKey,
        invite: &InviteHash,
        at_ms: i64,
    ) -> Result<(), Rule> {
        let issued = self.invites.get(invite).ok_or(Rule::InviteInvalid)?;
        if at_ms > issued.expires_ms {
            return Err(Rule::InviteExpired);
        }
        if self.users.contains_key(user) {
            return Err(Rule::UserTaken(user.clone()));
        }
        self.invites.remove(invite);
        self.users.insert(
            user.clone(),
            Arc::new(User {
                identity_key: *identity_key,
                devices: BTreeMap::new(),
                roles: BTreeMap::new(),
            }),
        );
        Ok(())
    }

    fn add_device(
        &mut self,
        certificate: &DeviceCertificate,
        signed: &Signed,
        at_ms: i64,
    ) -> Result<(), Rule> {
        let name = &certificate.user;
        if self.org() != Some(&certificate.org) {
            return Err(Rule::Certificate("another organisation"));
        }
        let unknown = || Rule::UnknownUser(name.clone());
        let user = self.users.get_mut(name).ok_or_else(unknown)?;
        if certificate.identity_key != user.identity_key {
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
        let user = Arc::make_mut(user);
        user.devices.insert(certificate.device, device);
        self.device_users.insert(certificate.device, name.clone());
        self.nats_keys.insert(nats_key);
        Ok(())
    }

    fn revoke_device(&mut self, device: DeviceId, at_ms: i64) -> Result<(), Rule> {
        let user = self.device_users.get(&device);
        let user = user.and_then(|user| self.users.get_mut(user));
        let removed = user.and_then(|user| Arc::make_mut(user).devices.remove(&device));
        let Device { certificate, .. } = removed.ok_or(Rule::UnknownDevice)?;
        let nats_key = certificate.nats_key;
        self.revoked
            .insert(device, RevokedDevice { nats_key, at_ms });
        Ok(())
    }

    fn create_room(&mut self, address: RoomAddress, join_rule: JoinRule) -> Result<(), Rule> {
        self.check_scope(&Scope::Project(address.project.clone()))?;
        if self.rooms.contains_key(&address.room) {
            return Err(Rule::RoomTaken);
        }
        self.rooms.insert(address.room, Room { address, join_rule });
        Ok(())
    }

    fn grant_role(&mut self, user: &UserName, scope: &Scope, role: Role) -> Result<(), Rule> {
        self.check_scope(scope)?;
        let roles = self.roles_mut(user)?;
        if roles.get(scope) >= Some(&role) {
            return Err(Rule::RoleHeld);
        }
        roles.insert(scope.clone(), role);
        Ok(())
    }

    fn revoke_role(&mut self, user: &UserName, scope: &Scope) -> Result<(), Rule> {
        if *scope == Scope::Org && self.owners().all(|owner| owner == user) && self.has_owner() {
            return Err(Rule::LastOwner);
        }
        let removed = self.roles_mut(user)?.remove(scope);
        removed.map(drop).ok_or(Rule::NoRole)
    }

    fn owners(&self) -> impl Iterator<Item = &UserName> {
        let owns = |user: &Arc<User>| user.roles.get(&Scope::Org) == Some(&Role::Owner);
        let users = self.users.iter();
        users.filter_map(move |(name, user)| owns(user).then_some(name))
    }

    fn roles_mut(&mut self, user: &UserName) -> Result<&mut BTreeMap<Scope, Role>, Rule> {
        match self.users.get_mut(user) {
            Some(user) => Ok(&mut Arc::make_mut(user).roles),
            None => Err(Rule::UnknownUser(user.clone())),
        }
    }

    fn check_scope(&self, scope: &Scope) -> Result<(), Rule> {
        match scope {
            Scope::Org => Ok(()),
            Scope::Project(project) if self.projects.contains(project) => Ok(()),
            Scope::Project(project) => Err(Rule::UnknownProject(project.clone())),
            Scope::Room(room) if self.rooms.contains_key(room) => Ok(()),
            Scope::Room(_) => Err(Rule::UnknownRoom),
        }
    }
}

/// The bytes of a public NATS key of a user.
fn user_key(text: &str) -> Option<[u8; 32]> {
    let key = KeyPair::from_public_key(text).ok()?;
    let (_, bytes) = nkeys::from_public_key(text).ok()?;
    (key.key_pair_type() == KeyPairType::User).then_some(bytes)
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
