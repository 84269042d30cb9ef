//! Who has which role where, of their own or by a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sotto_proto::{RoomId, UserName};

use super::super::event::Event;
use super::super::rule::Rule;
use super::super::terms::{Holder, Role, Scope};
use super::taken::Covered;
use super::users::UserStatus;
use super::{Group, Room, State, User};

impl State {
    /// The role that a user or a group was itself granted in just this place.
    pub fn own_role(&self, holder: &Holder, scope: &Scope) -> Option<Role> {
        self.check_scope(scope).ok()?;
        let roles = match holder {
            Holder::User(user) => &self.users.get(user)?.roles,
            Holder::Group(group) => &self.groups.get(group)?.roles,
        };
        roles.get(scope).copied()
    }

    /// The role that a user was granted in just this place: the greatest of
    /// their own and those of their groups.
    pub fn granted_role(&self, user: &UserName, scope: &Scope) -> Option<Role> {
        self.check_scope(scope).ok()?;
        let found = self.users.get(user)?;
        let by_group = self
            .groups_of(found)
            .filter_map(|group| group.roles.get(scope));
        by_group.chain(found.roles.get(scope)).max().copied()
    }

    /// The role that counts in a place: the greater of the one granted there
    /// and what comes down from above. Into a project comes any role; into a
    /// room only `owner`, which there gives the right to manage, not to read.
    pub fn effective_role(&self, user: &UserName, scope: &Scope) -> Option<Role> {
        let granted = self.granted_role(user, scope);
        let from_above = match scope {
            Scope::Org => None,
            Scope::Project(project) => {
                self.project(project)?;
                self.effective_role(user, &Scope::Org)
            }
            Scope::Room(room) => {
                let project = Scope::Project(self.room(*room)?.project.clone());
                let role = self.effective_role(user, &project);
                role.filter(|role| *role == Role::Owner)
            }
        };
        granted.max(from_above)
    }

    /// The rooms that a user was given a role in, themselves or by a group, by
    /// id; archived ones, too.
    pub fn rooms_of(&self, user: &UserName) -> Vec<&Room> {
        let Some(found) = self.users.get(user) else {
            return Vec::new();
        };
        let roles = self.groups_of(found).map(|group| &group.roles);
        let scopes = roles.chain([&found.roles]).flat_map(BTreeMap::keys);
        let rooms: BTreeSet<RoomId> = scopes.filter_map(room_of).collect();
        rooms
            .into_iter()
            .filter_map(|room| self.room(room))
            .collect()
    }

    /// Whether somebody who signed up owns the org: from the first one on, always.
    pub fn has_owner(&self) -> bool {
        self.org_owners().next().is_some()
    }

    /// Who signed up and owns the org; whoever does so in several ways comes
    /// several times.
    pub(crate) fn org_owners(&self) -> impl Iterator<Item = &UserName> {
        let is_active = |user: &&UserName| {
            let user = self.users.get(*user);
            user.is_some_and(|user| user.status == UserStatus::Active)
        };
        let holders = self.org_owners.iter();
        let users = holders.flat_map(|holder| {
            let (user, group) = match holder {
                Holder::User(user) => (Some(user), None),
                Holder::Group(group) => (None, self.groups.get(group)),
            };
            let members = group.into_iter().flat_map(|group| &group.members);
            user.into_iter().chain(members)
        });
        users.filter(is_active)
    }

    pub(super) fn groups_of(&self, user: &User) -> impl Iterator<Item = &Group> {
        let groups = user.groups.iter();
        groups.filter_map(|group| self.groups.get(group).map(Arc::as_ref))
    }

    pub(super) fn grant_role(
        &mut self,
        holder: &Holder,
        scope: &Scope,
        role: Role,
    ) -> Result<(), Rule> {
        self.check_active(scope)?;
        if !fits_guest(scope, role) {
            self.check_no_guest(holder)?;
        }
        let roles = self.roles_mut(holder)?;
        if roles.get(scope) >= Some(&role) {
            return Err(Rule::RoleHeld);
        }
        roles.insert(scope.clone(), role);
        if (scope, role) == (&Scope::Org, Role::Owner) {
            self.org_owners.insert(holder.clone());
        }
        Ok(())
    }

    pub(super) fn revoke_role(
        &mut self,
        holder: &Holder,
        scope: &Scope,
        event: &Event,
    ) -> Result<(), Rule> {
        let removed = self.roles_mut(holder)?.remove(scope);
        removed.ok_or(Rule::NoRole)?;
        if *scope == Scope::Org {
            self.org_owners.remove(holder);
        }
        let affected = match holder {
            Holder::User(user) => imbl::ordset![user.clone()],
            Holder::Group(group) => self.known_group(group)?.members.clone(),
        };
        if let Some(room) = room_of(scope) {
            for user in &affected {
                self.depart_unless_granted(user, room, event);
            }
        }
        self.restrict(Covered::Users(affected), event.at_ms);
        Ok(())
    }

    /// Whether everything that a user has, themselves and by groups, is what a
    /// guest may have.
    pub(super) fn check_fits_guest(&self, user: &User) -> Result<(), Rule> {
        let roles = self.groups_of(user).map(|group| &group.roles);
        let mut held = roles.chain([&user.roles]).flatten();
        let beyond = |(scope, role): (&Scope, &Role)| {
            self.check_scope(scope).is_ok() && !fits_guest(scope, *role)
        };
        if held.any(beyond) {
            return Err(Rule::Guest);
        }
        Ok(())
    }

    fn check_no_guest(&self, holder: &Holder) -> Result<(), Rule> {
        let is_guest = |user: &UserName| {
            let user = self.users.get(user);
            user.is_some_and(|user| user.guest_until_ms.is_some())
        };
        let holds = match holder {
            Holder::User(user) => is_guest(user),
            Holder::Group(group) => self.known_group(group)?.members.iter().any(is_guest),
        };
        if holds { Err(Rule::Guest) } else { Ok(()) }
    }

    fn roles_mut(&mut self, holder: &Holder) -> Result<&mut BTreeMap<Scope, Role>, Rule> {
        match holder {
            Holder::User(user) => Ok(&mut self.living_user_mut(user)?.roles),
            Holder::Group(group) => Ok(&mut self.group_mut(group)?.roles),
        }
    }
}

/// Guests have the role `user` in single rooms only.
pub(super) fn fits_guest(scope: &Scope, role: Role) -> bool {
    matches!(scope, Scope::Room(_)) && role == Role::User
}

pub(super) fn room_of(scope: &Scope) -> Option<RoomId> {
    match scope {
        Scope::Room(room) => Some(*room),
        Scope::Org | Scope::Project(_) => None,
    }
}
