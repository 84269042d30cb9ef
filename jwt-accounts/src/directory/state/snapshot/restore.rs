//! Puts a state together from the records of a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use sotto_proto::signed;
use sotto_proto::wire;
use sotto_proto::{DeviceId, GroupName, RoomAddress, RoomId, UserName};

use super::super::interventions::Intervened;
use super::super::policies::LevelSetting;
use super::super::taken::{Covered, Departure, Restriction};
use super::super::users::{RevokedDevice, User, user_key_bytes};
use super::super::{Group, Invite, Org, Project, Room, State, UserStatus};
use super::record::{
    DepartureRecord, GroupRecord, InterventionRecord, InviteRecord, Kind, OrgRecord, PolicyRecord,
    ProjectRecord, Record, RestrictionRecord, RevokedDeviceRecord, RoomRecord,
};
use crate::directory::chain::Head;
use crate::directory::event::Change;
use crate::directory::wire::{Malformed, unless_empty};
use crate::directory::{Actor, Holder, Role, Scope, Status};

use super::users::{roles, user};

/// A state that grows by records.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) state: State,
}

/// A record of which everything was read that can be read without the others.
pub(super) enum Part {
    /// Most of what there is, and the keys in it take the longest to read.
    User(UserName, Box<User>),
    Other(Kind),
}

impl TryFrom<Record> for Part {
    type Error = Malformed;

    fn try_from(record: Record) -> Result<Self, Malformed> {
        Ok(match record.kind.ok_or(Malformed::Part("record"))? {
            Kind::User(record) => {
                let (name, user) = user(*record)?;
                Self::User(name, Box::new(user))
            }
            kind => Self::Other(kind),
        })
    }
}

impl Restored {
    pub(super) fn take(&mut self, part: Part) -> Result<(), Malformed> {
        match part {
            Part::User(name, user) => self.user(name, *user),
            Part::Other(kind) => self.other(kind),
        }
    }

