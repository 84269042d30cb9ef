//! Groups of users.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdSet;
use sotto_proto::{GroupName, RoomId, Title, UserName};

use super::super::event::Event;
use super::super::rule::Rule;
use super::super::terms::{ExternalId, Holder, Role, Scope};
use super::State;
use super::roles::{fits_guest, room_of};
use super::taken::Covered;

/// A group. What it has, each member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// What people read in place of its name.
    pub title: Option<Title>,
    /// Where it comes from.
    pub external_id: Option<ExternalId>,
    /// Who is in it.
    pub members: OrdSet<UserName>,
    pub(super) roles: BTreeMap<Scope, Role>,
}

impl Group {
    /// The roles it was granted, by place; some may be in places that are
    /// deleted.
    pub fn roles(&self) -> impl Iterator<Item = (&Scope, Role)> {
        self.roles.iter().map(|(scope, role)| (scope, *role))
    }
}

impl State {
    /// Every group, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &Group)> {
        let groups = self.groups.iter();
        groups.map(|(name, group)| (name, group.as_ref()))
    }

    /// A group.
    pub fn group(&self, group: &GroupName) -> Option<&Group> {
        self.groups.get(group).map(Arc::as_ref)
    }

    pub(in super::super) fn known_group(&self, group: &GroupName) -> Result<&Group, Rule> {
        let unknown = || Rule::UnknownGroup(group.clone());
        self.group(group).ok_or_else(unknown)
    }

    pub(super) fn group_mut(&mut self, group: &GroupName) -> Result<&mut Group, Rule> {
        let unknown = || Rule::UnknownGroup(group.clone());
        let found = self.groups.get_mut(group).ok_or_else(unknown)?;
        Ok(Arc::make_mut(found))
    }

    pub(super) fn create_group(
        &mut self,
        group: &GroupName,
        title: Option<&Title>,
        external_id: Option<&ExternalId>,
    ) -> Result<(), Rule> {
        if self.groups.contains_key(group) || self.deleted_groups.contains(group) {
            return Err(Rule::GroupTaken(group.clone()));
        }
        if let Some(id) = external_id.filter(|id| self.external_groups.contains_key(*id)) {
            return Err(Rule::ExternalIdTaken(id.clone()));
        }
        let title_of = |other: &GroupName| self.groups.get(other)?.title.as_ref();
        self.group_looks.check_name(group, title_of)?;
        self.group_looks.check_title(group, title)?;
        self.group_looks.insert(group, title);
        if let Some(id) = external_id {
            self.external_groups.insert(id.clone(), group.clone());
        }
        let created = Group {
            title: title.cloned(),
            external_id: external_id.cloned(),
            ..Group::default()
        };
        self.groups.insert(group.clone(), Arc::new(created));
        Ok(())
    }

    pub(super) fn set_group_title(
        &mut self,
        group: &GroupName,
        title: Option<&Title>,
    ) -> Result<(), Rule> {
        self.group_looks.check_title(group, title)?;
        let before = self.known_group(group)?.title.clone();
        self.group_looks.remove(group, before.as_ref());
        self.group_looks.insert(group, title);
        self.group_mut(group)?.title = title.cloned();
        Ok(())
    }

    pub(super) fn delete_group(&mut self, group: &GroupName, event: &Event) -> Result<(), Rule> {
        let unknown = || Rule::UnknownGroup(group.clone());
        let deleted = self.groups.remove(group).ok_or_else(unknown)?;
        self.deleted_groups.insert(group.clone());
        self.org_owners.remove(&Holder::Group(group.clone()));
        self.group_looks.remove(group, deleted.title.as_ref());
        if let Some(id) = &deleted.external_id {
            self.external_groups.remove(id);
        }
        for user in &deleted.members {
            self.living_user_mut(user)?.groups.remove(group);
            self.depart_from_group(user, &deleted, event);
        }
        self.restrict(Covered::Users(deleted.members.clone()), event.at_ms);
        Ok(())
    }

    pub(super) fn add_group_member(
        &mut self,
        group: &GroupName,
        user: &UserName,
    ) -> Result<(), Rule> {
        let found = self.known_group(group)?;
        if found.members.contains(user) {
            return Err(Rule::AlreadyMember);
        }
        let is_guest = self.living_user(user)?.guest_until_ms.is_some();
        let beyond_guest =
            |(scope, role)| self.check_scope(scope).is_ok() && !fits_guest(scope, role);
        if is_guest && found.roles().any(beyond_guest) {
            return Err(Rule::Guest);
        }
        self.group_mut(group)?.members.insert(user.clone());
        self.living_user_mut(user)?.groups.insert(group.clone());
        Ok(())
    }

    pub(super) fn remove_group_member(
        &mut self,
        group: &GroupName,
        user: &UserName,
        event: &Event,
    ) -> Result<(), Rule> {
        let removed = self.group_mut(group)?.members.remove(user);
        removed.ok_or(Rule::NotMember)?;
        self.living_user_mut(user)?.groups.remove(group);
        let left = self.known_group(group)?.clone();
        self.depart_from_group(user, &left, event);
        self.restrict(Covered::Users(imbl::ordset![user.clone()]), event.at_ms);
        Ok(())
    }

    /// What a user had by a group only is gone.
    fn depart_from_group(&mut self, user: &UserName, group: &Group, event: &Event) {
        let rooms: Vec<RoomId> = group.roles.keys().filter_map(room_of).collect();
        for room in rooms {
            self.depart_unless_granted(user, room, event);
        }
    }
}
