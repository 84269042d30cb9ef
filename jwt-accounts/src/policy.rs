//! Who may do what: roles, and what the levels of an org demand beyond them.
//!
//! [`check`] answers with a [`Permit`], which only this module can make: code
//! that acts for a user takes one, so that forgetting to ask does not compile.
//! A permit is true of the state it was asked of, so ask again for each act.
//!
//! Cedar evaluates: what roles allow stands in `roles.cedar`, what can be
//! spoken about in `sotto.cedarschema`. A level can only forbid, so a level
//! can only tighten. What cannot be evaluated is forbidden.

use sotto_proto::UserName;

use self::denied::Why;
use crate::directory::{Actor, By, State};

mod action;
mod demand;
mod denied;
mod entities;
mod explain;
mod factor;
mod facts;
mod fresh;
mod judge;
mod level;
mod lockout;
mod matrix;
mod model;
mod nats;
mod question;
mod roles;

pub use action::{
    Action, CreateInvite, CreateProject, CreateRoom, Introduce, Invite, Join, Manage, Post, Read,
};
pub use demand::{ActionKind, BadDemand, Demand, INTRODUCTIONS_WINDOW};
pub use denied::{Denied, Missing};
pub use explain::{DecidingRule, Explanation, explain};
pub use factor::{Factor, Proven, UnknownFactor};
pub(crate) use fresh::check_fresh;
pub use level::{BadPolicy, LevelPolicy};
pub use lockout::LockedOut;
pub(crate) use lockout::lockout;
pub use matrix::{Cell, Matrix, Row, matrix};
pub use model::{ROLES, SCHEMA};
pub use nats::{NatsAccess, RoomAccess, nats_access, revoked_nats_keys};

/// Who asks, with what proven, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who.
    pub user: &'a UserName,
    /// What the session has proven.
    pub proven: &'a Proven,
    /// By the asked program's clock, in ms since 1970.
    pub now_ms: i64,
}

/// Proof that `A` was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a permit is there to be handed to what acts"]
pub struct Permit<A: Action> {
    user: UserName,
    object: A::Object,
}

impl<A: Action> Permit<A> {
    /// Who may.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// On what.
    pub fn object(&self) -> &A::Object {
        &self.object
    }
}

/// Whether a user may do something to an object.
///
/// # Errors
/// [`Denied`]; unknown users and objects are denied, not told apart.
pub fn check<A: Action>(
    state: &State,
    asking: Asking<'_>,
    _action: A,
    object: &A::Object,
) -> Result<Permit<A>, Denied> {
    judge::judge(state, asking, A::KIND, &A::scope(object))?;
    Ok(Permit {
        user: asking.user.clone(),
        object: object.clone(),
    })
}

/// As [`check`], supposing that the user had just proven every factor that a
/// session can prove: whether they belong there at all.
///
/// # Errors
/// [`Denied`].
pub fn standing<A: Action>(
    state: &State,
    user: &UserName,
    now_ms: i64,
    action: A,
    object: &A::Object,
) -> Result<Permit<A>, Denied> {
    let proven = &Proven::all(now_ms);
    let asking = Asking {
        user,
        proven,
        now_ms,
    };
    check(state, asking, action, object)
}

/// As [`check`], where the gateway itself may too.
pub(crate) fn check_actor<A: Action>(
    state: &State,
    by: &By,
    now_ms: i64,
    action: A,
    object: &A::Object,
) -> Result<(), Denied> {
    match &by.actor {
        Actor::Gateway => Ok(()),
        Actor::User(_) => check_user(state, by, now_ms, action, object).map(drop),
    }
}

/// As [`check`], where only a user makes sense.
pub(crate) fn check_user<A: Action>(
    state: &State,
    by: &By,
    now_ms: i64,
    action: A,
    object: &A::Object,
) -> Result<UserName, Denied> {
    match &by.actor {
        Actor::Gateway => Err(Denied::new(
            by.actor.to_string(),
            A::KIND,
            A::scope(object),
            Why::Needs(A::KIND.needs()),
        )),
        Actor::User(user) => {
            let asking = Asking {
                user,
                proven: &by.proven,
                now_ms,
            };
            check(state, asking, action, object).map(|permit| permit.user)
        }
    }
}

/// What is the gateway's alone.
pub(crate) fn check_gateway(actor: &Actor, action: &'static str) -> Result<(), Denied> {
    match actor {
        Actor::Gateway => Ok(()),
        Actor::User(user) => Err(Denied::gateway_only(user.to_string(), action)),
    }
}

#[cfg(test)]
mod tests;
