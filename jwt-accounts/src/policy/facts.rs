//! What of the directory bears on one question: the object with the levels
//! above it, and how the user stands on each.

use sotto_proto::wire::JoinRule;
use sotto_proto::{GroupName, UserName};

use super::demand::INTRODUCTIONS_WINDOW;
use super::factor::Factor;
use super::level::LevelPolicy;
use super::question::World;
use crate::directory::{Role, Scope, State, UserStatus};

/// One user before one object.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) user: &'a str,
    pub(super) guest: bool,
    pub(super) groups: Vec<&'a GroupName>,
    pub(super) org: &'a str,
    /// The org first, the object last.
    pub(super) levels: Vec<Level<'a>>,
    known: Option<Known<'a>>,
}

/// A user whom the directory knows.
#[derive(Debug, Clone, Copy)]
struct Known<'a> {
    state: &'a State,
    user: &'a UserName,
}

/// One level of the chain.
#[derive(Debug)]
pub(super) struct Level<'a> {
    pub(super) scope: Scope,
    /// May manage it, by a role here or above.
    pub(super) owner: bool,
    /// Takes part in it.
    pub(super) member: bool,
    /// Or a level above is.
    pub(super) archived: bool,
    /// A room that whoever has a role in its project may join.
    pub(super) open: bool,
    pub(super) policy: Option<&'a LevelPolicy>,
}

/// Of the newest introductions, newest first, which are good.
pub(super) type Introductions = [bool; INTRODUCTIONS_WINDOW as usize];

impl<'a> Facts<'a> {
    /// What the directory knows; `None` when there is no such object, or the
    /// user has not signed up, was revoked, or is a guest whose time is over.
    pub(super) fn of(
        state: &'a State,
        user: &'a UserName,
        now_ms: i64,
        object: &Scope,
    ) -> Option<Self> {
        let found = state.user(user)?;
        if !in_time(state, user, now_ms) {
            return None;
        }
        let levels = chain(state, object)?.into_iter();
        let levels = levels.map(|scope| {
            let role = state.effective_role(user, &scope);
            let member = match &scope {
                Scope::Org | Scope::Project(_) => role.is_some(),
                Scope::Room(_) => state.granted_role(user, &scope).is_some(),
            };
            Level::of(state, scope, role == Some(Role::Owner), member)
        });
        Some(Self {
            user: user.as_str(),
            guest: found.guest_until_ms.is_some(),
            groups: found.groups.iter().collect(),
            org: state.org()?.as_str(),
            levels: levels.collect(),
            known: Some(Known { state, user }),
        })
    }

    /// As if there were somebody who has one role, of the level at this place
    /// in the chain, and nothing else.
    pub(super) fn supposed(
        state: &'a State,
        object: &Scope,
        role: Option<(usize, Role)>,
        guest: bool,
    ) -> Option<Self> {
        let levels = chain(state, object)?.into_iter().enumerate();
        let levels = levels.map(|(index, scope)| {
            let (here, above) = match role {
                Some((place, role)) if place == index => (Some(role), None),
                Some((place, role)) if place < index => (None, Some(role)),
                Some(_) | None => (None, None),
            };
            let owner = here.max(above) == Some(Role::Owner);
            let member = match scope {
                Scope::Org | Scope::Project(_) => here.max(above).is_some(),
                Scope::Room(_) => here.is_some(),
            };
            Level::of(state, scope, owner, member)
        });
        Some(Self {
            user: "somebody",
            guest,
            groups: Vec::new(),
            org: state.org()?.as_str(),
            levels: levels.collect(),
            known: None,
        })
    }

    /// A level by its place in the chain.
    pub(super) fn level(&self, index: usize) -> Option<&Level<'a>> {
        self.levels.get(index)
    }

    /// What is asked about.
    pub(super) fn object(&self) -> Option<&Level<'a>> {
        self.levels.last()
    }

    /// Whether a level of the chain demands anything of its own.
    pub(super) fn has_policies(&self) -> bool {
        self.levels.iter().any(|level| level.policy.is_some())
    }

    /// Whether the user could prove a factor at once. Every user has a password.
    pub(super) fn enrolled(&self, factor: Factor) -> bool {
        let user = self.known.and_then(|known| known.state.user(known.user));
        let mut factors = user.into_iter().flat_map(|user| user.factors());
        factor == Factor::Password || factors.any(|(_, enrolled)| enrolled == factor)
    }

    /// Of the user's newest introductions, which are by members in good
    /// standing on that level.
    pub(super) fn good_introductions(&self, level: &Level<'_>, world: World<'_>) -> Introductions {
        let mut good = [world.introduced; INTRODUCTIONS_WINDOW as usize];
        let Some(Known { state, user }) = self.known.filter(|_| !world.introduced) else {
            return good;
        };
        for (good, by) in good.iter_mut().zip(state.introductions(user)) {
            let member = state.user(by);
            *good = member.is_some_and(|member| member.guest_until_ms.is_none())
                && in_time(state, by, world.now_ms)
                && state.effective_role(by, &level.scope).is_some();
        }
        good
    }
}

impl<'a> Level<'a> {
    fn of(state: &'a State, scope: Scope, owner: bool, member: bool) -> Self {
        let room = match scope {
            Scope::Room(room) => state.room(room),
            Scope::Org | Scope::Project(_) => None,
        };
        Self {
            owner,
            member,
            archived: state.is_archived(&scope),
            open: room.is_some_and(|room| room.join_rule == JoinRule::Open),
            policy: state.policy(&scope).map(AsRef::as_ref),
            scope,
        }
    }
}

/// From the org down to an object; `None` when there is no such object.
fn chain(state: &State, object: &Scope) -> Option<Vec<Scope>> {
    Some(match object {
        Scope::Org => vec![Scope::Org],
        Scope::Project(project) => {
            state.project(project)?;
            vec![Scope::Org, object.clone()]
        }
        Scope::Room(room) => {
            let project = state.room(*room)?.project.clone();
            vec![Scope::Org, Scope::Project(project), object.clone()]
        }
    })
}

/// Whether a user has signed up, was not revoked, and is no guest whose time is
/// over.
fn in_time(state: &State, user: &UserName, now_ms: i64) -> bool {
    state.user(user).is_some_and(|user| {
        let over = user
            .guest_until_ms
            .is_some_and(|until_ms| now_ms >= until_ms);
        user.status == UserStatus::Active && !over
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Facts of every kind, those included that no directory would give.
    pub fn facts() -> impl Strategy<Value = Facts<'static>> {
        let level = any::<[bool; 4]>();
        let levels = proptest::collection::vec(level, 1..=3);
        (levels, any::<bool>()).prop_map(|(levels, guest)| {
            let scopes = [
                Scope::Org,
                Scope::Project("field".parse().unwrap()),
                Scope::Room((&[1; 16][..]).try_into().unwrap()),
            ];
            let levels = scopes.into_iter().zip(levels);
            let levels = levels.map(|(scope, [owner, member, archived, open])| Level {
                scope,
                owner,
                member,
                archived,
                open,
                policy: None,
            });
            Facts {
                user: "alice",
                guest,
                groups: Vec::new(),
                org: "acme",
                levels: levels.collect(),
                known: None,
            }
        })
    }
}
