//! What of the directory bears on one question: the object with the levels
//! above it, and how the user stands on each.

use sotto_proto::UserName;

use super::demand::INTRODUCTIONS_WINDOW;
use super::factor::Factor;
use super::level::LevelPolicy;
use sotto_proto::wire::JoinRule;

use crate::directory::{Role, Scope, State};

/// One user before one object.
pub(super) struct Facts<'a> {
    pub(super) user: &'a UserName,
    pub(super) guest: bool,
    pub(super) groups: Vec<&'a str>,
    pub(super) org: &'a str,
    /// The org first, the object last.
    pub(super) levels: Vec<Level<'a>>,
    pub(super) voices: Voices<'a>,
}

/// Who vouched for the user.
pub(super) enum Voices<'a> {
    /// Nobody.
    None,
    /// As the directory has it.
    Of(&'a State),
}

/// One level of the chain.
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

impl<'a> Facts<'a> {
    /// What the directory knows; `None` when there is no such object, or the
    /// user has no standing at all.
    pub(super) fn of(
        state: &'a State,
        user: &'a UserName,
        now_ms: i64,
        object: &Scope,
    ) -> Option<Self> {
        state.user(user)?;
        let mut levels = vec![Scope::Org];
        match object {
            Scope::Org => {}
            Scope::Project(_) => levels.push(object.clone()),
            Scope::Room(room) => {
                let room = state.room(*room)?;
                levels.push(Scope::Project(room.project.clone()));
                levels.push(object.clone());
            }
        }
        let levels = levels
            .into_iter()
            .map(|scope| Level::of(state, user, scope));
        Some(Self {
            user,
            guest: false,
            groups: Vec::new(),
            org: state.org()?.as_str(),
            levels: levels.collect(),
            voices: Voices::Of(state),
        })
    }

    /// A level by its place in the chain.
    pub(super) fn level(&self, index: usize) -> Option<&Level<'a>> {
        self.levels.get(index)
    }

    /// Whether the user could prove a factor at once. Every user has a password.
    pub(super) fn enrolled(&self, factor: Factor) -> bool {
        factor == Factor::Password
    }

    /// Of the user's newest introductions, which are by members in good
    /// standing on that level. `supposed`: as if all were.
    pub(super) fn good_introductions(
        &self,
        level: &Level<'_>,
        supposed: bool,
    ) -> [bool; INTRODUCTIONS_WINDOW as usize] {
        [supposed; INTRODUCTIONS_WINDOW as usize]
    }
}

impl<'a> Level<'a> {
    fn of(state: &'a State, user: &UserName, scope: Scope) -> Self {
        let role = state.effective_role(user, &scope);
        let open = |room| {
            let room = state.room(room);
            room.is_some_and(|room| room.join_rule == JoinRule::Open)
        };
        Self {
            owner: role == Some(Role::Owner),
            member: match &scope {
                Scope::Org | Scope::Project(_) => role.is_some(),
                Scope::Room(_) => state.granted_role(user, &scope).is_some(),
            },
            archived: false,
            open: matches!(scope, Scope::Room(room) if open(room)),
            policy: None,
            scope,
        }
    }
}
