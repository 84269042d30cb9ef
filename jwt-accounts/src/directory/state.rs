//! What the log adds up to.
//!
//! Every collection that grows with the org is one that shares what is equal
//! between copies, because each decision is tried on a copy.

mod groups;
mod interventions;
mod invites;
mod looks;
mod policies;
mod projects;
mod roles;
mod rooms;
pub mod snapshot;
mod taken;
mod users;

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use imbl::{OrdMap, OrdSet, Vector};
use sotto_proto::{DeviceId, GroupName, OrgName, ProjectName, RoomId, Title, UserName};

use super::chain::Head;
use super::event::{Change, Event, InviteHash};
use super::rule::Rule;
use super::terms::{ExternalId, Holder, Scope, Titled};

pub use groups::Group;
pub use invites::Invite;
pub use projects::Project;
pub use rooms::Room;
pub use taken::Departure;
pub(super) use users::FACTORS_MAX;
pub use users::{Device, RevokedDevice, User, UserStatus};

use interventions::Intervened;
use looks::Looks;
use policies::LevelSetting;
use taken::Restriction;

/// The directory after some number of events. Reads only what
/// [`State::apply`] took in; equal logs give equal states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(super) head: Head,
    org: Option<Arc<Org>>,
    /// Every project there ever was; names are not used twice.
    projects: OrdMap<ProjectName, Project>,
    /// Every room there ever was; ids are not used twice.
    rooms: OrdMap<RoomId, Arc<Room>>,
    /// Every user there ever was; names are not used twice.
    users: OrdMap<UserName, Arc<User>>,
    groups: OrdMap<GroupName, Arc<Group>>,
    /// Their names are not used again.
    deleted_groups: OrdSet<GroupName>,
    /// Every device there ever was; ids are not used twice.
    device_users: OrdMap<DeviceId, UserName>,
    revoked: OrdMap<DeviceId, Arc<RevokedDevice>>,
    /// Every device's NATS key there ever was, so that revoking one device can
    /// never cut another.
    nats_keys: OrdSet<[u8; 32]>,
    invites: OrdMap<InviteHash, Arc<Invite>>,
    policies: OrdMap<Scope, LevelSetting>,
    /// Who has the role `owner` in the org, to find the last one.
    org_owners: OrdSet<Holder>,
    external_users: OrdMap<ExternalId, UserName>,
    external_groups: OrdMap<ExternalId, GroupName>,
    project_looks: Looks<ProjectName>,
    user_looks: Looks<UserName>,
    group_looks: Looks<GroupName>,
    departures: Vector<Arc<Departure>>,
    restrictions: Vector<Arc<Restriction>>,
    interventions: Vector<Intervened>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Org {
    name: OrgName,
    gateway_key: VerifyingKey,
    title: Option<Title>,
}

impl State {
    /// The org's name, once it is created.
    pub fn org(&self) -> Option<&OrgName> {
        self.org.as_ref().map(|org| &org.name)
    }

    /// What people read in place of the org's name.
    pub fn org_title(&self) -> Option<&Title> {
        self.org.as_ref()?.title.as_ref()
    }

    /// The key that signs the log, once the org is created.
    pub fn gateway_key(&self) -> Option<&VerifyingKey> {
        self.org.as_ref().map(|org| &org.gateway_key)
    }

