//! The roles that were given, and `sotto admin role list`.

use std::fmt;

use serde_json::{Value, json};
use sotto_jwt_accounts::directory::{Holder, Role, Scope, State};

use crate::commands::admin::directory;
use crate::commands::admin::place::{holder, holder_fields, place};
use crate::device::{Context, Device};
use crate::table::Table;

/// A role in just one place.
pub struct Held {
    pub scope: Scope,
    pub role: Role,
}

impl Held {
    pub fn json(&self) -> Value {
        json!({ "place": place(&self.scope), "role": self.role.to_string() })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.role, place(&self.scope))
    }
}

/// Everybody who can have a role: users, then groups, by name.
pub fn holders(state: &State) -> impl Iterator<Item = Holder> {
    let users = state.users().map(|(name, _)| Holder::User(name.clone()));
    let groups = state.groups().map(|(name, _)| Holder::Group(name.clone()));
    users.chain(groups)
}

/// The roles that a user or a group was given, without those that came to
/// nothing because their place was deleted.
pub fn of(state: &State, holder: &Holder) -> Vec<Held> {
    let roles: Vec<(&Scope, Role)> = match holder {
        Holder::User(user) => match state.user(user) {
            Some(user) => user.roles().collect(),
            None => Vec::new(),
        },
        Holder::Group(group) => match state.group(group) {
            Some(group) => group.roles().collect(),
            None => Vec::new(),
        },
    };
    let held = roles.into_iter().map(|(scope, role)| Held {
        scope: scope.clone(),
        role,
    });
    held.filter(|held| state.own_role(holder, &held.scope).is_some())
        .collect()
}

pub async fn list(
    context: &Context,
    device: &Device,
    who: Option<Holder>,
    scope: Option<Scope>,
) -> anyhow::Result<()> {
    let state = directory::state_at(context, device).await?;
    let mut table = Table::new(["WHO", "ROLE", "WHERE"]);
    let asked_who = |holder: &Holder| who.as_ref().is_none_or(|who| who == holder);
    let asked_where = |held: &Held| scope.as_ref().is_none_or(|scope| *scope == held.scope);
    for whose in holders(&state).filter(asked_who) {
        for held in of(&state, &whose).into_iter().filter(asked_where) {
            let (user, group) = holder_fields(whose.clone());
            let some = |name: String| Some(name).filter(|name| !name.is_empty());
            table.row(
                json!({
                    "event": "role", "user": some(user), "group": some(group),
                    "role": held.role.to_string(), "place": place(&held.scope),
                }),
                [holder(&whose), held.role.to_string(), place(&held.scope)],
            );
        }
    }
    Ok(table.show(context.output, "No roles were given there.")?)
}
