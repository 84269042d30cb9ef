//! Who should be in which group, and who should not be any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sotto_jwt_accounts::directory::{State, UserStatus};
use sotto_proto::{GroupName, UserName};

use super::identity::{Groups, Identified, Users};
use super::{Draft, PlanError, Step};
use crate::dn::Dn;
use crate::import::{Entries, Member};
use crate::mapping::Mapping;

/// Most memberships of one import, those by groups in groups counted.
pub(super) const MEMBERSHIPS_MAX: usize = 5_000_000;

/// The members that each group of the server should have.
pub(super) struct Wanted {
    members: BTreeMap<GroupName, BTreeSet<UserName>>,
}

impl Wanted {
    pub(super) fn new(
        entries: &Entries,
        users: &Identified<'_, Users>,
        groups: &Identified<'_, Groups>,
        draft: &mut Draft,
    ) -> Result<Self, PlanError> {
        let server = Server::new(entries, users);
        let mut members = BTreeMap::new();
        let mut total = 0_usize;
        for identity in groups.iter() {
            let dn = &identity.entry.dn;
            let found = match server.members.get(dn) {
                Some(_) => server.members_of(dn, draft),
                None => server.users_below(dn),
            };
            total = total.saturating_add(found.len());
            if total > MEMBERSHIPS_MAX {
                return Err(PlanError::TooManyMembers);
            }
            members.insert(identity.name.clone(), found);
        }
        Ok(Self { members })
    }

    pub(super) fn add(&self, draft: &mut Draft) {
        for (group, users) in &self.members {
            for user in users {
                let state = draft.state();
                // Users and groups that were refused are reported already.
                let (Some(found), Some(_)) = (state.group(group), state.user(user)) else {
                    continue;
                };
                if !found.members.contains(user) {
                    let (group, user) = (group.clone(), user.clone());
                    let step = Step::AddMember { group, user };
                    draft.attempt(step.to_string(), step);
                }
            }
        }
    }

    /// What came from this server and is not there any more. Memberships of
    /// users who do not come from it are nobody's to take.
    pub(super) fn missing(
        &self,
        mapping: &Mapping,
        users: &Identified<'_, Users>,
        groups: &Identified<'_, Groups>,
        state: &State,
    ) -> Vec<Step> {
        let gone = |id: Option<&str>, is_there: &dyn Fn(&str) -> bool| {
            id.is_some_and(|id| mapping.is_source_of(id) && !is_there(id))
        };
        let living = state
            .users()
            .filter(|(_, user)| user.status != UserStatus::Revoked);
        let gone_users: BTreeSet<&UserName> = living
            .filter(|(_, user)| {
                let id = user.external_id.as_ref().map(|id| id.as_str());
                gone(id, &|id| users.has_external_id(id))
            })
            .map(|(name, _)| name)
            .collect();
        let there: BTreeSet<&UserName> = users.iter().map(|identity| &identity.name).collect();

        let mut steps = Vec::new();
        for (group, wanted) in &self.members {
            let members = state
                .group(group)
                .into_iter()
                .flat_map(|found| &found.members);
            let left = members.filter(|user| there.contains(user) && !wanted.contains(*user));
            steps.extend(left.map(|user| Step::RemoveMember {
                group: group.clone(),
                user: user.clone(),
            }));
        }
        let gone_users = gone_users.into_iter().cloned();
        steps.extend(gone_users.map(|user| Step::RevokeUser { user }));
        if mapping.groups.is_some() {
            let gone_groups = state.groups().filter(|(_, group)| {
                let id = group.external_id.as_ref().map(|id| id.as_str());
                gone(id, &|id| groups.has_external_id(id))
            });
            let gone_groups = gone_groups.map(|(name, _)| name.clone());
            steps.extend(gone_groups.map(|group| Step::DeleteGroup { group }));
        }
        steps
    }
}

/// What the server says, by the ways in which members are named.
struct Server<'e> {
    members: HashMap<&'e Dn, &'e [Member]>,
    users_by_dn: HashMap<&'e Dn, &'e UserName>,
    users_by_name: HashMap<String, &'e UserName>,
}

impl<'e> Server<'e> {
    fn new(entries: &'e Entries, users: &'e Identified<'e, Users>) -> Self {
        let groups = entries.groups.iter();
        let by_name = users.iter().filter_map(|identity| {
            let name = identity.entry.name.as_ref()?;
            Some((name.to_lowercase(), &identity.name))
        });
        Self {
            members: groups
                .map(|group| (&group.entry.dn, group.members.as_slice()))
                .collect(),
            users_by_dn: users
                .iter()
                .map(|identity| (&identity.entry.dn, &identity.name))
                .collect(),
            users_by_name: by_name.collect(),
        }
    }

    fn users_below(&self, unit: &Dn) -> BTreeSet<UserName> {
        let users = self.users_by_dn.iter();
        let below = users.filter(|(dn, _)| dn.is_below(unit));
        below.map(|(_, name)| (*name).clone()).collect()
    }

    /// The users in a group and in the groups in it, which may go in circles.
    fn members_of(&self, group: &Dn, draft: &mut Draft) -> BTreeSet<UserName> {
        let mut users = BTreeSet::new();
        let mut unknown = 0_usize;
        let mut seen: HashSet<&Dn> = HashSet::new();
        let mut open: Vec<&[Member]> = self.members.get(group).copied().into_iter().collect();
        while let Some(members) = open.pop() {
            for member in members {
                let user = match member {
                    Member::Dn(dn) => self.users_by_dn.get(dn),
                    Member::Name(name) => self.users_by_name.get(&name.to_lowercase()),
                };
                if let Some(user) = user {
                    users.insert((*user).clone());
                } else if let Member::Dn(dn) = member
                    && let Some((dn, inner)) = self.members.get_key_value(dn)
                {
                    if seen.insert(dn) {
                        open.push(inner);
                    }
                } else {
                    unknown += 1;
                }
            }
        }
        if unknown > 0 {
            let why = format!("{unknown} of its members are not among those that [users] finds");
            draft.remark(group, why);
        }
        users
    }
}