    /// How far the log was read.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What people read in place of a name.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn title(&self, of: &Titled) -> Result<Option<&Title>, Rule> {
        match of {
            Titled::Org => Ok(self.org_title()),
            Titled::Project(project) => Ok(self.known_project(project)?.title.as_ref()),
            Titled::User(user) => Ok(self.known_user(user)?.title.as_ref()),
            Titled::Group(group) => Ok(self.known_group(group)?.title.as_ref()),
        }
    }

    /// Takes in what an event changes, or nothing of it when a rule forbids
    /// it. Does not look at the event's place in the chain.
    ///
    /// # Errors
    /// The rule that it would break.
    pub fn apply(&mut self, event: &Event) -> Result<(), Rule> {
        let creates_org = matches!(event.change, Change::OrgCreated { .. });
        if creates_org == self.org.is_some() {
            return Err(Rule::OrgOnce);
        }
        match &event.change {
            Change::OrgCreated { org, gateway_key } => {
                self.org = Some(Arc::new(Org {
                    name: org.clone(),
                    gateway_key: *gateway_key,
                    title: None,
                }));
                Ok(())
            }
            Change::ProjectCreated { project } => self.create_project(project),
            Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
                for_user,
                guest_until_ms,
            } => {
                let issued = Invite {
                    expires_ms: *expires_ms,
                    scope: scope.clone(),
                    role: *role,
                    for_user: for_user.clone(),
                    guest_until_ms: *guest_until_ms,
                    issued_by: event.actor.clone(),
                };
                self.issue_invite(*invite, issued)
            }
            Change::UserEnrolled {
                user,
                identity_key,
                invite,
            } => self.enrol_user(user, identity_key, invite, event.at_ms),
            Change::DeviceAdded {
                certificate,
                signed,
            } => self.add_device(certificate, signed, event.at_ms),
            Change::DeviceRevoked { device } => self.revoke_device(*device, event),
            Change::RoomCreated {
                room,
                project,
                shard,
                join_rule,
            } => self.create_room(*room, project, *shard, *join_rule),
            Change::RoleGranted {
                holder,
                scope,
                role,
            } => self.grant_role(holder, scope, *role),
            Change::RoleRevoked { holder, scope } => {
                self.keeping_an_owner(|after| after.revoke_role(holder, scope, event))
            }
            Change::TitleSet { of, title } => self.set_title(of, title.as_ref()),
            Change::ProjectStatusSet { project, status } => {
                self.set_project_status(project, *status, event.at_ms)
            }
            Change::RoomStatusSet { room, status } => {
                self.set_room_status(*room, *status, event.at_ms)
            }
            Change::RoomMoved { room, project } => self.move_room(*room, project, event.at_ms),
            Change::UserAdded {
                user,
                title,
                external_id,
            } => self.add_user(user, title.as_ref(), external_id.as_ref()),
            Change::UserRevoked { user } => {
                self.keeping_an_owner(|after| after.revoke_user(user, event))
            }
            Change::GroupCreated {
                group,
                title,
                external_id,
            } => self.create_group(group, title.as_ref(), external_id.as_ref()),
            Change::GroupDeleted { group } => {
                self.keeping_an_owner(|after| after.delete_group(group, event))
            }
            Change::GroupMemberAdded { group, user } => self.add_group_member(group, user),
            Change::GroupMemberRemoved { group, user } => {
                self.keeping_an_owner(|after| after.remove_group_member(group, user, event))
            }
            Change::GuestUntilSet { user, until_ms } => {
                self.set_guest_until(user, *until_ms, event.at_ms)
            }
            Change::PolicySet { scope, policy } => self.set_policy(scope, policy.as_ref(), event),
            Change::IntroductionGiven { user, by } => self.give_introduction(user, by),
            Change::IntroductionWithdrawn { user, by } => {
                self.withdraw_introduction(user, by, event.at_ms)
            }
            Change::FactorEnrolled { user, factor, id } => self.enrol_factor(user, *factor, *id),
            Change::FactorRemoved { user, id } => self.remove_factor(user, *id, event.at_ms),
            Change::Intervened { what, .. } => self.intervene(what, event),
        }
    }

    /// Makes a change, unless the org had an owner and has none after it.
    fn keeping_an_owner(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), Rule>,
    ) -> Result<(), Rule> {
        let mut after = self.clone();
        change(&mut after)?;
        if self.has_owner() && !after.has_owner() {
            return Err(Rule::LastOwner);
        }
        *self = after;
        Ok(())
    }

    fn set_title(&mut self, of: &Titled, title: Option<&Title>) -> Result<(), Rule> {
        if self.title(of)? == title {
            return Err(Rule::Unchanged);
        }
        match of {
            Titled::Org => {
                if let Some(org) = &mut self.org {
                    Arc::make_mut(org).title = title.cloned();
                }
                Ok(())
            }
            Titled::Project(project) => self.set_project_title(project, title),
            Titled::User(user) => self.set_user_title(user, title),
            Titled::Group(group) => self.set_group_title(group, title),
        }
    }
}