    fn other(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Org(record) => self.org(record),
            Kind::Project(record) => self.project(&record),
            Kind::Room(record) => self.room(record),
            Kind::Group(record) => self.group(record),
            Kind::User(record) => {
                let (name, user) = user(*record)?;
                self.user(name, user)
            }
            Kind::RevokedDevice(record) => self.revoked_device(record),
            Kind::Invite(record) => self.invite(record),
            Kind::Policy(record) => self.policy(record),
            Kind::Departure(record) => self.departure(&record),
            Kind::Restriction(record) => self.restriction(record),
            Kind::Intervention(record) => {
                let InterventionRecord { index, at_ms } = record;
                let intervened = Intervened { index, at_ms };
                self.state.interventions.push_back(intervened);
                Ok(())
            }
        }
    }

    fn org(&mut self, record: OrgRecord) -> Result<(), Malformed> {
        let hash = match record.hash.as_ref() {
            [] => None,
            hash => Some(hash.try_into().map_err(|_| Malformed::Part("head"))?),
        };
        self.state.head = Head {
            length: record.length,
            hash,
        };
        self.state.org = Some(Arc::new(Org {
            name: record.org.parse()?,
            gateway_key: signed::public_key(&record.gateway_key)?,
            title: unless_empty(&record.title)?,
        }));
        Ok(())
    }

    fn project(&mut self, record: &ProjectRecord) -> Result<(), Malformed> {
        let name = record.project.parse()?;
        let project = Project {
            title: unless_empty(&record.title)?,
            status: record.status().try_into()?,
        };
        if project.status != Status::Deleted {
            let title = project.title.as_ref();
            self.state.project_looks.insert(&name, title);
        }
        self.state.projects.insert(name, project);
        Ok(())
    }

    fn room(&mut self, record: RoomRecord) -> Result<(), Malformed> {
        let room = Room {
            status: record.status().try_into()?,
            join_rule: wire::JoinRule::try_from(record.join_rule)
                .map_err(|_| Malformed::Part("join rule"))?,
            address: address(record.address)?,
            project: record.project.parse()?,
        };
        self.state.rooms.insert(room.address.room, Arc::new(room));
        Ok(())
    }

    fn group(&mut self, record: GroupRecord) -> Result<(), Malformed> {
        let name: GroupName = record.group.parse()?;
        if record.deleted {
            self.state.deleted_groups.insert(name);
            return Ok(());
        }
        let group = Group {
            title: unless_empty(&record.title)?,
            external_id: unless_empty(&record.external_id)?,
            roles: roles(record.roles)?,
            ..Group::default()
        };
        self.note_owner(&group.roles, || Holder::Group(name.clone()));
        self.state.group_looks.insert(&name, group.title.as_ref());
        if let Some(id) = &group.external_id {
            self.state.external_groups.insert(id.clone(), name.clone());
        }
        self.state.groups.insert(name, Arc::new(group));
        Ok(())
    }

    fn user(&mut self, name: UserName, user: User) -> Result<(), Malformed> {
        for group in &user.groups {
            let found = self.state.groups.get_mut(group);
            let found = found.ok_or(Malformed::Part("group"))?;
            Arc::make_mut(found).members.insert(name.clone());
        }
        for device in user.devices() {
            let certificate = &device.certificate;
            self.device_of(certificate.device, &name, &certificate.nats_key)?;
        }
        if user.status != UserStatus::Revoked {
            self.state.user_looks.insert(&name, user.title.as_ref());
        }
        if let Some(id) = &user.external_id {
            self.state.external_users.insert(id.clone(), name.clone());
        }
        self.note_owner(&user.roles, || Holder::User(name.clone()));
        self.state.users.insert(name, Arc::new(user));
        Ok(())
    }

    fn device_of(
        &mut self,
        device: DeviceId,
        user: &UserName,
        nats_key: &str,
    ) -> Result<(), Malformed> {
        let nats_key = user_key_bytes(nats_key).ok_or(Malformed::Part("NATS key"))?;
        self.state.nats_keys.insert(nats_key);
        self.state.device_users.insert(device, user.clone());
        Ok(())
    }

    fn revoked_device(&mut self, record: RevokedDeviceRecord) -> Result<(), Malformed> {
        let device = DeviceId::try_from(&record.device)?;
        self.device_of(device, &record.user.parse()?, &record.nats_key)?;
        let revoked = RevokedDevice {
            nats_key: record.nats_key,
            at_ms: record.at_ms,
        };
        self.state.revoked.insert(device, Arc::new(revoked));
        Ok(())
    }

    fn invite(&mut self, record: InviteRecord) -> Result<(), Malformed> {
        let issued = record.issued.ok_or(Malformed::Part("invite"))?;
        let issued_by = match record.issued_by.as_str() {
            "" => Actor::Gateway,
            user => Actor::User(user.parse()?),
        };
        let change = Change::try_from(wire::directory_event::Body::InviteIssued(issued))?;
        let Change::InviteIssued {
            invite,
            expires_ms,
            scope,
            role,
            for_user,
            guest_until_ms,
        } = change
        else {
            return Err(Malformed::Part("invite"));
        };
        let issued = Invite {
            expires_ms,
            scope,
            role,
            for_user,
            guest_until_ms,
            issued_by,
        };
        self.state.invites.insert(invite, Arc::new(issued));
        Ok(())
    }

    fn policy(&mut self, record: PolicyRecord) -> Result<(), Malformed> {
        let set = record.set.ok_or(Malformed::Part("policy"))?;
        let change = Change::try_from(wire::directory_event::Body::PolicySet(set))?;
        let Change::PolicySet { scope, policy } = change else {
            return Err(Malformed::Part("policy"));
        };
        let index = record.index;
        let setting = LevelSetting { policy, index };
        self.state.policies.insert(scope, setting);
        Ok(())
    }

    fn departure(&mut self, record: &DepartureRecord) -> Result<(), Malformed> {
        let room = RoomId::try_from(&record.room)?;
        let user: UserName = record.user.parse()?;
        let found = self.state.rooms.get(&room);
        let address = found.ok_or(Malformed::Part("room"))?.address.clone();
        let identity_key = self.state.users.get(&user);
        let identity_key = identity_key.and_then(|user| user.identity_key);
        let departure = Departure {
            index: record.index,
            room,
            address,
            identity_key: identity_key.ok_or(Malformed::Part("identity key"))?,
            user,
            device: match &record.device {
                none if none.is_empty() => None,
                device => Some(DeviceId::try_from(device)?),
            },
            at_ms: record.at_ms,
        };
        self.state.departures.push_back(Arc::new(departure));
        Ok(())
    }

    fn restriction(&mut self, record: RestrictionRecord) -> Result<(), Malformed> {
        let from = match (record.scope, record.introduced_by.as_str()) {
            (Some(scope), _) => Covered::Scope(Some(scope).try_into()?),
            (None, "") => {
                let users = record.users.iter().map(|user| user.parse());
                Covered::Users(users.collect::<Result<_, _>>()?)
            }
            (None, by) => Covered::IntroducedBy(by.parse()?),
        };
        let at_ms = record.at_ms;
        let restriction = Restriction { at_ms, from };
        self.state.restrictions.push_back(Arc::new(restriction));
        Ok(())
    }

    fn note_owner(&mut self, roles: &BTreeMap<Scope, Role>, holder: impl FnOnce() -> Holder) {
        if roles.get(&Scope::Org) == Some(&Role::Owner) {
            self.state.org_owners.insert(holder());
        }
    }
}

fn address(address: Option<wire::RoomAddress>) -> Result<RoomAddress, Malformed> {
    let address = address.ok_or(Malformed::Part("address"))?;
    RoomAddress::try_from(&address).map_err(|_| Malformed::Part("address"))
}
